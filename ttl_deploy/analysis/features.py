"""Features of several networks at the same cuts and the same positions of the same images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttl_deploy.models import truncation
from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.records.models import Cut, InputConvention, Layout, ModelSpec
from ttl_deploy.training import devices, evaluation
from ttl_deploy.training.batches import LabelledPixels

SAMPLES = 10_000
"""Of each cut about so many positions are compared, over all images; more hardly change what is found."""
_MOST_NUMBERS = 25_000_000
"""So many numbers are kept of each network at once: 100 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network whose features are looked at. `cuts` are the names of those that it has."""

    model: TruncatedModel
    spec: ModelSpec
    input: InputConvention
    cuts: frozenset[str]


@dataclass(frozen=True, slots=True)
class AtCut:
    """A network's features at a cut: at `positions` `(images · positions, C)`, and averaged `(images, C)`."""

    positions: NDArray[np.float32]
    pooled: NDArray[np.float32]


def draw_positions(cut: Cut, *, images: int, seed: int) -> NDArray[np.int64]:
    """Draw which positions of a cut's map are compared, the same for every image; all where they are few."""
    every = cut.height * cut.width
    wanted = min(every, -(-SAMPLES // images))
    drawn = np.random.default_rng((seed, cut.depth)).choice(every, wanted, replace=False)
    return np.sort(drawn).astype(np.int64)


def collect_by_cut(
    networks: Mapping[str, Network],
    cuts: Sequence[Cut],
    data: LabelledPixels,
    *,
    positions: Mapping[str, NDArray[np.int64]],
    device: torch.device,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Cut, dict[str, AtCut]]]:
    """Yield each cut with the features of every network that has it.

    As many cuts as fit into memory are read in one pass of the images through each network, in evaluation mode and
    fp32. `progress` gets the passes done and their number.
    """
    parts = _divide(cuts, positions, images=len(data))
    done = 0
    for part in parts:
        found: dict[str, dict[str, AtCut]] = {cut.name: {} for cut in part}
        for name, network in networks.items():
            mine = [cut for cut in part if cut.name in network.cuts]
            for cut, features in zip(mine, _collect(network, mine, data, positions, device=device), strict=True):
                found[cut.name][name] = features
            done += 1
            progress(done, len(parts) * len(networks))
        for cut in part:
            yield cut, found.pop(cut.name)


def _divide(
    cuts: Sequence[Cut], positions: Mapping[str, NDArray[np.int64]], *, images: int
) -> tuple[tuple[Cut, ...], ...]:
    parts: list[list[Cut]] = []
    room = 0
    for cut in cuts:
        numbers = images * (len(positions[cut.name]) + 1) * cut.channels
        if not parts or numbers > room:
            parts.append([])
            room = _MOST_NUMBERS
        parts[-1].append(cut)
        room -= numbers
    return tuple(tuple(part) for part in parts)


def _collect(
    network: Network,
    cuts: Sequence[Cut],
    data: LabelledPixels,
    positions: Mapping[str, NDArray[np.int64]],
    *,
    device: torch.device,
) -> list[AtCut]:
    if not cuts:
        return []
    tapped = truncation.tap(network.model.trunk, network.spec, [cut.name for cut in cuts])
    sampled = devices.place(_Sampled(tapped, cuts, [positions[cut.name] for cut in cuts]), device)
    flat = evaluation.run_over(sampled, data, convention=network.input, device=device).numpy()
    sampled.cpu()  # the trunk's layers are the network's own
    found, start = [], 0
    for cut, channels in zip(cuts, sampled.channels, strict=True):
        count = len(positions[cut.name])
        end = start + (count + 1) * channels
        one = flat[:, start:end].reshape(len(data), count + 1, channels)
        found.append(AtCut(one[:, :count].reshape(-1, channels), one[:, count]))
        start = end
    return found


class _Sampled(nn.Module):
    """The features at some positions of each cut's map, then their average over it, all in one vector per image."""

    def __init__(self, tapped: nn.Module, cuts: Sequence[Cut], positions: Sequence[NDArray[np.int64]]) -> None:
        super().__init__()
        self.tapped = tapped
        self.layouts = [cut.layout for cut in cuts]
        self.positions = [torch.from_numpy(one) for one in positions]
        self.channels: tuple[int, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        maps = [lay_out(one, layout) for one, layout in zip(self.tapped(images), self.layouts, strict=True)]
        self.channels = tuple(one.shape[2] for one in maps)
        parts = [
            part
            for one, positions in zip(maps, self.positions, strict=True)
            for part in (one[:, positions.to(one.device)].flatten(1), one.mean(dim=1))
        ]
        return torch.cat(parts, dim=1)


def lay_out(features: Tensor, layout: Layout) -> Tensor:
    """Bring features to `(N, positions, channels)`, a map's rows one after the other; vectors have one position."""
    if features.ndim == 2:
        return features.unsqueeze(1)
    if layout == "map":
        return features.flatten(2).transpose(1, 2)
    return features.flatten(1, 2) if layout == "map-last" else features
