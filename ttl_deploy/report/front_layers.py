"""What the figure of the front shows on demand: every seed by itself, and the exported files as they were measured."""

from collections.abc import Callable, Sequence
from typing import Any

from ttl_deploy.records.artifacts import ArtifactManifest
from ttl_deploy.records.benchmarks import BenchRow
from ttl_deploy.records.scores import FrontPoint
from ttl_deploy.report.looks import clean_label
from ttl_deploy.report.numbers import format_bytes, format_latency
from ttl_deploy.report.story import ExportStory, RunStory

_SEED, _FILE = "#b0562f", "#2f8f5b"
_SYMBOLS = {"fp16": "star-square-open", "bf16": "star-triangle-up-open", "int8": "star-triangle-down-open"}
_MODEL_FILES = (".onnx", ".ort", ".xml", ".bin", ".engine", ".plan")


def draw_seeds(points: Sequence[FrontPoint], x: Callable[[FrontPoint], float]) -> list[dict[str, Any]]:
    """Draw the validation AUROC of every seed where there are several; nothing where one is all."""
    drawn = [
        (x(point), value, f"<b>{clean_label(point.name)}</b><br>seed {seed}: validation AUROC {value:.3f}")
        for point in points
        for seed, value in zip(point.seeds, point.seed_values, strict=True)
        if len(point.seeds) > 1 and value is not None
    ]
    if not drawn:
        return []
    return [_draw("single seeds", drawn, colour=_SEED, symbol="x-thin-open")]


def draw_files(story: RunStory, axis: str, unit: float) -> dict[str, dict[str, Any]]:
    """Draw the exported files by what they cost as shipped, a trace per precision that was really run.

    Across stands the median of one image at a time by their benchmarks, or the size of the model's files; up, the
    validation AUROC of the file where its export measured it, else that of the model. Other axes have none.
    """
    found: dict[str, list[tuple[float, float, str]]] = {}
    for export in story.exports:
        score = _validation(export)
        if score is None:
            continue
        manifest = export.manifest
        if axis == "size_bytes":
            size = size_of_model(manifest)
            told = f"{_title(manifest)}<br>{format_bytes(size)} in {manifest.precision}"
            found.setdefault(manifest.precision, []).append((size / unit, score, told))
        if axis == "latency_s":
            for host, row, seconds in find_medians(export):
                told = (
                    f"{_title(manifest)}<br>{format_latency(seconds)} in {row.precision} on {clean_label(row.target)} "
                    f"({clean_label(host)})<br>{clean_label(row.verdict.partition(':')[0])}"
                )
                found.setdefault(row.precision, []).append((seconds / unit, score, told))
    return {
        clean_label(precision): _draw(
            f"exported file, {clean_label(precision)}",
            drawn,
            colour=_FILE,
            symbol=_SYMBOLS.get(precision, "star-diamond-open"),
        )
        for precision, drawn in found.items()
    }


def size_of_model(manifest: ArtifactManifest) -> int:
    """Return the bytes of the files that hold the model, without references and documents."""
    return sum(one.size_bytes for one in manifest.files if one.name.endswith(_MODEL_FILES))


def find_medians(export: ExportStory) -> list[tuple[str, BenchRow, float]]:
    """Return host, row and median of this model's benchmarks of one image at a time, the newest last."""
    digests = {one.sha256 for one in export.manifest.files}
    rows = [
        (bench.machine.host, row, _median(row))
        for bench in export.benchmarks
        for row in bench.rows
        if row.artifact_sha256 in digests and row.batch == 1 and row.mode == "latency"
    ]
    return [(host, row, seconds) for host, row, seconds in rows if seconds is not None]


def _median(row: BenchRow) -> float | None:
    if row.median_s is not None:
        return row.median_s
    return next((one.value_s for one in row.percentiles if one.percent == 50), None)


def _validation(export: ExportStory) -> float | None:
    """Return the file's own validation AUROC where it is known, else the model's."""
    if export.parity and export.parity.auroc and export.parity.auroc.file is not None:
        return export.parity.auroc.file
    scores = export.manifest.scores
    return next((one.value for one in scores if one.metric == "auroc" and one.split == "val"), None)


def _title(manifest: ArtifactManifest) -> str:
    return f"<b>{clean_label(manifest.name)}</b> as {clean_label(manifest.format)}"


def _draw(name: str, drawn: Sequence[tuple[float, float, str]], *, colour: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x for x, _, _ in drawn],
        "y": [y for _, y, _ in drawn],
        "text": [text for _, _, text in drawn],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"size": 11, "color": colour, "symbol": symbol, "line": {"width": 2, "color": colour}},
    }
