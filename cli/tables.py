"""Records as tables on stdout; user text is never taken for markup."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from ttl_deploy.records.artifacts import ArtifactManifest, VerifyReport
    from ttl_deploy.records.benchmarks import BenchReport, BenchRow, Comparison, Percentile, Stretch
    from ttl_deploy.records.engines import EngineRequest
    from ttl_deploy.records.models import Cut
    from ttl_deploy.records.scores import Choice, Front
    from ttl_deploy.runs.folder import RunFolder
    from ttl_deploy.runtime.beside import Beside

_PIPE_WIDTH = 400
"""A file or a pipe has no width, and gets all columns."""
_GAP = 3
"""Characters between two columns of a table."""
_EDGES = 2
"""Characters at both ends of a row."""
_OF_NUMBERS = (*"0123456789+-−~≤≥<>", "")
"""How the texts of a column of numbers begin."""
_FOLDED = 12
"""The least width of a column of longer texts."""


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    numeric: Sequence[bool] = (),
    keep: Sequence[str] = (),
) -> None:
    """Print a table, by default with all columns but the first right aligned; a pipe gets it in full width.

    On a terminal that is too narrow, texts are folded, numbers never; columns that still do not fit are left out and
    named, from the right, those to `keep` last.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console, cells = _console(), [tuple(row) for row in rows]
    rights = tuple(numeric) or (False, *[True] * (len(columns) - 1))
    widths = [_least_width([heading, *(row[at] for row in cells)]) for at, heading in enumerate(columns)]
    shown = _choose_columns(columns, widths, keep, console.width)
    table = Table(title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for at in shown:
        justify = "right" if rights[at] else "left"
        table.add_column(Text(columns[at]), justify=justify, overflow="fold", min_width=widths[at])
    for row in cells:
        table.add_row(*(Text(row[at]) for at in shown))
    console.print(table)
    if hidden := [column for at, column in enumerate(columns) if at not in shown and column]:
        print(f"left out, as the terminal is narrow: {', '.join(hidden)}; a file or a pipe gets them")


def _choose_columns(columns: Sequence[str], widths: Sequence[int], keep: Sequence[str], width: int) -> list[int]:
    """Return the numbers of the columns that fit side by side."""
    shown = list(range(len(columns)))
    while len(shown) > 1 and sum(widths[at] for at in shown) + _GAP * (len(shown) - 1) + _EDGES > width:
        shown.remove(max(shown[1:], key=lambda at: (columns[at] not in keep, at)))
    return shown


def _least_width(texts: Sequence[str]) -> int:
    """Return how narrow a column may become, its heading first: of numbers and short texts not at all."""
    from rich.cells import cell_len

    widest = max(map(cell_len, texts))
    if all(text[:1] in _OF_NUMBERS for text in texts[1:]):
        return widest
    return max(max(map(cell_len, texts[0].split()), default=0), min(widest, _FOLDED))


def _console() -> "Console":
    from rich.console import Console

    # NO_COLOR alone would leave rich's bold and italic signs in.
    console = Console(color_system=None if os.environ.get("NO_COLOR") else "auto")
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def print_front(front: "Front", choice: "Choice | None") -> None:
    """Print the trained candidates with costs, scores and verdicts, as far as the terminal is wide.

    An arrow marks the choice. Above stands a warning where it is not shown to be as good as the full network, below
    what each verdict rests on.
    """
    from ttl_deploy.report import verdicts
    from ttl_deploy.report.listing import explain_standings, explain_strategies, fit_columns, front_rows

    listing, hidden = fit_columns(front_rows(front, choice), width=_console().width, gap=_GAP)
    counted = f"{len(front.points)} cuts"
    if len(front.strategies) > 1:
        counted = f"{len(front.points)} candidates ({len(front.cuts)} cuts, {len(front.strategies)} strategies)"
    title = f"front of {counted}; latency of the exported model on {front.target}, one image, one thread"
    if choice is not None and (warning := verdicts.warn_of_choice(front, choice)):
        print(f"{warning}\n")
    print_table(listing.columns, listing.rows, title=title, numeric=listing.numeric)
    if hidden:
        print(f"left out, as the terminal is narrow: {', '.join(hidden)}; a file or a pipe gets them")
    for explanation in (*explain_strategies(front), explain_standings(front)):
        if explanation:
            print(explanation)
    if front.verdicts is None:
        print(f"\n{verdicts.state_absence(front)}")
    else:
        print(
            f"\nIs a smaller one as good as {front.reference}? On the test split, {front.verdicts.patients} patients:"
        )
        stated = (verdicts.state_verdict(found) for found in front.verdicts.verdicts)
        for line in (*stated, *verdicts.describe_margin(front.verdicts)):
            print(f"  {line}")
    if choice is not None:
        print(f"\n{choice.sentence}\n{verdicts.state_choice(front, choice)}")


def describe_cost(run: "RunFolder") -> str:
    """Return the sentence on what a run's search has cost; without its profile nothing is known."""
    from ttl_deploy.report.costs import tell_cost
    from ttl_deploy.search.stages import describe_stages

    costs = describe_stages(run, tell=False)
    return "" if costs is None else tell_cost(costs, run.settings())


def print_cuts(cuts: "Sequence[Cut]", *, backbone: str, image_size: int, classes: int) -> None:
    """Print where a backbone can be cut, and what is left."""
    rows = [
        (
            cut.name,
            f"{cut.params:,}",
            f"{cut.params_share:.1%}",
            _format_megabytes(cut.weights_bytes),
            f"{cut.macs / 1e9:.4g}",
            f"{cut.macs_share:.1%}",
            str(cut.layers),
            f"{cut.channels}×{cut.height}×{cut.width}",
            _format_megabytes(cut.peak_bytes),
            _format_field(cut, image_size),
            "stage" if cut.stage else "",
        )
        for cut in cuts
    ]
    columns = ("cut", "params", "of full", "weights", "GMACs", "of full", "layers", "features", "memory", "sees", "")
    print_table(columns, rows, title=f"{backbone} at {image_size} px, {classes} classes, head included")
    print("MACs count convolutions and linear layers of one image; layers are those that run.")
    print("weights, and memory (the most that activations of one image need at once), in MB, single precision.")
    print("sees: side of the square of the image that one position of the features depends on.")
    if any(cut.global_context for cut in cuts):
        print("+ gates (such as squeeze-and-excitation) let it see a summary of the whole image as well.")


def _format_megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f}" if size_bytes >= 1e6 else f"{size_bytes / 1e6:.2g}"


def _format_field(cut: "Cut", image_size: int) -> str:
    summary = "+" if cut.global_context else ""
    if cut.receptive_field is None:
        return f"not known{summary}"
    if cut.receptive_field >= image_size:
        return f"whole image{summary}"
    return f"{cut.receptive_field} px {cut.receptive_field / image_size:.0%}{summary}"


def print_artifact(folder: Path, manifest: "ArtifactManifest") -> None:
    """Print what was shipped."""
    from ttl_deploy.report.artifacts import describe_calibration, describe_operating_point
    from ttl_deploy.report.numbers import format_score
    from ttl_deploy.runtime.precision_words import describe_precision

    sizes = {entry.name: entry.size_bytes for entry in manifest.files if entry.name.startswith("model.")}
    size, name = sum(sizes.values()), next(iter(sizes))
    print(f"{folder / name}  {size / 1e6:.2f} MB, {manifest.params:,} parameters, {manifest.macs / 1e9:.4g} GMACs")
    for line in describe_precision(manifest):
        print(f"  {line}")
    print(f"  input  {manifest.input.name}: uint8 RGB (batch, {manifest.input.height}, {manifest.input.width}, 3)")
    print(f"  output {manifest.output}: {', '.join(manifest.classes)}")
    for score in manifest.scores:
        if score.metric == "auroc":
            print(f"  {score.split} AUROC {format_score(score)}")
    print(f"  {describe_calibration(manifest.calibration)}")
    if manifest.operating_point:
        print(f"  decides: {describe_operating_point(manifest.operating_point)}")
        for score in manifest.operating_point.scores:
            if score.metric in ("sensitivity", "specificity"):
                print(f"  {score.split} {score.metric} {format_score(score)}")


def print_engines(folder: Path, request: "EngineRequest", *, jetpack5: bool) -> None:
    """Say which engine lies in an exported folder, or that none was built, and how to make one."""
    from ttl_deploy.runtime.tensorrt.engine_words import engine_lines, how_to_build
    from ttl_deploy.runtime.tensorrt.trust import engine_path, manifest_path, read_manifest

    engine = engine_path(folder, request.flavour)
    if manifest_path(engine).exists() and not jetpack5:
        for line in engine_lines(read_manifest(engine)):
            print(f"  {line}")
        return
    print("  the engine was NOT built here: why, and how to build it, stands in model_card.md")
    print(f"  {how_to_build(folder, request.flavour, jetpack5=jetpack5)}")


def print_verification(report: "VerifyReport") -> None:
    """Print parity, and the scores of file and model side by side."""

    from ttl_deploy.evidence.metrics import METRIC_WORDS
    from ttl_deploy.report.numbers import format_score
    from ttl_deploy.runtime.precision_words import describe_parity

    print(f"{report.artifact} on {report.target}, split {report.split}, {report.images} images")
    if report.parity:
        print(f"  compared with {report.parity.reference}")
        for line in describe_parity(report.parity):
            print(f"  {line}")
    if report.threshold is not None:
        print(f"  decided by the threshold {report.threshold:.4g}")
    if report.near_threshold is not None and report.limit is not None:
        print(f"  images so near the decision that {report.limit:g} could flip it: {report.near_threshold}")
    model = {score.metric: score for score in report.model_scores}
    rows = [
        (
            METRIC_WORDS[score.metric],
            format_score(score),
            format_score(model[score.metric]) if score.metric in model else "not recorded",
        )
        for score in report.file_scores
    ]
    print_table(("score", "file", "trained model"), rows)
    if report.note:
        print(report.note)
    print("verdict: passed" if report.passed else "verdict: FAILED")


def print_bench(report: "BenchReport") -> None:
    """Print one line per candidate, then verdicts, and comparisons where these were asked for."""
    machine = report.machine
    if report.rows:
        percents = [f"p{percentile.percent:g} ms" for percentile in report.rows[0].percentiles]
        columns = ("row", "artifact", "target", "precision", "from", "batch", "threads", *percents)
        columns += ("noise ms", "images/s")
        title = f"{report.rows[0].mode} on {machine.processor}, {machine.cores} cores"
        _print_numbered(columns, map(_bench_cells, report.rows), title=title, keep=("artifact", *percents, "noise ms"))
        costs = ("row", "cold start ms", "import + open + first run ms", "peak MB", "added MB", "mJ/image")
        _print_numbered(costs, map(_bench_costs, report.rows))
    _print_stretches(report)
    if report.comparisons:
        columns = ("compared", "time", "95 % interval", "noise", "by", "verdict")
        print_table(columns, map(_comparison_cells, report.comparisons))
    for number, row in enumerate(report.rows, 1):
        print(f"row {number}: {'; '.join((row.verdict, *row.notes))}")
    for boundary in dict.fromkeys(_boundaries(report)):
        print(f"timed {boundary}")
    for reason in dict.fromkeys(one.reason for one in report.comparisons):
        print(f"compared so because {reason}")
    for failure in report.failures:
        print(f"{failure.artifact} on {failure.target}, batch {failure.batch}: FAILED, {failure.reason}")
    if report.energy_note:
        print(report.energy_note)
    for warning in machine.warnings:
        print(f"warning: {warning}")


def _print_stretches(report: "BenchReport") -> None:
    """Print the parts of calls that a target times apart, and what another tool told of them."""
    from ttl_deploy.runtime.beside import set_beside

    cells = [
        (str(number), *_stretch_cells(stretch))
        for number, row in enumerate(report.rows, 1)
        for stretch in row.stretches
    ]
    if cells:
        percents = [f"p{percentile.percent:g} ms" for percentile in report.rows[0].percentiles]
        print_table(("row", "inside the call", "calls", *percents, "noise ms"), cells)
    if report.imported:
        percents = " / ".join(f"p{one.percent:g}" for one in report.imported[0].stretches[0].percentiles)
        columns = ("batch", "stretch", "ours", "n", f"{percents} ms", "theirs", "n", f"{percents} ms", "ours/theirs")
        print_table(columns, map(_beside_cells, set_beside([report])))


def _stretch_cells(stretch: "Stretch") -> tuple[str, ...]:
    noise = "one process" if stretch.noise_s is None else f"{stretch.noise_s * 1e3:.4f}"
    return (stretch.name, str(stretch.calls), *map(_format_percentile, stretch.percentiles), noise)


def _beside_cells(one: "Beside") -> tuple[str, ...]:
    ours = (one.target, *_count_and_percentiles(one.ours)) if one.ours else ("not measured", "", "")
    theirs = (one.told_by, *_count_and_percentiles(one.theirs))
    return (str(one.batch), one.theirs.name, *ours, *theirs, "" if one.ratio is None else f"{one.ratio:.3f} x")


def _count_and_percentiles(stretch: "Stretch") -> tuple[str, ...]:
    return (str(stretch.calls), " / ".join(map(_format_percentile, stretch.percentiles)))


def _boundaries(report: "BenchReport") -> Iterator[str]:
    for row in report.rows:
        yield row.boundary
        yield from (stretch.boundary for stretch in row.stretches)
    yield from (stretch.boundary for one in report.imported for stretch in one.stretches)


def _print_numbered(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", keep: Sequence[str] = ()
) -> None:
    print_table(columns, [(str(number), *row) for number, row in enumerate(rows, 1)], title=title, keep=keep)


def _bench_cells(row: "BenchRow") -> tuple[str, ...]:
    return (
        row.artifact,
        row.target,
        row.precision,
        row.boundary.partition(":")[0],
        str(row.batch),
        str(row.threads) if row.streams == 1 else f"{row.threads} x {row.streams} streams",
        *(_format_percentile(percentile) for percentile in row.percentiles),
        f"{row.noise_s * 1e3:.3f}",
        f"{row.throughput:.1f}",
    )


def _bench_costs(row: "BenchRow") -> tuple[str, ...]:
    start, memory = row.start, row.memory
    parts = (start.import_s, start.open_s, start.first_run_s) if start else ()
    return (
        f"{start.total_s * 1e3:.0f}" if start else "unknown",
        " + ".join(f"{part * 1e3:.0f}" for part in parts),
        f"{memory.peak_bytes / 1e6:.0f}" if memory else "unknown",
        f"{memory.increase_bytes / 1e6:.0f}" if memory else "unknown",
        ", ".join(f"{one.per_image_j * 1e3:.3g} ({one.counter})" for one in row.energy) or "unknown",
    )


def _comparison_cells(one: "Comparison") -> tuple[str, ...]:
    return (
        f"row {one.second + 1} / row {one.first + 1}",
        f"{one.ratio:.3f} x",
        f"{one.low:.3f} to {one.high:.3f}",
        f"{one.floor:.1%}",
        "CPU time" if one.basis == "cpu" else "wall time",
        one.verdict,
    )


def _format_percentile(percentile: "Percentile") -> str:
    return "n too small" if percentile.value_s is None else f"{percentile.value_s * 1e3:.3f}"
