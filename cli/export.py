"""`ttl-deploy export`: ship the chosen model."""

from pathlib import Path
from typing import Annotated

import typer

from .engine_options import (
    BATCH,
    BatchOption,
    BuilderLevelOption,
    CapabilityOption,
    HardwareOption,
    TimingCacheOption,
    VersionOption,
    WorkspaceOption,
)

NAME = "export"


def run(
    context: typer.Context,
    run: Annotated[Path | None, typer.Argument(help="Run folder [the newest here].")] = None,
    format: Annotated[
        str,
        typer.Option(
            help="onnx (any runtime), ort (ONNX Runtime's CPU kernels), openvino, or trt (TensorRT: an engine where "
            "one can be built, and all that is needed to build one elsewhere)."
        ),
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 (trt only), bf16 (openvino only) or int8.")] = "fp32",
    max_drop: Annotated[
        float,
        typer.Option(
            metavar="AUROC", help="Loss of validation AUROC that fp16, bf16 and int8 must be shown not to have."
        ),
    ] = 0.005,
    qat_epochs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Where no int8 file holds its gate, finetune the model for 8 bits for N epochs and try once more; "
            "0 does without.",
        ),
    ] = 0,
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
    flavour: Annotated[
        str | None,
        typer.Option(
            help="With --format trt: trt (TensorRT) or rtx (TensorRT for RTX, which builds without a GPU) [trt]."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="With --format trt: jetpack5 writes the ONNX graph in opset 17.")
    ] = None,
    batch: BatchOption = BATCH,
    workspace: WorkspaceOption = None,
    builder_level: BuilderLevelOption = None,
    timing_cache: TimingCacheOption = None,
    version_compatible: VersionOption = False,
    hardware_compatible: HardwareOption = "none",
    compute_capability: CapabilityOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Export the chosen model as one verified file.

    Images in uint8 go in, calibrated probabilities come out.

    Temperature and threshold are fitted on validation and stand in the file; see docs/operating-point.md.
    A lower precision is published only if it holds its gate on validation (exit code 4); see docs/precision.md.
    Engines: docs/tensorrt.md.
    """
    import sys

    from ttl_deploy import plugins
    from ttl_deploy.errors import UnknownNameError, UsageError
    from ttl_deploy.records import codec

    from .engine_options import any_given, read_request, typed_options
    from .progress import say, show_stages
    from .runs import run_folder
    from .sources import typed_command
    from .tables import print_artifact, print_engines

    given = typed_options(
        batch, workspace, builder_level, timing_cache, version_compatible, hardware_compatible, compute_capability
    )
    if format != "trt" and (flavour or target or any_given(given)):
        raise UsageError(f"--flavour, --target and the options of engines go with --format trt, not with {format}")
    if target not in (None, "jetpack5"):
        raise UnknownNameError("export target", target, ("jetpack5",))
    if target and flavour == "rtx":
        raise UsageError("--target jetpack5 --flavour rtx: TensorRT for RTX does not run on a Jetson; leave one out")
    folder = run_folder(run)
    shipping = plugins.import_part("ttl_deploy.search.shipping", need="`ttl-deploy export`")
    engine = read_request(flavour or "trt", given) if format == "trt" else None
    say(f"exporting {folder.name} to {format} in {precision} and checking it against torch")
    with show_stages() as step:
        shipped = shipping.ship(
            folder,
            format_name=format,
            precision=precision,
            max_drop=max_drop,
            qat_epochs=qat_epochs,
            cut=cut,
            strategy=strategy,
            seed=seed,
            operating_rule=operating_point,
            calibrate=calibrate,
            engine=engine,
            jetpack5=target == "jetpack5",
            command=typed_command(context, sys.argv[1:]),
            progress=step,
        )
    if shipped.note:
        say(f"exported {shipped.note}")
    if as_json:
        print(codec.to_json(shipped.manifest))
        return
    print_artifact(shipped.folder, shipped.manifest)
    if engine is not None:
        print_engines(shipped.folder, engine, jetpack5=target == "jetpack5")
