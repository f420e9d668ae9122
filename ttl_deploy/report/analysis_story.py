"""What an analysis adds to a run's story."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ttl_deploy.records.analysis import Analysis
from ttl_deploy.report.analysis_listing import TitledListing


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisStory:
    """An analysis, laid out for the page.

    `plot` is plotly's own JSON; `cams` says what the Grad-CAM pictures show, empty without any. `pictures` are these
    as `data:` addresses by file, none unless they are embedded.
    """

    found: Analysis
    plot: dict[str, Any]
    tables: tuple[TitledListing, ...]
    sentences: tuple[str, ...]
    cams: str
    pictures: Mapping[str, str] = field(default_factory=dict)
