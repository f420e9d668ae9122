"""An analysis as tables of text and sentences, the same in the terminal and on the page."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ttl_deploy.records.analysis import PAIR_WORDS, SETTLED_WITHIN, Analysis, Depth, LayerSimilarity, Pair
from ttl_deploy.report.listing import Listing
from ttl_deploy.report.numbers import MINUS

_UNDEFINED = "–"
_TITLES: dict[Pair, str] = {"random-random": "random"}
"""Columns whose full names would be too wide for a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TitledListing:
    """A table, and what stands above it."""

    title: str
    listing: Listing


def list_tables(found: Analysis) -> tuple[TitledListing, ...]:
    """Lay out similarity by SVCCA and by CKA, what a position sees, and how fast the trainings settled."""
    tables = [_list_svcca(found), _list_cka(found), _list_fields(found)]
    return (*tables, *([_list_curves(found)] if found.curves else []))


def _list_svcca(found: Analysis) -> TitledListing:
    rows = [
        (*_row(found, one.cut, lambda similarity: similarity.svcca), _format(find_noise(found, one.cut)))
        for one in found.depths
    ]
    listing = Listing(
        columns=("cut", *map(title_of, found.pairs), "noise"),
        numeric=(False, *[True] * len(found.pairs), True),
        rows=tuple(rows),
    )
    return TitledListing(title="SVCCA: mean canonical correlation", listing=listing)


def title_of(pair: Pair) -> str:
    """Return what a pair is called in tables and figures."""
    return _TITLES.get(pair, pair)


def find_noise(found: Analysis, cut: str) -> float | None:
    """Return the largest mean correlation of noise among a cut's pairs, which keep about as many directions."""
    rows = (one.svcca_noise for one in found.similarities if one.cut == cut)
    return max((value for value in rows if value is not None), default=None)


def _list_cka(found: Analysis) -> TitledListing:
    rows = tuple(_row(found, one.cut, lambda similarity: similarity.cka) for one in found.depths)
    listing = Listing(
        columns=("cut", *map(title_of, found.pairs)), numeric=(False, *[True] * len(found.pairs)), rows=rows
    )
    return TitledListing(title="debiased linear CKA", listing=listing)


def _row(found: Analysis, cut: str, read: Callable[[LayerSimilarity], float | None]) -> tuple[str, ...]:
    known = (found.similarity(pair, cut) for pair in found.pairs)
    return (cut, *("" if one is None else _format(read(one)) for one in known))


def _format(value: float | None) -> str:
    """Write a similarity; debiased CKA can be a little below 0."""
    if value is None:
        return _UNDEFINED
    text = f"{value:.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)


def _list_fields(found: Analysis) -> TitledListing:
    lesion = found.lesion_px is not None
    columns = (
        "cut",
        "MACs",
        "map",
        "sees (px)",
        "of side",
        *(("lesion", "cells") if lesion else ()),
    )
    rows = tuple(
        (
            one.cut,
            f"{one.macs_share:.1%}",
            f"{one.height} × {one.width}",
            _format_field(one),
            "" if one.receptive_field is None else f"{min(1.0, one.receptive_field / found.image_size):.0%}",
            *((_judge(one, found), _count_cells(one, found)) if lesion else ()),
        )
        for one in found.depths
    )
    title = f"What one position sees of {found.image_size} × {found.image_size} px"
    numeric = (False, True, True, True, True, *([False, True] if lesion else []))
    return TitledListing(title=title, listing=Listing(columns=columns, numeric=numeric, rows=rows))


def _format_field(one: Depth) -> str:
    gates = " and gates" if one.global_context else ""
    return "not known" if one.receptive_field is None else f"{one.receptive_field}{gates}"


def _judge(one: Depth, found: Analysis) -> str:
    if one.receptive_field is None or found.lesion_px is None:
        return "not known"
    if one.receptive_field >= found.lesion_px:
        return "whole"
    return f"{one.receptive_field / found.lesion_px:.0%} of it"


def _count_cells(one: Depth, found: Analysis) -> str:
    """Say how many positions of the map lie side by side across the lesion."""
    if one.height != one.width or found.lesion_px is None:
        return ""
    return f"{found.lesion_px * one.width / found.image_size:.1f}"


def _list_curves(found: Analysis) -> TitledListing:
    rows = []
    for curve in found.curves:
        known = [value for value in curve.val_auroc if value is not None]
        best = f"{max(known):.3f}" if known else "undefined"
        settled = "" if curve.settled_epoch is None else str(curve.settled_epoch)
        rows.append((curve.key, str(len(curve.epochs)), best, settled))
    listing = Listing(
        columns=("trial", "epochs", "best val AUROC", "settled in epoch"),
        numeric=(False, True, True, True),
        rows=tuple(rows),
    )
    return TitledListing(title=f"Settled: within {SETTLED_WITHIN:g} of the trial's own best", listing=listing)


def explain(found: Analysis) -> Iterator[str]:
    """Say what was compared, on what, how, and what is undefined."""
    for pair in found.pairs:
        yield f"{title_of(pair)}: {PAIR_WORDS[pair]}."
    yield (
        f"Single precision, evaluation mode, {found.images} of {found.split_images} validation images "
        f"(seed {found.image_seed}); the test split has no part in the tables."
    )
    yield (
        "SVCCA takes the positions of a map as samples, the same drawn ones in every image and network (seed "
        f"{found.position_seed}), and keeps the singular directions of {found.variance_share:.0%} of the variance. "
        "Noise is Gaussian, in as many samples and directions. Positions of one image are no independent samples, so "
        "random networks are the fairer baseline."
    )
    yield (
        "CKA takes one sample per image: the features averaged over the map. It is 0 in the mean for unrelated ones; "
        "random networks are not unrelated, as they pass on what the images look like."
    )
    if found.random_seeds:
        yield f"Random networks were drawn with the seeds {', '.join(map(str, found.random_seeds))}."
    undefined = {one.cut: one.svcca_reason for one in found.similarities if one.svcca_reason}
    for cut, reason in undefined.items():
        yield f"SVCCA at {cut} is undefined: {reason}."
    for reason in dict.fromkeys(one.cka_reason for one in found.similarities if one.cka_reason):
        yield f"CKA is undefined where {reason}."
    if found.lesion_px is not None:
        yield (
            f"Lesion: how much of a finding of {found.lesion_px:g} px one position can see; cells: how many positions "
            "lie side by side across it."
        )
    if found.cams is not None:
        yield describe_cams(found)
    yield from (f"{note[0].upper()}{note[1:]}." for note in found.notes)


def describe_cams(found: Analysis) -> str:
    """Say what the Grad-CAM pictures show."""
    cams = found.cams
    assert cams is not None
    full, cut = (f"{height} × {width}" for height, width in (cams.full_grid, cams.cut_grid))
    return (
        f"Grad-CAM of the full network at {cams.full_layer} ({full}) and of the truncated model at {cams.cut_layer} "
        f"({cut}), for the class named; images were drawn (seed {cams.seed}), not picked by eye."
    )
