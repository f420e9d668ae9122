"""The papers' figures, and which of them stands beside what was trained here."""

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from experiments import HERE
from outcomes import Outcome, Row

FEW_UP_TO = 35_000
"""Training images up to which a paper's figures for few images are the nearer ones (between 5,000 and 250,000)."""
_WORDS = {1: "one", 2: "two", 3: "three"}
SETTING = ("data", "network", "images", "size", "epochs", "splits", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a paper prints of one of its candidates, AUROC in percent; None or empty where it is not known.

    `share` is its share of the whole network's MACs, `few` the AUROC with few images, `told` what is said in words.
    """

    name: str
    auroc: float | None = None
    sd: float | None = None
    few: float | None = None
    steps: int | None = None
    share: float | None = None
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An experiment as published: its setting in words, its figures, and which of them is the reference."""

    setting: dict[str, str]
    source: str
    reference: str
    figures: tuple[Figure, ...]

    def figure(self, name: str) -> Figure | None:
        """Return the figure of that name, if it is known."""
        return next((one for one in self.figures if one.name == name), None)

    def beside(self, row: Row) -> Figure | None:
        """Return the figure for a row: that of its name, or of the nearest share of MACs where it has none."""
        if row.entrant.name or math.isnan(row.macs_share):
            return self.figure(row.entrant.name)
        cuts = [one for one in self.figures if one.share is not None and one.name != self.reference]
        return min(cuts, key=lambda one: abs((one.share or 0.0) - row.macs_share), default=None)

    def value(self, figure: Figure, *, few: bool) -> float | None:
        """Return its AUROC in percent, that for few images where it has one and these are few."""
        return figure.few if few and figure.few is not None else figure.auroc

    def difference(self, figure: Figure, *, few: bool) -> float | None:
        """Return its AUROC minus the reference's, in points, both with as many images."""
        reference = self.figure(self.reference)
        if reference is None:
            return None
        if few and figure.few is not None and reference.few is not None:
            return figure.few - reference.few
        return None if figure.auroc is None or reference.auroc is None else figure.auroc - reference.auroc

    def spread(self, figure: Figure) -> float:
        """Return the standard deviation over splits of the difference to the reference, were both independent."""
        reference = self.figure(self.reference)
        return math.hypot(figure.sd or 0.0, (reference.sd if reference else None) or 0.0)


@lru_cache(maxsize=2)
def read_published(path: Path = HERE / "published.toml") -> dict[str, Published]:
    """Return the papers' figures by experiment."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: _read(given) for name, given in content.items()}


def _read(given: dict[str, object]) -> Published:
    rows = given["rows"]
    assert isinstance(rows, list)
    largest = max((row["gmacs"] for row in rows if "gmacs" in row), default=1.0)
    figures = [
        Figure(
            share=row["gmacs"] / largest if "gmacs" in row else None,
            **{key: value for key, value in row.items() if key != "gmacs"},
        )
        for row in rows
    ]
    return Published(
        setting={key: str(given[key]) for key in SETTING},
        source=str(given["source"]),
        reference=str(given["reference"]),
        figures=tuple(figures),
    )


def are_few(found: Outcome) -> bool:
    """Tell whether the training images here are few, as some papers' figures are for."""
    return max(found.images, default=0) <= FEW_UP_TO


def describe_own(found: Outcome) -> dict[str, str]:
    """Say the same of the setting here as `Published.setting` of the paper's."""
    settings = found.experiment.splits[0]
    kinds = "findings" if found.multilabel else "classes"
    return {
        "data": f"{settings.data.rstrip('/').rpartition('/')[2]}, {found.classes} {kinds}",
        "network": ", ".join(dict.fromkeys(f"`{one.backbone}`" for one in found.experiment.entrants)),
        "images": f"{_range(found.images)}, tested on {found.tested:,}",
        "size": f"{settings.decode.image_size} px, padded",
        "epochs": f"at most {settings.train.epochs}"
        + (f", patience {settings.train.patience}" if settings.train.patience else "")
        + f"; {_range([round(row.steps) for row in found.rows[:1]])} steps of {settings.train.batch_size} images each",
        "splits": _WORDS.get(len(found.experiment.splits), f"{len(found.experiment.splits)}"),
        "head": "average pooling (BatchNorm and ReLU before it where they are missing), dropout 0.1, linear",
    }


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"
