"""From `experiments.toml` to what each experiment compares, and the settings of its searches."""

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ttl_deploy.errors import TtlDeployError, UnknownNameError, UsageError
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import SearchSettings, TrainSettings
from ttl_deploy.search.study import check_names

HERE = Path(__file__).resolve().parent
REDUCED = "reduced"
NO_WEIGHTS = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """One of those that an experiment compares: a network cut and trained in a way.

    `name` is what the paper calls it, empty for a cut of a sweep; `weights` a file, or `none` for random ones.
    """

    name: str
    backbone: str
    cut: str
    strategy: str
    weights: str

    def fit(self, settings: SearchSettings) -> SearchSettings:
        """Return an experiment's settings for this one alone."""
        return replace(
            settings, backbone=self.backbone, weights=self.weights, cuts=(self.cut,), strategies=(self.strategy,)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment of a paper: what it is, how ours differs, what it compares; or why it is not made.

    Attributes:
        network: the network whose weights it needs; the first of the `entrants` is the whole of it, the reference.
        splits: the settings of its searches, one per split of the data.
        left_out: why it is not made, empty where it is.
        cannot: why an entrant cannot be made with images of this size, for those that cannot.
    """

    name: str
    paper: str
    title: str
    source: str
    unlike: str
    concludes: str
    network: str
    entrants: tuple[Entrant, ...] = ()
    splits: tuple[SearchSettings, ...] = ()
    left_out: str = ""
    cannot: Mapping[Entrant, str]


def read_experiments(
    data: str,
    *,
    reading: Reading,
    weights: Mapping[str, str],
    reduced: bool,
    only: Collection[str] = (),
    image_size: int | None = None,
    path: Path = HERE / "experiments.toml",
) -> tuple[Experiment, ...]:
    """Return all experiments on a data set, or `only` some; `weights` names a file for each network.

    An experiment whose weights are not given is left out. Raises `UnknownNameError` for names of experiments and of
    networks that are none, `UsageError` where all are left out, and what the public search raises of the names of a
    reference.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    common = content.pop(REDUCED)
    given = {
        name: _reduce(one, common) if reduced else {key: one[key] for key in one if key != REDUCED}
        for name, one in content.items()
    }
    for name in only:
        if name not in given:
            raise UnknownNameError("experiment", name, given, f"allowed: {', '.join(given)}")
    networks = {one["network"] for one in given.values()}
    for name in weights:
        if name not in networks:
            kind = "network of the reduced experiments" if reduced else "network of the experiments"
            raise UnknownNameError(kind, name, networks)
    sized = {name: one | ({"image_size": image_size} if image_size else {}) for name, one in given.items()}
    found = tuple(
        _read(name, one, data, reading=reading, weights=weights)
        for name, one in sized.items()
        if not only or name in only
    )
    if all(one.left_out for one in found):
        raise UsageError("; ".join(dict.fromkeys(f"nothing can be run, {one.left_out}" for one in found)))
    return found


def _reduce(given: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment with its own changes, and those for all."""
    return {**given, **common, **given[REDUCED]}


def _read(
    name: str, given: Mapping[str, Any], data: str, *, reading: Reading, weights: Mapping[str, str]
) -> Experiment:
    network = str(given["network"])
    texts: dict[str, Any] = {
        key: str(given[key]) for key in ("paper", "title", "source", "unlike", "concludes", "network")
    }
    if network not in weights:
        why = f"no weights: give --weights {network}=FILE"
        return Experiment(name=name, left_out=why, cannot={}, **texts)
    entrants = tuple(_list_entrants(given["candidates"], network, weights[network]))
    first = SearchSettings(
        backbone=network,
        data=data,
        weights=weights[network],
        reading=reading,
        cuts=(FULL,),
        policy="exhaustive",
        skip=("profile",),
        decode=_read_size(given["image_size"]),
        val_fraction=given.get("val_fraction", 0.15),
        limit_train=given.get("limit_train"),
        train=TrainSettings(**given["train"]),
    )
    splits = tuple(replace(first, split_seed=split) for split in range(given["splits"]))
    cannot = dict(_find_impossible(entrants, first))
    return Experiment(name=name, entrants=entrants, splits=splits, cannot=cannot, **texts)


def _read_size(pixels: int) -> DecodeSettings:
    try:
        return DecodeSettings(image_size=pixels)
    except ValueError as error:
        raise UsageError(f"--image-size {pixels}: {error}") from error


def _list_entrants(candidates: Sequence[Mapping[str, Any]], network: str, file: str) -> Iterator[Entrant]:
    for one in candidates:
        pairs = list(product(one["cuts"], one["strategies"]))
        for (cut, strategy), name in zip(pairs, one.get("as", [""] * len(pairs)), strict=True):
            backbone, weights = one.get("backbone", network), one.get("weights", file)
            yield Entrant(name=name, backbone=backbone, cut=cut, strategy=strategy, weights=weights)


def _find_impossible(entrants: Sequence[Entrant], settings: SearchSettings) -> Iterator[tuple[Entrant, str]]:
    """Yield the entrants whose network cannot be built for images of this size, or not be cut or trained so, and why.

    Raises what is said of the reference's network: without it nothing can be compared.
    """
    for backbone in dict.fromkeys(one.backbone for one in entrants):
        alike = [one for one in entrants if one.backbone == backbone]
        cuts, strategies = ({getattr(one, name): None for one in alike} for name in ("cut", "strategy"))
        wanted = replace(alike[0].fit(settings), cuts=tuple(cuts), strategies=tuple(strategies))
        try:
            check_names(wanted)
        except TtlDeployError as error:
            if backbone == entrants[0].backbone:
                raise
            yield from ((one, str(error)) for one in alike)


def parse_weights(given: Sequence[str]) -> dict[str, str]:
    """Read `NAME=FILE` arguments; raises `UsageError` for what is none, or for a file that is missing."""
    found = {}
    for text in given:
        name, sign, file = text.partition("=")
        if not sign or not Path(file).is_file():
            raise UsageError(f"--weights {text}: give NAME=FILE, such as resnet50=weights.pth, a file there is")
        found[name] = file
    return found
