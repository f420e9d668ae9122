"""From `experiments.toml` to the searches that are to be made."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttl_deploy.errors import UsageError
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.records.trials import SearchSettings, TrainSettings

HERE = Path(__file__).resolve().parent
REDUCED = "reduced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment of a paper: what it is, how ours differs, and one search per split; or why there is none."""

    name: str
    paper: str
    title: str
    source: str
    unlike: str
    searches: tuple[SearchSettings, ...]
    left_out: str = ""


def read_experiments(
    data: str, *, reading: Reading, weights: Mapping[str, str], reduced: bool, path: Path = HERE / "experiments.toml"
) -> tuple[Experiment, ...]:
    """Return all experiments on a data set; `weights` names a file for each backbone that shall begin with one.

    Of a hybrid `slim:NAME?…` the weights are those of NAME. An experiment whose weights are not given is left out.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    common = content.pop(REDUCED)
    return tuple(
        _read(name, _reduce(given, common) if reduced else given, data, reading=reading, weights=weights)
        for name, given in content.items()
    )


def _reduce(given: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment with its own changes, and those for all."""
    return {**given, **common, **given[REDUCED]}


def _read(
    name: str, given: Mapping[str, Any], data: str, *, reading: Reading, weights: Mapping[str, str]
) -> Experiment:
    backbone = str(given["backbone"])
    file = weights.get(base_of(backbone))
    why = str(given.get("leave-out", "")) or ("" if file else f"no weights: give --weights {base_of(backbone)}=FILE")
    texts = {key: str(given[key]) for key in ("paper", "title", "source", "unlike")}
    if why or file is None:
        return Experiment(name=name, searches=(), left_out=why, **texts)
    searches = tuple(
        SearchSettings(
            backbone=backbone,
            data=data,
            weights=file,
            reading=reading,
            cuts=tuple(given["cuts"]),
            strategies=tuple(given["strategies"]),
            policy="exhaustive",
            decode=DecodeSettings(image_size=given["image_size"]),
            split_seed=split,
            limit_train=given.get("limit_train"),
            train=TrainSettings(**given["train"]),
            profile_seconds=0.1,
        )
        for split in range(given["splits"])
    )
    return Experiment(name=name, searches=searches, **texts)


def base_of(backbone: str) -> str:
    """Return the network whose weights a backbone begins with."""
    return backbone.partition(":")[2].partition("?")[0] if backbone.startswith("slim:") else backbone


def parse_weights(given: list[str]) -> dict[str, str]:
    """Read `NAME=FILE` arguments; raises `UsageError` for what is none, or for a file that is missing."""
    found = {}
    for text in given:
        name, sign, file = text.partition("=")
        if not sign or not Path(file).is_file():
            raise UsageError(f"--weights {text}: give NAME=FILE, such as resnet50=weights.pth, a file there is")
        found[name] = file
    return found
