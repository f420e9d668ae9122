"""Which searches the experiments take: what several want alike is trained once, by one search where cuts allow."""

import dataclasses
import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments import NO_WEIGHTS, Entrant, Experiment

from ttl_deploy.records import codec
from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import SearchSettings, TrainSettings

_READING = {"labels": "label", "classes": "class_map"}
"""Options whose name is not that of the setting."""
_PLACEHOLDERS = {"image_root": "FOLDER", "classes": "FILE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search of the plan; `folder` names its run."""

    settings: SearchSettings
    folder: str

    @property
    def title(self) -> str:
        """What it trains, in a few words."""
        settings = self.settings
        counts = f"{len(settings.cuts)} cuts, {len(settings.strategies)} strategies"
        return f"{settings.backbone}, {counts}, split {settings.split_seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All searches in their order, and where to find each entrant's training on each split."""

    searches: tuple[Search, ...]

    def find(self, entrant: Entrant, split: SearchSettings) -> Search:
        """Return the search that trains an entrant with the settings of one split."""
        wanted = entrant.fit(split)
        for search in self.searches:
            cuts, strategies = search.settings.cuts, search.settings.strategies
            alike = replace(search.settings, cuts=wanted.cuts, strategies=wanted.strategies) == wanted
            if alike and entrant.cut in cuts and entrant.strategy in strategies:
                return search
        raise KeyError(f"{entrant} is in no search")


def make_plan(experiments: Iterable[Experiment]) -> Plan:
    """Plan the searches of experiments, in the order in which these want them."""
    wanted: dict[str, tuple[SearchSettings, dict[str, list[str]]]] = {}
    for experiment in experiments:
        for split in experiment.splits:
            for entrant in experiment.entrants:
                if entrant in experiment.cannot:
                    continue
                alike = replace(entrant.fit(split), cuts=(FULL,), strategies=("full",))
                _, cuts = wanted.setdefault(codec.to_json(alike), (alike, {}))
                mine = cuts.setdefault(entrant.strategy, [])
                if entrant.cut not in mine:
                    mine.append(entrant.cut)
    return Plan(tuple(search for settings, cuts in wanted.values() for search in _divide(settings, cuts)))


def _divide(settings: SearchSettings, cuts_of: Mapping[str, Sequence[str]]) -> Iterator[Search]:
    """Yield a search for every set of cuts: each trains all its strategies at all of them, and at the whole."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for strategy, cuts in cuts_of.items():
        groups.setdefault((*(cut for cut in cuts if cut != FULL), FULL), []).append(strategy)
    for cuts, strategies in groups.items():
        whole = replace(settings, cuts=cuts, strategies=tuple(strategies))
        digest = hashlib.sha256(codec.to_json(whole).encode()).hexdigest()[:8]
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in whole.backbone)
        yield Search(settings=whole, folder=f"{name}-split{whole.split_seed}-{digest}")


def list_commands(experiment: Experiment) -> list[str]:
    """Return the commands that make an experiment's searches of the first split alone."""
    first = replace(experiment, splits=experiment.splits[:1])
    return [command_of(search.settings) for search in make_plan([first]).searches]


def command_of(settings: SearchSettings) -> str:
    """Write a search as a command; `DATA` and `NAME.pth` stand for the data and the weights."""
    weights = NO_WEIGHTS if settings.weights == NO_WEIGHTS else f"{network_of(settings.backbone)}.pth"
    flags = {"backbone": settings.backbone, "data": "DATA", "weights": weights} | dict(_differences(settings))
    parts = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", shlex.quote(value))]
    return " ".join(["ttl-deploy search", *parts])


def network_of(backbone: str) -> str:
    """Return the network whose weights a backbone begins with."""
    return backbone.partition(":")[2].partition("?")[0] if backbone.startswith("slim:") else backbone


def _differences(settings: SearchSettings) -> Iterator[tuple[str, str]]:
    """Yield the options in which settings differ from what a search has by default."""
    yield "cuts", ",".join(settings.cuts)
    if settings.strategies != ("full",):
        yield "strategy", ",".join(settings.strategies)
    yield "policy", settings.policy
    default = SearchSettings(backbone=settings.backbone, data=settings.data)
    for name in ("val_fraction", "split_seed", "limit_train"):
        if getattr(settings, name) != getattr(default, name):
            yield name, f"{getattr(settings, name)}"
    yield "image_size", str(settings.decode.image_size)
    for field in dataclasses.fields(TrainSettings):
        if getattr(settings.train, field.name) != getattr(default.train, field.name):
            yield field.name, f"{getattr(settings.train, field.name)}"
    for field in dataclasses.fields(settings.reading):
        value: Any = getattr(settings.reading, field.name)
        if value != getattr(default.reading, field.name):
            yield _READING.get(field.name, field.name), _PLACEHOLDERS.get(field.name) or _written(value)


def _written(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
