"""All exported files of a run in one table."""

from collections.abc import Sequence

from ttl_deploy.records.artifacts import Parity
from ttl_deploy.report.front_layers import find_medians, size_of_model
from ttl_deploy.report.listing import SPLIT_WORDS, Listing
from ttl_deploy.report.numbers import format_bytes, format_latency, pad_digits
from ttl_deploy.report.story import ExportStory


def list_exports(exports: Sequence[ExportStory]) -> Listing:
    """Lay out what every file is, how near to the trained model it is, whether it was verified, and how fast it is."""
    rows = tuple(
        (
            export.manifest.name,
            f"{export.manifest.format}, {export.manifest.precision}",
            pad_digits(format_bytes(size_of_model(export.manifest))),
            _agreement(export.parity),
            _verified(export),
            _latency(export),
        )
        for export in exports
    )
    return Listing(
        columns=("artifact", "format", "size", "decisions as the model's", "verified", "latency"),
        numeric=(False, False, True, True, False, True),
        rows=rows,
    )


def _agreement(parity: Parity | None) -> str:
    if parity is None:
        return "not recorded"
    return f"{parity.images - parity.decisions_flipped} of {parity.images}"


def _verified(export: ExportStory) -> str:
    found = export.verification
    if found is None:
        return "not yet"
    where = f"{found.images} {SPLIT_WORDS.get(found.split, found.split)} images"
    return f"{'passed' if found.passed else 'failed'}, {where}"


def _latency(export: ExportStory) -> str:
    """Return the newest median of one image at a time, and where it was measured."""
    known = find_medians(export)
    if not known:
        return "not measured"
    host, row, seconds = known[-1]
    verdict = row.verdict.partition(":")[0]
    return f"{pad_digits(format_latency(seconds))} on {host}{'' if verdict == 'stable' else f', {verdict}'}"
