"""`ttl-deploy inspect`: what a data set holds, and what is wrong with it, before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .reading_options import read_reading

if TYPE_CHECKING:
    from ttl_deploy.records.inspection import Inspection, NearDuplicates, Spread

NAME = "inspect"
_WIDTH = 80
_NAMED = 5


def run(
    data: Annotated[str, typer.Argument(help="Folder, table, or phantom[:kind].")],
    val_fraction: Annotated[float, typer.Option(help="Share of the images for validation, where made here.")] = 0.15,
    test_fraction: Annotated[float, typer.Option(help="Share of the images for the test, where made here.")] = 0.15,
    split_seed: Annotated[int, typer.Option(help="Seed of the splits made here.")] = 0,
    image_size: Annotated[int, typer.Option(min=8, max=2048, help="Side of the square image in pixels.")] = 224,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the record to this JSON file.")] = None,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show live progress.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    **reading: Any,
) -> None:
    """Look at every image of a data set before training.

    Counts, sizes, brightness, copies across splits, give-aways of the label.

    Splits and checks are those of `search`. Paths and patients' ids appear in the output: keep it where the data are.
    """
    from ttl_deploy.records import codec
    from ttl_deploy.search.inspection import inspect_data

    from .progress import show_stages

    with show_stages(enabled=progress) as step:
        found = inspect_data(
            data,
            reading=read_reading(reading),
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            image_size=image_size,
            progress=step,
        )
    if out is not None:
        codec.save(out, found)
    if as_json:
        print(codec.to_json(found))
        return
    _print_counts(found)
    _print_files(found)
    _print_brightness(found)
    _print_copies(found)
    _print_confounding(found)
    _print_warnings(found)


def _print_counts(found: "Inspection") -> None:
    from .tables import print_table

    # Classes are rows: there may be many of them, and the splits are three.
    rows = [
        (label, *(str(count.per_class[number]) for count in found.splits)) for number, label in enumerate(found.classes)
    ]
    rows.append(("all", *(str(count.images) for count in found.splits)))
    if found.patients_known:
        rows.append(("patients", *(str(count.patients) for count in found.splits)))
    print_table(("images", *(count.split for count in found.splits)), rows, title=f"{found.name} ({found.reader})")
    if found.patients_known:
        print(f"images per patient {_format_spread(found.images_per_patient)}")


def _print_files(found: "Inspection") -> None:
    sizes = found.sizes
    _say(
        f"width {_format_spread(sizes.width)} px, height {_format_spread(sizes.height)} px, "
        f"{sizes.distinct} distinct sizes; {sizes.enlarged} images are smaller than {sizes.image_size} px"
    )
    _say(f"file types {_format_counts(found.file_types)}; colour modes {_format_counts(found.modes)}")
    if found.unreadable:
        print(f"{len(found.unreadable)} unreadable files:")
        for file in found.unreadable[:_NAMED]:
            _say(file.reason, indent="  ")
        _say_more(len(found.unreadable))


def _print_brightness(found: "Inspection") -> None:
    from .tables import print_table

    rows = [
        (row.label, row.split, str(row.images), str(row.darkest), str(row.brightest), f"{row.mean:.1f}")
        for row in found.brightness
        if row.mean is not None
    ]
    print_table(
        ("class", "split", "images", "darkest", "brightest", "mean"),
        rows,
        title="grey values (0 to 255)",
        numeric=(False, False, True, True, True, True),
    )


def _print_copies(found: "Inspection") -> None:
    from ttl_deploy.data.near_duplicates import LEAST_MATCH

    copies, near = found.copies, found.near_duplicates
    _say(
        f"byte-identical files: {copies.groups} groups, {_across_patients(found, copies.across_patients)}"
        f"{copies.across_labels} with different labels, 0 across splits"
    )
    _say(
        f"nearly equal pictures among {near.images} distinct files: {'' if near.complete else 'at least '}"
        f"{near.across_splits} pairs across splits, {_across_patients(found, near.across_patients)}"
        f"{near.across_labels} with different labels"
    )
    if near.blank:
        print(f"{near.blank} files show a single grey and were not compared")
    if near.least_match > LEAST_MATCH:
        _say(
            f"the pictures of this set look alike, so it took a match of {near.least_match}: trimmed copies are missed"
        )
    _print_pairs(near)


def _across_patients(found: "Inspection", count: int) -> str:
    return f"{count} across patients, " if found.patients_known else ""


def _print_pairs(near: "NearDuplicates") -> None:
    for pair in near.pairs[:_NAMED]:
        sides = zip(pair.paths, pair.splits, pair.labels, strict=True)
        named = " and ".join(f"{path} ({split}, {label})" for path, split, label in sides)
        _say(f"{named}: match {pair.match:.2f}", indent="  ")
    _say_more(len(near.pairs))


def _print_confounding(found: "Inspection") -> None:
    from .tables import print_table

    rows = [
        (
            score.trait,
            f"{score.auroc:.2f}",
            "" if score.low is None else f"[{score.low:.2f}, {score.high:.2f}]",
            "ALARM" if score.alarming else "",
        )
        for score in found.confounding.traits
    ]
    if not rows:
        print("size, encoding and border are the same for all images, so they do not tell the label")
        return
    print_table(("not in the picture", "AUROC", "95 %", ""), rows, title="what predicts the label")
    print(f"examined on {found.confounding.images} images of {found.confounding.patients} patients")


def _print_warnings(found: "Inspection") -> None:
    for warning in found.warnings:
        _say(f"warning: {warning.message}")


def _format_spread(spread: "Spread") -> str:
    return f"{spread.smallest:g} to {spread.largest:g} (median {spread.median:g})"


def _format_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{word} {count}" for word, count in counts.items())


def _say(text: str, *, indent: str = "") -> None:
    """Print within the width; paths are not broken."""
    from textwrap import fill

    print(
        fill(
            text,
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=indent + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _say_more(count: int) -> None:
    if count > _NAMED:
        print(f"  and {count - _NAMED} more, in the JSON")
