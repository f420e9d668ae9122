"""`report.html`: the run's story as one file that opens offline and loads nothing."""

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ttl_deploy.evidence.metrics import METRIC_WORDS
from ttl_deploy.evidence.subgroup_words import explain
from ttl_deploy.files import publish_text
from ttl_deploy.plugins import import_part
from ttl_deploy.records.scores import Front, Metric
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.report import numbers
from ttl_deploy.report.artifacts import describe_calibration, describe_operating_point
from ttl_deploy.report.costs import cost_rows, describe_exhaustive, format_count, format_part, tell_cost
from ttl_deploy.report.curve_plots import draw_reliability, draw_roc
from ttl_deploy.report.evidence import FrontEvidence, gather_evidence
from ttl_deploy.report.exports_listing import list_exports
from ttl_deploy.report.file_sizes import find_sizes
from ttl_deploy.report.front_plot import draw_front
from ttl_deploy.report.guidance_plot import draw_guidance
from ttl_deploy.report.listing import AXIS_WORDS, SPLIT_WORDS, auroc_of, explain_strategies, format_test_seeds
from ttl_deploy.report.looks import show_direction_marks
from ttl_deploy.report.narration import ask, reproduction, tell_gap, tell_omissions
from ttl_deploy.report.plots import Plot, draw_curves, draw_depth
from ttl_deploy.report.refusals import list_refusals
from ttl_deploy.report.story import RunStory
from ttl_deploy.report.subgroup_plot import draw_subgroups
from ttl_deploy.report.tables import left_out
from ttl_deploy.report.verdict_plot import draw_verdicts
from ttl_deploy.runtime.beside import set_beside
from ttl_deploy.runtime.precision_words import describe_attempt, describe_parity, describe_precision

_MAIN_METRICS: tuple[Metric, ...] = ("auprc", "accuracy")
"""What the table of all cuts shows beside the AUROC; the chosen one and the reference are shown with every metric."""
_FILTERS = {
    "score": numbers.format_score,
    "difference": numbers.format_difference,
    "rest": numbers.format_rest,
    "seeds": numbers.format_seeds,
    "test_seeds": format_test_seeds,
    "quantity": lambda value: numbers.pad_digits(numbers.format_quantity(value)),
    "latency": lambda value: numbers.pad_digits(numbers.format_latency(value)),
    "duration": numbers.format_duration,
    "megabytes": lambda value: numbers.pad_digits(numbers.format_bytes(value)),
    "share": lambda value: numbers.pad_digits(numbers.format_share(value)),
    "trainings": format_count,
    "part": format_part,
    "auroc": auroc_of,
    "calibration": describe_calibration,
    "operating_point": describe_operating_point,
    "precision": describe_precision,
    "parity": describe_parity,
    "attempt": describe_attempt,
    "beside": set_beside,
    "sentence": lambda text: f"{text[:1].upper()}{text[1:]}",
    "breakable": lambda text: break_names(text),
    "compact": lambda plot: dump_plot(plot),
}


def write_page(path: Path, story: RunStory) -> None:
    """Publish the report; raises `MissingExtraError` where plotly is not installed."""
    publish_text(path, render_page(story))


def render_page(story: RunStory) -> str:
    """Render the report as HTML text; what `write_page` says holds.

    Scripts are allowed by their hashes alone, so markup that slipped into the page could not run.
    """
    environment = _environment()
    scripts = (_plotly_script(), _template_text(environment, "report.js"))
    return environment.get_template("report.html.jinja").render(
        story=story,
        metrics=_MAIN_METRICS,
        axis_words=AXIS_WORDS,
        splits=SPLIT_WORDS,
        metric_words=METRIC_WORDS,
        settings=flatten_settings(story.settings),
        evidence=None if story.front is None else _evidence(story, story.front),
        front_plot=None if story.front is None else draw_front(story, story.front),
        verdicts_plot=None if story.front is None or not story.front.verdicts else draw_verdicts(story.front.verdicts),
        curves_plot=draw_curves(story),
        depth_plot=None if story.profile is None else draw_depth(story.profile),
        guidance_plot=draw_guidance(story),
        subgroups_plot=None if story.subgroups is None else draw_subgroups(story.subgroups),
        subgroup_sentences=() if story.subgroups is None else explain(story.subgroups),
        roc_plot=None if story.model_curves is None else draw_roc(story.model_curves),
        reliability_plot=None if story.model_curves is None else draw_reliability(story.model_curves),
        question=ask(story),
        omissions=tell_omissions(story),
        gap=tell_gap(story),
        exports_listing=list_exports(story.exports),
        refusals=list_refusals(story),
        commands=reproduction(story),
        left_out=left_out(story),
        cost_rows=() if story.stages is None else cost_rows(story.stages),
        cost_sentence="" if story.stages is None else tell_cost(story.stages, story.settings),
        exhaustive=describe_exhaustive(story.settings),
        explanations=() if story.front is None else explain_strategies(story.front),
        style=Markup(_template_text(environment, "report.css")),
        scripts=[Markup(script) for script in scripts],
        script_hashes=Markup(" ".join(_csp_hash(script) for script in scripts)),
    )


def _evidence(story: RunStory, front: Front) -> FrontEvidence:
    return gather_evidence(front, story.choice, story.fingerprint.classes, sizes=find_sizes(story, front))


def break_names(name: str) -> Markup:
    """Return a name's HTML that may be broken behind its dots and underscores."""
    return Markup(re.sub(r"([._]+)(?=[^._])", r"\1<wbr>", str(escape(show_direction_marks(name)))))


def dump_plot(plot: Plot) -> Markup:
    """Return a figure as JSON for a script element: floats in six digits, which is more than a screen shows."""
    text = json.dumps(_shorten(plot), separators=(",", ":"), allow_nan=False)
    # As in jinja's own `tojson`: nothing may end the element, or begin a comment in it.
    for mark in "<>&'":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _shorten(value: Any) -> Any:
    if isinstance(value, float):
        # What is no number has no place in JSON, and none in a figure.
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _shorten(one) for name, one in value.items()}
    return [_shorten(one) for one in value] if isinstance(value, list | tuple) else value


def flatten_settings(settings: SearchSettings) -> dict[str, str]:
    """Return the settings as `name` or `group.name` to text, in their order."""
    flat: dict[str, str] = {}
    for name, value in msgspec.to_builtins(settings).items():
        _flatten(name, value, flat)
    return flat


def _flatten(name: str, value: Any, flat: dict[str, str]) -> None:
    if isinstance(value, dict):
        for inner, content in value.items():
            _flatten(f"{name}.{inner}", content, flat)
    elif isinstance(value, list | tuple):
        flat[name] = ", ".join(str(one) for one in value)
    else:
        flat[name] = "none" if value is None else str(value)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ttl_deploy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalise,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment


def _finalise(value: Any) -> Any:
    return show_direction_marks(value) if type(value) is str else value


def _template_text(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _plotly_script() -> str:
    offline = import_part("plotly.offline", need="the report's plots")
    # The HTML parser turns CR LF into LF before the hash is taken.
    script: str = offline.get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    return script


def _csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
