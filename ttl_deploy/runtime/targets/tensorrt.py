"""TensorRT, and TensorRT for RTX, on the first GPU: engines built here or beside the file, each with its manifest.

An engine is executable code: open files through `runtime.inference.open_safely`, which does it in a child process.
"""

from pathlib import Path

from ttl_deploy.records.engines import CURRENT, EngineOptions, EngineRequest, Flavour
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.targets import contract
from ttl_deploy.runtime.tensorrt.devices import open_device
from ttl_deploy.runtime.tensorrt.engines import cached_engine, make_engine
from ttl_deploy.runtime.tensorrt.flavours import PACKAGES
from ttl_deploy.runtime.tensorrt.session import TensorRtSession
from ttl_deploy.runtime.tensorrt.trust import describe_here, engine_path, manifest_path, read_engine

_CAN = ("fp32", "fp16", "int8")
_ENGINE = ".engine"


class TensorRt:
    """TensorRT on the first GPU."""

    flavour: Flavour = "trt"
    cuda_graph = False

    def __init__(self) -> None:
        """Look at this machine; raises `TargetUnavailableError` where the package or a GPU is missing."""
        self._here = describe_here(self.flavour)
        package = PACKAGES[self.flavour]
        self._name = package.target
        self.runtime = f"{package.module.replace('_', '-')} {self._here.tensorrt}"

    def precisions(self) -> tuple[str, ...]:
        """Return what it can run here; a file runs in the one it was exported in."""
        return _CAN

    def build(self, model: Path, folder: Path) -> Path:
        """Build an ONNX file for this GPU, and put the engine with its manifest into `folder`; returns the engine."""
        make_engine(model, folder, self._request())
        return engine_path(folder, self.flavour)

    def open(self, model: Path, *, threads: int, precision: str | None = None) -> TensorRtSession:
        """Open an engine, or an ONNX file by the engine beside it, or else by one from the cache, built if new there.

        Raises `ArtifactError` for a file it cannot use and for an engine that is damaged, has no manifest or comes
        from another machine, `UsageError` for a precision it does not run in.
        """
        contract.check_threads(threads)
        contract.check_request(precision, target=self._name, can=_CAN)
        engine, source = self._engine_of(model)
        trusted = read_engine(engine, self._here, model=source)
        session = TensorRtSession(trusted, engine, open_device(), cuda_graph=self.cuda_graph)
        contract.check_ran(precision, ran=session.precision, model=model, target=self._name, can=(session.precision,))
        return session

    def _engine_of(self, model: Path) -> tuple[Path, Path | None]:
        """Return the engine to load, and the ONNX file it must have been built from, where that is known."""
        if model.suffix == _ENGINE:
            return model, None
        read_onnx_facts(model)
        beside = engine_path(model.parent, self.flavour)
        if beside.exists() or manifest_path(beside).exists():
            return beside, model
        return cached_engine(model, self._request(), self._here), model

    def _request(self) -> EngineRequest:
        capabilities = (CURRENT,) if PACKAGES[self.flavour].without_gpu else ()
        return EngineRequest(flavour=self.flavour, options=EngineOptions(compute_capabilities=capabilities))


class TensorRtGraph(TensorRt):
    """TensorRT with its work recorded as CUDA graphs, one for each batch size."""

    cuda_graph = True


class TensorRtRtx(TensorRt):
    """TensorRT for RTX on the first GPU."""

    flavour: Flavour = "rtx"


class TensorRtRtxGraph(TensorRtRtx):
    """TensorRT for RTX with its work recorded as CUDA graphs."""

    cuda_graph = True
