"""`ttl-deploy build`: make an artifact's TensorRT engine on the machine that will run it."""

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

NAME = "build"


def run(
    artifact: Annotated[Path, typer.Argument(help="Folder made by `ttl-deploy export --format trt`.")],
    flavour: Annotated[
        str | None, typer.Option(help="trt (TensorRT) or rtx (TensorRT for RTX) [the one that is installed].")
    ] = None,
    batch: BatchOption = BATCH,
    workspace: WorkspaceOption = None,
    builder_level: BuilderLevelOption = None,
    timing_cache: TimingCacheOption = None,
    version_compatible: VersionOption = False,
    hardware_compatible: HardwareOption = "none",
    compute_capability: CapabilityOption = "",
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Give up after so long.")] = 3600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the engine's manifest as JSON.")] = False,
) -> None:
    """Build the engine of an exported model on this machine.

    Compares it with the golden answers, and puts it into the folder.

    Needs no torch. Without a GPU only TensorRT for RTX builds, ahead of time, and nothing is compared. An engine that
    does not answer as the model does is not published (exit code 4). See docs/tensorrt.md.
    """
    from ttl_deploy.records import codec
    from ttl_deploy.runtime.artifact import open_artifact
    from ttl_deploy.runtime.tensorrt.engine_words import engine_lines
    from ttl_deploy.runtime.tensorrt.engines import build_beside, for_this_machine
    from ttl_deploy.runtime.tensorrt.flavours import choose_flavour

    from .engine_options import read_request, typed_options
    from .progress import say
    from .runs import artifact_path

    opened = open_artifact(artifact_path(artifact))
    given = typed_options(
        batch, workspace, builder_level, timing_cache, version_compatible, hardware_compatible, compute_capability
    )
    request = for_this_machine(read_request(flavour or choose_flavour(), given))
    manifest = build_beside(opened, request, timeout_s=timeout, say=say)
    if as_json:
        print(codec.to_json(manifest))
        return
    for line in engine_lines(manifest):
        print(line)
