"""`ttl-deploy export`: ship the chosen model."""

from pathlib import Path
from typing import Annotated

import typer

NAME = "export"


def run(
    run: Annotated[Path | None, typer.Argument(help="Run folder [the newest here].")] = None,
    format: Annotated[
        str, typer.Option(help="onnx (any runtime), ort (ONNX Runtime's CPU kernels) or openvino.")
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, bf16 (openvino only) or int8.")] = "fp32",
    max_drop: Annotated[
        float,
        typer.Option(metavar="AUROC", help="Loss of validation AUROC that bf16 and int8 must be shown not to have."),
    ] = 0.005,
    cut: Annotated[str | None, typer.Option(help="Export this cut [the chosen one].")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Export the cut as trained by this one [the best on validation].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Export this seed [the best on validation].")] = None,
    operating_point: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="How the file decides between two classes: argmax, or by a threshold from validation: youden, "
            "sensitivity=SHARE, specificity=SHARE.",
        ),
    ] = "argmax",
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Fit a temperature on validation, and put it in.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Export the chosen model as one verified file: uint8 images in, calibrated probabilities out.

    Temperature and threshold are fitted on validation and stand in the file; see docs/operating-point.md.
    A lower precision is published only if it holds its gate on validation (exit code 4); see docs/precision.md.
    """
    from ttl_deploy import plugins
    from ttl_deploy.records import codec

    from .progress import say, show_stages
    from .runs import run_folder
    from .tables import print_artifact

    folder = run_folder(run)
    shipping = plugins.import_part("ttl_deploy.search.shipping", need="`ttl-deploy export`")
    say(f"exporting {folder.name} to {format} in {precision} and checking it against torch")
    with show_stages() as step:
        shipped = shipping.ship(
            folder,
            format_name=format,
            precision=precision,
            max_drop=max_drop,
            cut=cut,
            strategy=strategy,
            seed=seed,
            operating_rule=operating_point,
            calibrate=calibrate,
            progress=step,
        )
    if shipped.note:
        say(f"exported {shipped.note}")
    if as_json:
        print(codec.to_json(shipped.manifest))
        return
    print_artifact(shipped.folder, shipped.manifest)
