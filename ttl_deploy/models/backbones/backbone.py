"""What is known of a network before it is built, and what a family of networks offers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from ttl_deploy.records.models import InputConvention


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Weights that a network's authors publish: where they lie, how to get them, how their network was fed.

    `fetch` returns the path of the file, downloading it where it is missing; raises `WeightsError`.
    """

    source: str
    fetch: Callable[[], Path]
    convention: InputConvention


def _keep_all(name: str) -> bool:
    return True


def _as_they_are(tensors: Mapping[str, Tensor], image_size: int) -> Mapping[str, Tensor]:
    return tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A network that can be built for images of a size, and how weights come into it.

    Attributes:
        name: what the user typed.
        build: from the image's side in pixels to the network with random weights.
        published: its published weights, if there are any.
        weights_of: the backbone whose weights files fit it, where that is another one: a slimmed
            network takes what it keeps from the network it was made of.
        takes: whether a tensor of that name comes from a weights file; the others start random on purpose.
        fit: brings tensors of a file into the shapes that this image size needs (position embeddings).
        builds_on_meta: whether `build` works with its parameters on the meta device, which is faster.
    """

    name: str
    build: Callable[[int], nn.Module]
    published: Published | None = None
    weights_of: str | None = None
    takes: Callable[[str], bool] = _keep_all
    fit: Callable[[Mapping[str, Tensor], int], Mapping[str, Tensor]] = _as_they_are
    builds_on_meta: bool = False


class Family(Protocol):
    """The networks of one origin, found by the part of the name after the family's prefix."""

    def names(self) -> tuple[str, ...]:
        """Return the names worth listing; empty where their package is not installed."""
        ...

    def find(self, name: str) -> Backbone:
        """Return a network; raises `UnknownNameError`, or `UsageError` for options that do not fit."""
        ...
