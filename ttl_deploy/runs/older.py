"""Records of runs that were made before a search could have several strategies, or stated verdicts."""

from typing import Any

from ttl_deploy.records import codec
from ttl_deploy.records.scores import Choice, Front
from ttl_deploy.records.trials import SearchSettings

_MARGIN = 0.02
"""What `compare` took where nobody gave a margin, when a search had none."""


def upgrade_settings(content: dict[str, Any], *, source: str) -> SearchSettings:
    """Return settings from their fields; `strategy` was one text, the label's column had a default, no margin stood."""
    content = {"margin": _MARGIN, **content}
    if "label_col" in content:
        column = content["label_col"]
        content = {"reading": {"label_col": "" if column == "label" else column}, **content}
    if "strategy" in content:
        content = {"strategies": [content["strategy"]], **content}
    return codec.from_builtins(SearchSettings, content, source=source)


def upgrade_front(content: dict[str, Any], *, strategy: str, source: str) -> Front:
    """Return a front from its fields; points had no name but their cut's, and all were of the run's strategy.

    Verdicts, and who is clearly worse than whom, were not stated, and stay unknown.
    """
    points = [{"name": point.get("cut"), "strategy": strategy, **point} for point in content.get("points", ())]
    return codec.from_builtins(Front, {**content, "points": points}, source=source)


def upgrade_choice(content: dict[str, Any], *, strategy: str, source: str) -> Choice:
    """Return a choice from its fields; it was of the run's strategy."""
    return codec.from_builtins(Choice, {"strategy": strategy, **content}, source=source)
