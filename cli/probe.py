"""`ttl-deploy probe`: what can be read at each cut of the frozen backbone, before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ttl_deploy.records.scores import Score

NAME = "probe"


def run(
    backbone: Annotated[str, typer.Option(help="Backbone by its torchvision name.")],
    data: Annotated[str, typer.Option(help="Folder, table, or phantom[:kind].")],
    weights: Annotated[str | None, typer.Option(help="imagenet, none, or a file [imagenet].")] = None,
    normalise: Annotated[
        str | None, typer.Option(help="How the weights want images: auto, a name, or MEAN/STD [auto].")
    ] = None,
    cuts: Annotated[str, typer.Option(help="all, stages, or names separated by commas.")] = "all",
    image_size: Annotated[int | None, typer.Option(help="Side of the square image in pixels [224].")] = None,
    limit_train: Annotated[int | None, typer.Option(min=1, help="Use at most so many training images.")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Seed of the splits made here [0].")] = None,
    pool: Annotated[str | None, typer.Option(help="avg, max, avgmax, gem or flatten [avg].")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the records to this JSON file.")] = None,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show live progress.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
    **reading: Any,
) -> None:
    """Rank the cuts of a frozen backbone in one forward pass.

    By a linear classifier on pooled features; nothing is trained.

    A first look, not a choice: finetuning changes the ranking, of the shallow cuts most.
    """
    flags: dict[str, Any] = dict(locals())
    flags |= flags.pop("reading")
    from ttl_deploy import plugins
    from ttl_deploy.files import publish_text
    from ttl_deploy.records import codec

    from .progress import say, show_stages
    from .settings import build_settings

    for name in ("device", "out", "progress", "as_json"):
        flags.pop(name)
    settings = build_settings(flags)
    probing = plugins.import_part("ttl_deploy.search.first_look", need="`ttl-deploy probe`")
    place = plugins.import_part("ttl_deploy.training.devices", need="`ttl-deploy probe`").pick_device(device)
    with show_stages(enabled=progress) as step:
        found = probing.probe_data(settings, device=place, note=say, progress=step)
    if out is not None:
        publish_text(out, codec.to_json(found))
    if as_json:
        print(codec.to_json(found))
        return
    _print(found)


def _print(found: Any) -> None:
    from .tables import print_table

    rows = [
        (
            cut.name,
            f"{cut.macs_share:.1%}",
            f"{cut.params_share:.1%}",
            str(score.features),
            "undefined" if score.cv_auroc is None else f"{score.cv_auroc:.3f}",
            _format(score.validation),
            "stage" if cut.stage else "",
        )
        for cut, score in zip(found.cuts, found.probe.cuts, strict=True)
    ]
    images = f"{found.probe.train_images} training and {found.probe.val_images} validation images"
    print_table(
        ("cut", "MACs of full", "params of full", "features", "cross-validated", "validation AUROC", ""),
        rows,
        title=f"linear classifiers on the frozen backbone, {images}, {found.probe.seconds:.0f} s",
    )


def _format(score: "Score") -> str:
    if score.value is None:
        return "undefined"
    bounds = "" if score.low is None or score.high is None else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.value:.3f}{bounds}"
