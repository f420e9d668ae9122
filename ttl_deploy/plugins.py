"""Name tables of everything that can be added: "name" → "module:attribute", loaded when first used.

A third party adds to a table through the entry-point group `ttl_deploy.<table>`; built-ins use
exactly the same mechanism. The Protocols say what an entry must offer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import MissingExtraError, UnknownNameError
from ttl_deploy.records.artifacts import ArtifactManifest, CalibrationImages, Gate, Precision
from ttl_deploy.records.data import DataWarning, Finding, Label, Reading, Split
from ttl_deploy.records.quantisation import Finetuning

_TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        # Readers are asked in this order whether they recognise the given path.
        "readers": {
            "phantom": "ttl_deploy.data.readers.phantom:PhantomReader",
            "medmnist": "ttl_deploy.data.readers.medmnist:MedmnistReader",
            "chexpert": "ttl_deploy.data.readers.chexpert:ChexpertReader",
            "mimic-cxr": "ttl_deploy.data.readers.mimic:MimicReader",
            "nih-chestxray14": "ttl_deploy.data.readers.nih:NihReader",
            "ham10000": "ttl_deploy.data.readers.ham10000:Ham10000Reader",
            "bimcv": "ttl_deploy.data.readers.bimcv:BimcvReader",
            "parquet-images": "ttl_deploy.data.readers.parquet_images:ParquetImagesReader",
            "table": "ttl_deploy.data.readers.table:TableReader",
            "folder": "ttl_deploy.data.readers.folder:FolderReader",
        },
        # The prefixes of backbones' names; torchvision's need none.
        "backbones": {
            "torchvision": "ttl_deploy.models.backbones.torchvision_models:TorchvisionFamily",
            "timm": "ttl_deploy.models.backbones.timm_models:TimmFamily",
            "cbr": "ttl_deploy.models.backbones.cbr:CbrFamily",
            "slim": "ttl_deploy.models.backbones.slim:SlimFamily",
        },
        "strategies": {
            "full": "ttl_deploy.training.strategies.full:FullFinetuning",
            "linear-probe": "ttl_deploy.training.strategies.linear_probe:LinearProbe",
            "lp-ft": "ttl_deploy.training.strategies.lp_ft:ProbeThenFinetune",
            "lwft": "ttl_deploy.training.strategies.lwft:LayerwiseFinetuning",
            "l1-sp": "ttl_deploy.training.strategies.starting_point:L1Sp",
            "l2-sp": "ttl_deploy.training.strategies.starting_point:L2Sp",
            "auto-rgn": "ttl_deploy.training.strategies.auto_rgn:AutoRgn",
            "gradual-last-first": "ttl_deploy.training.strategies.gradual:LastToFirst",
            "gradual-first-last": "ttl_deploy.training.strategies.gradual:FirstToLast",
            "scratch": "ttl_deploy.training.strategies.scratch:Scratch",
            "mean-var": "ttl_deploy.training.strategies.mean_var:MeanVar",
            "transfusion": "ttl_deploy.training.strategies.transfusion:Transfusion",
            "gabor": "ttl_deploy.training.strategies.gabor:Gabor",
            "from-joint": "ttl_deploy.training.strategies.from_joint:FromJoint",
            "distill": "ttl_deploy.training.strategies.distill:Distillation",
        },
        "policies": {
            "exhaustive": "ttl_deploy.search.policies.exhaustive:Exhaustive",
            "hierarchical": "ttl_deploy.search.policies.hierarchical:Hierarchical",
            "halving": "ttl_deploy.search.policies.halving:Halving",
            "guided": "ttl_deploy.search.policies.guided:Guided",
        },
        "executors": {
            "local": "ttl_deploy.search.executors.local:LocalExecutor",
            "ray": "ttl_deploy.search.executors.ray_executor:RayExecutor",
        },
        "formats": {
            "onnx": "ttl_deploy.export.formats:OnnxFormat",
            "ort": "ttl_deploy.export.formats:OrtFormat",
            "openvino": "ttl_deploy.export.formats:OpenvinoFormat",
            "trt": "ttl_deploy.export.tensorrt_format:TensorRtFormat",
        },
        "targets": {
            "onnxruntime-cpu": "ttl_deploy.runtime.targets.onnxruntime_cpu:OnnxRuntimeCpu",
            "openvino-cpu": "ttl_deploy.runtime.targets.openvino_cpu:OpenVinoCpu",
            "tensorrt": "ttl_deploy.runtime.targets.tensorrt:TensorRt",
            "tensorrt-cuda-graph": "ttl_deploy.runtime.targets.tensorrt:TensorRtGraph",
            "tensorrt-rtx": "ttl_deploy.runtime.targets.tensorrt:TensorRtRtx",
            "tensorrt-rtx-cuda-graph": "ttl_deploy.runtime.targets.tensorrt:TensorRtRtxGraph",
        },
    }
)

_EXTRA_OF_MODULE = {
    "torch": "train",
    "torchvision": "train",
    "onnx": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "sklearn": "train",
    "plotly": "train",
    "matplotlib": "train",
    "timm": "timm",
    "openvino": "openvino",
    "nncf": "openvino",
    "tensorrt": "trt",
    "tensorrt_rtx": "rtx",
    "pydicom": "dicom",
    "pyarrow": "parquet",
    "ray": "ray",
}


def names(table: str) -> tuple[str, ...]:
    """Return the names in a table, built-ins first in their order, then third parties' sorted."""
    builtin = _TABLES[table]
    added = {point.name for point in entry_points(group=f"ttl_deploy.{table}")}
    return (*builtin, *sorted(added - set(builtin)))


def load(table: str, name: str) -> Any:
    """Return the object behind a name; raises `UnknownNameError`, or `MissingExtraError` for its needs."""
    builtin = _TABLES[table]
    if name in builtin:
        module_name, _, attribute = builtin[name].partition(":")
        return getattr(import_part(module_name, need=f"{table[:-1]} {name!r}"), attribute)
    for point in entry_points(group=f"ttl_deploy.{table}"):
        if point.name == name:
            return point.load()
    raise UnknownNameError(table[:-1] if not table.endswith("ies") else table[:-3] + "y", name, names(table))


def import_part(module_name: str, *, need: str) -> Any:
    """Import a module; a missing third-party package of a known extra becomes `MissingExtraError`."""
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingExtraError(extra, need) from error


Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the units done and the units in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSample:
    """A row as its source states it: nothing hashed, nothing split yet.

    `path` is relative to the root, with forward slashes; None stands for what the source does not say. `label` is
    the image's class; where it can have several, what the source says of each finding, the same ones in every row.
    """

    path: str
    label: str | Mapping[str, Finding]
    patient_id: str | None = None
    split: Split | None = None
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawData:
    """What a reader found: the data set's short name, the folder its paths start from, its rows."""

    name: str
    root: Path
    samples: tuple[RawSample, ...]
    warnings: tuple[DataWarning, ...] = ()


class Reader(Protocol):
    """Understands one way in which labelled images lie on a disk."""

    def recognises(self, data: str) -> bool:
        """Tell cheaply whether `data` (a path, or a built-in's name) is of this kind."""
        ...

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Return the rows; raises `DataError` with file, row and column.

        A reader uses the columns and the `image_root` that `reading` names; classes are chosen, grouped and
        uncertain findings decided on after it, the same way for all readers.
        """
        ...


class Session(Protocol):
    """A model opened on a target.

    Attributes:
        runtime: name and version, such as `onnxruntime 1.31.1`.
        precision: what most convolutions and matrix products really ran in, read back from the
            runtime: `fp32`, `fp16`, `bf16` or `int8`.
        layers: how many of them ran in each precision.
    """

    runtime: str
    precision: str
    layers: Mapping[str, int]

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 images `(N, H, W, 3)` into probabilities `(N, classes)`."""
        ...


@runtime_checkable
class TimesStretches(Protocol):
    """What a session may offer besides: times of stretches inside a call, which a clock around the call cannot tell."""

    def time_stretches(self, images: NDArray[np.uint8], *, calls: int) -> Mapping[str, tuple[float, ...]]:
        """Run images `(N, H, W, 3)` so often; returns seconds per call by what a stretch begins and ends with.

        Such as `GPU: the network alone, between events`: a short name, a colon, the rest.
        """
        ...


class Target(Protocol):
    """A runtime on a device, such as ONNX Runtime on the CPU; `runtime` is its name and version."""

    runtime: str

    def precisions(self) -> tuple[str, ...]:
        """Return the precisions that it can run on this machine."""
        ...

    def build(self, model: Path, folder: Path) -> Path:
        """Make in `folder` what it opens fastest from an ONNX file; returns that, or the ONNX file itself."""
        ...

    def open(self, model: Path, *, threads: int, precision: str | None = None) -> Session:
        """Open a model file; without `precision`, in the one that the file is in, never silently in another.

        Raises `TargetUnavailableError`, `ArtifactError`, or `UsageError` for a precision it cannot run. May
        crash the process or hang: `runtime.inference.open_safely` is for those who cannot have that.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """A torch model that was finetuned for 8 bits, and how."""

    model: Any
    finetuning: Finetuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a file is judged by on validation, and what one of 8 bits takes its ranges from.

    Attributes:
        images: validation images `(n, H, W, 3)`, with their `labels` (class numbers, or marks of all classes),
            `patients`, and the torch model's `probabilities` `(n, classes)`, calibrated.
        calibration: training images `(m, H, W, 3)`, described by `calibrated_on`; none where nothing is quantised.
        gate: what a lower precision must keep.
        progress: called with the name of a stage, the units done and the units in all.
        finetune: finetunes the torch model for 8 bits, where no other way holds the gate; None to do without.
    """

    images: NDArray[np.uint8]
    labels: Sequence[Label]
    patients: Sequence[str]
    probabilities: NDArray[np.float32]
    gate: Gate
    calibration: NDArray[np.uint8]
    calibrated_on: CalibrationImages
    progress: Progress = lambda stage, done, total: None
    finetune: Callable[[], Finetuned] | None = None


class Format(Protocol):
    """A file format of artifacts, and the precisions that it knows."""

    precisions: tuple[Precision, ...]

    def export(
        self,
        model: Any,
        manifest: ArtifactManifest,
        folder: Path,
        *,
        images: NDArray[np.uint8],
        references: tuple[Sequence[str], NDArray[np.float32]],
        proof: Proof | None = None,
    ) -> ArtifactManifest:
        """Export a torch model, normalised `(N, 3, H, W)` to logits, and publish it in `folder` if checks pass.

        In the precision that the manifest asks for; below fp32 that takes a `proof`. `images` are real ones
        `(n, H, W, 3)` to check with; `references` are content hashes and the torch
        model's probabilities for them, to verify with later. Raises `GateError` and publishes nothing otherwise.
        """
        ...
