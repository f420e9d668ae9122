"""What engine lies in a folder, or why none does and how to make it, in words for the model card and the terminal."""

from pathlib import Path

from ttl_deploy.records.artifacts import ArtifactManifest
from ttl_deploy.records.engines import EngineManifest, EngineRequest, Flavour
from ttl_deploy.runtime.artifact import MODEL
from ttl_deploy.runtime.precision_words import describe_parity
from ttl_deploy.runtime.tensorrt.flavours import PACKAGES

_SCRIPT_WORDS = (
    "type `sh build_on_target.sh`: it builds, compares the answers with the recorded ones, measures, and packs what "
    "`ttl-deploy report RUN --add FILE` reads"
)


def describe_engine(manifest: EngineManifest) -> str:
    """Return a section for the model card on an engine that was built at the export."""
    lines = "\n".join(f"- {line}" for line in engine_lines(manifest))
    return (
        f"\n## Engine\n\n{lines}\n\nAn engine is executable code. It is loaded only with its manifest, on a machine "
        f"that the manifest fits. On another one build it again: {_SCRIPT_WORDS}; or "
        f"`{_command(manifest.flavour)}`.\n"
    )


def engine_lines(manifest: EngineManifest) -> tuple[str, ...]:
    """Say in a few lines what an engine is, and whether it was run."""
    options = manifest.options
    sizes = f"{options.batch.smallest} to {options.batch.largest}, tuned for {options.batch.usual}"
    builder = f"{PACKAGES[manifest.flavour].words} {manifest.tensorrt}"
    lines = [
        f"{manifest.engine.name}: {manifest.engine.size_bytes / 1e6:.2f} MB, built by {builder} in "
        f"{manifest.build_s:.1f} s from {manifest.model.name} ({manifest.precision})",
        f"built {manifest.built_for}; {manifest.system} {manifest.architecture}; batches of {sizes}",
    ]
    if manifest.golden is None:
        lines.append("not run: there was no GPU where it was built")
    else:
        lines += [
            f"on {manifest.golden.images} synthetic images: {line}" for line in describe_parity(manifest.golden)[:1]
        ]
    return (*lines, *(f"TensorRT warned: {warning}" for warning in manifest.warnings))


def how_to_build(folder: Path, flavour: Flavour, *, jetpack5: bool) -> str:
    """Say in a sentence what to do with a folder without an engine."""
    where = "the Jetson" if jetpack5 else "the machine that will run it"
    return f"copy {folder} to {where}, and there: sh build_on_target.sh"


def describe_missing(manifest: ArtifactManifest, request: EngineRequest, reason: str, *, jetpack5: bool) -> str:
    """Return a section for the model card on an engine that was not built at the export."""
    return f"\n## Engine\n\nThe engine was not built here: {reason}.\n\n{_how(manifest, request, jetpack5=jetpack5)}\n"


def _how(manifest: ArtifactManifest, request: EngineRequest, *, jetpack5: bool) -> str:
    if not jetpack5:
        return (
            f"Build it on the machine that will run it: copy the whole folder there, and {_SCRIPT_WORDS}. Where "
            f"ttl-deploy is installed, `{_command(request.flavour)}` only builds and compares. Neither needs torch."
        )
    size, batch = f"{manifest.input.height}x{manifest.input.width}x3", request.options.batch
    shapes = " ".join(
        f"--{kind}Shapes={manifest.input.name}:{count}x{size}"
        for kind, count in (("min", batch.smallest), ("opt", batch.usual), ("max", batch.largest))
    )
    flag = {"fp16": " --fp16", "int8": " --int8"}.get(manifest.precision, "")
    return (
        "JetPack 5 has TensorRT 8 and Python 3.8, older than what ttl-deploy runs on. Copy the whole folder there, and "
        f"{_SCRIPT_WORDS}. It builds by JetPack's own tool; `trtexec --onnx={MODEL} {shapes}{flag} "
        "--saveEngine=model.engine` by hand does that alone, without comparing answers."
    )


def _command(flavour: Flavour) -> str:
    return f"ttl-deploy build . --flavour {flavour}"
