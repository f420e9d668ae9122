"""The formats `onnx`, `ort` and `openvino`: what file is made in which precision, and where it must prove itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from ttl_deploy import plugins
from ttl_deploy.errors import GateError, UsageError
from ttl_deploy.export import openvino_ir, quantisation
from ttl_deploy.export.graph import CURRENT, GraphVersion
from ttl_deploy.export.lowering import Int8Search, Judge, Lowered
from ttl_deploy.export.quantisation import Recipe
from ttl_deploy.export.writer import Made, Writing, export_artifact
from ttl_deploy.plugins import Proof
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.artifacts import ArtifactManifest, FileFormat, Precision
from ttl_deploy.records.refusals import Measured
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.parity import PARITY_LIMIT

_CONVERT_TIMEOUT_S = 600.0
_CONTROL_TIMEOUT_S = 3600.0
_NNCF = "NNCF with accuracy control"


@dataclass(slots=True)
class FileMaker:
    """What all formats share: `name` and `precisions`; `recipes` are how 8 bits are tried."""

    name: FileFormat
    precisions: tuple[Precision, ...]
    recipes: tuple[Recipe, ...]

    def export(
        self,
        model: nn.Module,
        manifest: ArtifactManifest,
        folder: Path,
        *,
        images: NDArray[np.uint8],
        references: tuple[Sequence[str], NDArray[np.float32]],
        proof: Proof | None = None,
        limit: float = PARITY_LIMIT,
    ) -> ArtifactManifest:
        """Export a model, normalised `(N, C, H, W)` to logits `(N, classes)`, as an artifact folder.

        `manifest.input` says how images are normalised: three entries for RGB (C = 3), one for grey (C = 1);
        `manifest.calibration` by which temperature the file divides the logits; `manifest.precision` what to make.
        `images` are real validation images `(n, H, W, 3)`, 64 or more where there are so many, on which the graph in
        single precision must do what torch does, whatever is made from it. `references` are content hashes of source
        images and the torch model's probabilities `(m, classes)` for them, at that temperature. What the format
        knows better than the caller (input and output names, opset, file list) is filled in. The folder is replaced
        whole if it was an artifact; raises `UsageError` if it holds anything else, or for a precision that the format
        does not know, and `GateError`, leaving all as it was, where the file does not do what the model does.
        """
        if manifest.precision not in self.precisions:
            raise UsageError(f"{self.name} can be {' or '.join(self.precisions)}, not {manifest.precision}")
        return export_artifact(
            model,
            manifest,
            folder,
            images=images,
            references=references,
            proof=proof,
            limit=limit,
            format_name=self.name,
            make=self.make,
            stamp=self.stamp,
            version=self.version,
            complete=self.complete,
        )

    @property
    def version(self) -> GraphVersion:
        """The version of ONNX that the graph is written in."""
        return CURRENT

    def complete(self, artifact: Artifact) -> str:
        """Put into a checked but not yet published folder what the format adds; returns it in words for the card."""
        return ""

    def make(self, writing: Writing) -> Made:
        """Make the file, not yet stamped, in the wanted precision."""
        if writing.precision == "fp32":
            return Made(model=self.finish(writing.source))
        lowered = self._lower(writing)
        return Made(
            model=lowered.model,
            parity=lowered.parity,
            quantisation=lowered.quantisation,
            finetuned=lowered.finetuned,
        )

    def finish(self, model: Path) -> Path:
        """Turn an ONNX file into the format's own; returns its first file."""
        return model

    def stamp(self, model: Path, path: Path, metadata: dict[str, str]) -> None:
        """Write the model with its metadata to `path`."""
        content = onnx.load(model)
        onnx.helper.set_model_props(content, metadata)
        path.write_bytes(content.SerializeToString())

    def _lower(self, writing: Writing) -> Lowered:
        return self._search(writing, writing.judge, writing.checked_proof).run()

    def _search(self, writing: Writing, judge: Judge, proof: Proof) -> Int8Search:
        return Int8Search(
            source=writing.source,
            work=writing.source.parent,
            recipes=self.recipes,
            proof=proof,
            finish=self.finish,
            judge=judge,
            finetune=writing.finetune,
        )


class OnnxFormat(FileMaker):
    """One ONNX file that any runtime reads; in 8 bits the one that OpenVINO and TensorRT share."""

    def __init__(self) -> None:
        super().__init__("onnx", ("fp32", "int8"), (quantisation.SHARED,))


class OrtFormat(FileMaker):
    """An ONNX file for ONNX Runtime's CPU kernels: in 8 bits with unsigned activations."""

    def __init__(self) -> None:
        super().__init__("ort", ("fp32", "int8"), (quantisation.CPU_FULL, quantisation.CPU))


class OpenvinoFormat(FileMaker):
    """OpenVINO's own pair of files; bf16 is computed from weights in single precision."""

    def __init__(self) -> None:
        super().__init__("openvino", ("fp32", "bf16", "int8"), (quantisation.SHARED,))
        plugins.import_part("openvino", need="format 'openvino'")

    def make(self, writing: Writing) -> Made:
        """Convert the file; for bf16 that must hold its gate too."""
        if writing.precision != "bf16":
            return super().make(writing)
        return judged(writing, self.finish(writing.source))

    def finish(self, model: Path) -> Path:
        """Convert an ONNX file, in a child process."""
        path = model.with_suffix(".xml")
        done = run_isolated(openvino_ir.convert, model, path, timeout_s=_CONVERT_TIMEOUT_S)
        value_of(done, error=GateError, doing="OpenVINO cannot convert the model")
        return path

    def stamp(self, model: Path, path: Path, metadata: dict[str, str]) -> None:
        """Write both files, the metadata among the model's own runtime information."""
        done = run_isolated(openvino_ir.stamp, model, path, metadata, timeout_s=_CONVERT_TIMEOUT_S)
        value_of(done, error=GateError, doing="OpenVINO cannot write the model")

    def _search(self, writing: Writing, judge: Judge, proof: Proof) -> Int8Search:
        search = super()._search(writing, judge, proof)
        search.last_resort, search.last_name = lambda source: _control(source, proof), _NNCF
        return search


def judged(writing: Writing, model: Path) -> Made:
    """Return a file of 16 bits with how it did on validation; raises `GateError` where it does not hold the gate."""
    parity = writing.judge(model)
    if not parity.passed:
        raise GateError(
            f"{writing.precision} does not hold the gate: {'; '.join(parity.failures)}; nothing was published. "
            "Export --precision fp32, or allow more with --max-drop",
            measured=Measured(parity=parity),
        )
    return Made(model=model, parity=parity)


def _control(source: Path, proof: Proof) -> Path:
    plugins.import_part("nncf", need="quantisation with accuracy control")
    path = source.with_name("nncf.xml")
    done = run_isolated(
        openvino_ir.quantise_with_control, source, path, proof.calibration, timeout_s=_CONTROL_TIMEOUT_S
    )
    value_of(done, error=GateError, doing="NNCF cannot quantise the model")
    return path
