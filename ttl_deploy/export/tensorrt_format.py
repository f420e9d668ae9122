"""The format `trt`: an ONNX file whose types are the precision, and an engine of it where one can be built.

The ONNX file is what counts: it is judged in ONNX Runtime like every other format's, and engines are made from it, here
or on the machine that runs them (`ttl-deploy build`).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx

from ttl_deploy.errors import GateError, TargetUnavailableError
from ttl_deploy.export import half_precision, quantisation
from ttl_deploy.export.formats import FileMaker, judged
from ttl_deploy.export.graph import CURRENT, JETPACK5, GraphVersion
from ttl_deploy.export.writer import Made, Writing
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.engines import EngineManifest, EngineRequest
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.kit.writing import write_kit
from ttl_deploy.runtime.tensorrt.builder import check_options
from ttl_deploy.runtime.tensorrt.devices import require_gpu
from ttl_deploy.runtime.tensorrt.engine_words import describe_engine, describe_missing
from ttl_deploy.runtime.tensorrt.engines import build_beside
from ttl_deploy.runtime.tensorrt.flavours import PACKAGES, load_flavour

_CONVERT_TIMEOUT_S = 600.0
_PEAK_IMAGES = 32

Say = Callable[[str], None]


class TensorRtFormat(FileMaker):
    """ONNX for TensorRT in fp32, fp16 or int8, with the engine where it can be built here.

    TensorRT for RTX builds anywhere, ahead of time, so that its engine is always there. TensorRT builds where it and
    a GPU are; elsewhere the folder holds all that `ttl-deploy build` needs, and says so. With `jetpack5` the graph is
    of opset 17 and no engine is built: nothing newer than JetPack 5 would make one that runs there.
    """

    def __init__(
        self,
        request: EngineRequest | None = None,
        *,
        jetpack5: bool = False,
        say: Say = lambda sentence: None,
    ) -> None:
        """Take what engine is wanted.

        Where that is one of TensorRT for RTX, raises `TargetUnavailableError` if that is not here, and what
        `check_options` raises: before minutes of work.
        """
        super().__init__("trt", ("fp32", "fp16", "int8"), (quantisation.SHARED,))
        self.request = request or EngineRequest(flavour="trt")
        self.jetpack5, self.say = jetpack5, say
        if PACKAGES[self.request.flavour].without_gpu and not jetpack5:
            check_options(self.request)

    @property
    def version(self) -> GraphVersion:
        """Opset 18, or 17 for JetPack 5."""
        return JETPACK5 if self.jetpack5 else CURRENT

    def make(self, writing: Writing) -> Made:
        """Make the file; in fp16 its activations must fit, and it must hold its gate."""
        if writing.precision != "fp16":
            return super().make(writing)
        model = writing.source.with_name("half.onnx")
        writing.checked_proof.progress("converting to fp16", 0, 1)
        images = writing.images[:_PEAK_IMAGES]
        found = run_isolated(half_precision.find_peaks, writing.source, images, timeout_s=_CONVERT_TIMEOUT_S)
        peaks = value_of(found, error=GateError, doing="cannot measure the activations")
        half_precision.refuse_large_activations(peaks)
        done = run_isolated(half_precision.write_half, writing.source, model, timeout_s=_CONVERT_TIMEOUT_S)
        value_of(done, error=GateError, doing="cannot convert the model to fp16")
        return judged(writing, model)

    def stamp(self, model: Path, path: Path, metadata: dict[str, str]) -> None:
        """Write the model with its metadata, in the version that was asked for: quantisers raise it."""
        content = onnx.load(model)
        content.ir_version = self.version.ir_version
        onnx.helper.set_model_props(content, metadata)
        path.write_bytes(content.SerializeToString())

    def complete(self, artifact: Artifact) -> str:
        """Add the kit, build the engine where that is possible, and tell for the card what was or was not built."""
        self._write_kit(artifact)
        reason = self._why_not_here()
        if reason:
            return describe_missing(artifact.manifest, self.request, reason, jetpack5=self.jetpack5)
        manifest: EngineManifest = build_beside(artifact, self.request, say=self.say)
        return describe_engine(manifest)

    def _write_kit(self, artifact: Artifact) -> None:
        """Put what builds, compares and measures on another machine beside the graph."""
        request = replace(self.request, flavour="trt") if self.jetpack5 else self.request
        write_kit(artifact, artifact.folder, request=request, target=PACKAGES[request.flavour].target)

    def _why_not_here(self) -> str:
        """Say why no engine can be built on this machine; nothing where one can."""
        if self.jetpack5:
            return "engines for JetPack 5 can only be built on JetPack 5"
        if PACKAGES[self.request.flavour].without_gpu:
            return ""
        try:
            load_flavour(self.request.flavour)
            require_gpu()
        except TargetUnavailableError as error:
            return str(error)
        return ""
