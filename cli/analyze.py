"""`ttl-deploy analyze`: why is this depth enough?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ttl_deploy.records.analysis import Against, Analysis

NAME = "analyze"


def run(
    run: Annotated[Path | None, typer.Argument(help="Run folder [the newest here].")] = None,
    cut: Annotated[
        str | None, typer.Option(help="This trained cut [the chosen one; the best smaller one where that is full].")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="The cut as trained by this one [the best on validation].")
    ] = None,
    cuts: Annotated[str, typer.Option(help="Compare at all, stages, or names separated by commas.")] = "stages",
    images: Annotated[int, typer.Option(min=4, help="Compare on at most so many validation images.")] = 256,
    against: Annotated[
        str | None, typer.Option(help="Of initial,full,random, separated by commas [what the run allows].")
    ] = None,
    gradcam: Annotated[int, typer.Option(min=0, help="Draw Grad-CAM maps on at most so many images.")] = 6,
    gradcam_split: Annotated[
        str, typer.Option(help="val, or test where the search opened it: a use of it, for the ledger.")
    ] = "val",
    lesion_px: Annotated[
        float | None, typer.Option(help="Side of the smallest finding, in pixels of the network's input.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show live progress.")] = True,
) -> None:
    """Show why a depth is enough, by what the networks learned.

    How much each depth changed in training, what it sees, and where the models look: SVCCA and debiased CKA of the
    features before and after training, of the cut and the full network, and of random networks; Grad-CAM maps of both
    models. Writes analysis.json, which `report` shows; see docs/analyze.md.
    """
    import shlex
    import sys

    from ttl_deploy import plugins
    from ttl_deploy.errors import UnknownNameError, UsageError
    from ttl_deploy.records import codec

    from .progress import show_stages
    from .runs import run_folder
    from .settings import parse_cuts

    if gradcam_split not in ("val", "test"):
        raise UnknownNameError("split", gradcam_split, ("val", "test"))
    if lesion_px is not None and not 0 < lesion_px < float("inf"):
        raise UsageError(f"--lesion-px {lesion_px:g}: give a number of pixels above 0")
    pairs = None if against is None else parse_against(against)
    folder = run_folder(run)
    study = plugins.import_part("ttl_deploy.analysis.study", need="`ttl-deploy analyze`")
    place = plugins.import_part("ttl_deploy.training.devices", need="`ttl-deploy analyze`").pick_device(device)
    wanted = study.Wanted(
        cut=cut,
        strategy=strategy,
        cuts=parse_cuts(cuts),
        images=images,
        against=pairs,
        cams=gradcam,
        cam_split=gradcam_split,
        lesion_px=lesion_px,
        command=shlex.join(["ttl-deploy", *sys.argv[1:]]),
    )
    with show_stages(enabled=progress) as step:
        found = study.analyse(folder, wanted, device=place, progress=step)
    if as_json:
        print(codec.to_json(found))
        return
    _print(found, folder.path)


def parse_against(text: str) -> "tuple[Against, ...]":
    """Return what to compare with; raises `UnknownNameError` for anything else."""
    from ttl_deploy.errors import UnknownNameError
    from ttl_deploy.records.analysis import AGAINST

    given = [name for part in text.split(",") if (name := part.strip())]
    for name in given:
        if name not in AGAINST:
            raise UnknownNameError("network to compare with", name, AGAINST)
    if not given:
        raise UnknownNameError("network to compare with", text, AGAINST)
    return tuple(name for name in AGAINST if name in given)


def _print(found: "Analysis", folder: Path) -> None:
    """Print a table for each measure and one for what a position sees, then what they rest on."""
    from ttl_deploy.report import analysis_listing

    from .tables import print_table

    for one in analysis_listing.list_tables(found):
        print_table(one.listing.columns, one.listing.rows, title=one.title, numeric=one.listing.numeric)
    for line in analysis_listing.explain(found):
        print(line)
    for picture in () if found.cams is None else found.cams.images:
        print(folder / picture.file)
    if found.cams is not None:
        print("These pictures show patients' images: keep them where the data may lie.")
