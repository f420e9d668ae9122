"""The way of every artifact: make, check, describe, check again, publish whole or not at all."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ttl_deploy.errors import GateError, UsageError
from ttl_deploy.export.description import describe_input, describe_inside
from ttl_deploy.export.golden import Golden, golden_images, set_limits
from ttl_deploy.export.graph import CURRENT, INPUT, MAX_BATCH, OUTPUT, GraphVersion
from ttl_deploy.export.model_card import render_model_card
from ttl_deploy.export.onnx_writer import Deployable, make_deployable, write_onnx, write_onnx_before
from ttl_deploy.export.publishing import check_arguments, describe_file, put_in_place, staged, write_arrays
from ttl_deploy.export.rescoring import rescore
from ttl_deploy.files import make_folder, publish_text
from ttl_deploy.plugins import Proof
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import ArtifactManifest, FileFormat, Gate, Parity, Precision, Quantisation
from ttl_deploy.records.quantisation import Finetuning
from ttl_deploy.records.refusals import Measured
from ttl_deploy.runtime.artifact import (
    FILES,
    GOLDEN,
    MANIFEST,
    MODEL_CARD,
    PARITY,
    REFERENCE,
    Artifact,
    default_target,
    open_artifact,
    precision_to_ask,
)
from ttl_deploy.runtime.parity import Answered, Truth, answer, compare, why_undefined

REFERENCE_TARGET = "onnxruntime-cpu"
_GATE_BATCH = 16
_SMALL_BATCH_IMAGES = 4
_TIMEOUT_S = 1800.0
_CONSTANT_BELOW = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """A checked ONNX file in single precision, with the torch model in it, and how it did; `golden` is what that says.

    `finetuning` is how the model was finetuned for 8 bits, where it was.
    """

    path: Path
    deployable: Deployable
    golden: Golden
    parity: Parity
    finetuning: Finetuning | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A model that was made, its first file; below fp32 also how it did on validation, and how it was quantised.

    `finetuned` is the model that it was made from where that is not the given one.
    """

    model: Path
    parity: Parity | None = None
    quantisation: Quantisation | None = None
    finetuned: Single | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What a format makes its file from: the checked ONNX file in single precision, and how to judge another.

    `images` `(n, H, W, 3)` are the real validation images that the file in single precision was checked with. `write`
    writes and checks another model in the same way.
    """

    source: Path
    manifest: ArtifactManifest
    proof: Proof | None
    images: NDArray[np.uint8]
    write: Callable[[nn.Module, Path], Single]

    @property
    def precision(self) -> Precision:
        """What is to be made."""
        return self.manifest.precision

    @property
    def checked_proof(self) -> Proof:
        """The proof; raises `UsageError` where there is none, which a lower precision needs."""
        return _require_proof(self.proof, self.precision)

    def judge(self, model: Path) -> Parity:
        """Run a file over the proof's validation images, in a child process, and compare it with the torch model."""
        proof = self.checked_proof
        proof.progress(f"checking {self.precision} on {len(proof.images)} validation images", 0, 1)
        answered = run_file(model, self.manifest, proof.images)
        return _compare_with_truth(answered, self.manifest, proof, gate=proof.gate)

    @property
    def finetune(self) -> Callable[[], Single] | None:
        """What finetunes the model for 8 bits, and writes and checks it as the given one was; None if not wanted."""
        finetune = self.checked_proof.finetune
        if finetune is None:
            return None

        def write_finetuned() -> Single:
            finetuned = finetune()
            single = self.write(finetuned.model, self.source.with_name("finetuned.onnx"))
            return replace(single, finetuning=finetuned.finetuning)

        return write_finetuned


def export_artifact(
    model: nn.Module,
    manifest: ArtifactManifest,
    folder: Path,
    *,
    images: NDArray[np.uint8],
    references: tuple[Sequence[str], NDArray[np.float32]],
    proof: Proof | None,
    limit: float,
    format_name: FileFormat,
    make: Callable[[Writing], Made],
    stamp: Callable[[Path, Path, dict[str, str]], None],
    version: GraphVersion = CURRENT,
    complete: Callable[[Artifact], str] = lambda artifact: "",
) -> ArtifactManifest:
    """Export a model as a format makes and stamps it; the rest as of the formats' `export`.

    `complete` is given the finished artifact before it is published, may put more files into its folder, and returns
    what the model card says of them.
    """
    check_arguments(manifest, folder, images=images, references=references)
    filled = _fill(manifest, format_name, version)
    _check_proof(filled, proof)
    with staged(folder) as stage:
        work = make_folder(stage / "work")
        write = partial(_write_single, manifest=filled, version=version, images=images, limit=limit)
        single = write(model, work / "single.onnx")
        made = make(Writing(source=single.path, manifest=filled, proof=proof, images=images, write=write))
        if filled.precision == "fp32" and made.model != single.path:
            golden = single.golden
            checked = _check_single(made.model, single.deployable, filled, images=images, golden=golden, limit=limit)
            single = replace(single, parity=checked)
        finished = _finish(made, filled, stage, stamp, single=made.finetuned or single, proof=proof, limit=limit)
        shutil.rmtree(work)
        write_arrays(
            stage / REFERENCE,
            sha256=np.array(references[0], dtype="U64"),
            probabilities=np.asarray(references[1], dtype=np.float32),
        )
        whole = _describe_folder(finished.manifest, finished.parity, stage, complete)
        put_in_place(stage, folder)
    return whole


def torch_probabilities(deployable: Deployable, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what torch itself, eager and in float32, makes of uint8 images `(N, H, W, 3)`."""
    answers = []
    with torch.inference_mode():
        for start in range(0, len(images), _GATE_BATCH):
            batch = np.ascontiguousarray(images[start : start + _GATE_BATCH])
            answers.append(deployable(torch.from_numpy(batch)).numpy())
    return np.concatenate(answers)


def run_file(
    model: Path, manifest: ArtifactManifest, images: NDArray[np.uint8], *, batch: int = _GATE_BATCH
) -> Answered:
    """Run a file in a child process on the target it is for, in the manifest's precision.

    Raises `GateError` where it cannot run there, or ran in another precision than asked for. Files of 8 and 16 bits
    that are for other runtimes too are let pass in ONNX Runtime, which rounds weights as they say, and mostly computes
    in fp32 in between.
    """
    target = default_target(manifest)
    asked = precision_to_ask(manifest)
    outcome = run_isolated(answer, target, model, images, batch, 1, asked, timeout_s=_TIMEOUT_S)
    answered = value_of(outcome, error=GateError, doing=f"cannot run the exported file on {target}")
    rounds_only = manifest.format in ("onnx", "trt") and target == REFERENCE_TARGET
    if answered.execution.precision != manifest.precision and not rounds_only:
        raise GateError(
            f"{target} ran the file in {answered.execution.precision}, and {manifest.precision} was asked for: "
            "nothing was published"
        )
    return answered


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    manifest: ArtifactManifest
    parity: Parity


def _fill(manifest: ArtifactManifest, format_name: FileFormat, version: GraphVersion) -> ArtifactManifest:
    """Return the manifest with what only the exporter knows."""
    return replace(
        manifest,
        format=format_name,
        input=replace(manifest.input, name=INPUT, max_batch=MAX_BATCH, normalisation=describe_input(manifest.input)),
        output=OUTPUT,
        opset=version.opset,
        ir_version=version.ir_version,
        files=(),
    )


def _write_single(
    model: nn.Module,
    path: Path,
    *,
    manifest: ArtifactManifest,
    version: GraphVersion,
    images: NDArray[np.uint8],
    limit: float,
) -> Single:
    """Write a model in single precision, and check that the file does what the model does."""
    deployable = make_deployable(
        model,
        mean=manifest.input.mean,
        std=manifest.input.std,
        temperature=manifest.temperature,
        multilabel=manifest.model.multilabel,
    )
    _write_source(deployable, manifest, path, version)
    golden = _ask_torch(deployable, manifest)
    plain = replace(manifest, format="onnx", precision="fp32")
    parity = _check_single(path, deployable, plain, images=images, golden=golden, limit=limit)
    return Single(path=path, deployable=deployable, golden=golden, parity=parity)


def _write_source(deployable: Deployable, manifest: ArtifactManifest, path: Path, version: GraphVersion) -> None:
    write = write_onnx_before if version.legacy else write_onnx
    written = write(deployable, path, image_size=manifest.input.height, metadata={})
    if written.ir_version != version.ir_version:
        raise GateError(
            f"the exporter wrote IR version {written.ir_version}, not {version.ir_version}: nothing was written"
        )


def _ask_torch(deployable: Deployable, manifest: ArtifactManifest) -> Golden:
    images = golden_images(manifest.input.height, manifest.input.width)
    return Golden(images=images, probabilities=torch_probabilities(deployable, images))


def _finish(
    made: Made,
    manifest: ArtifactManifest,
    stage: Path,
    stamp: Callable[[Path, Path, dict[str, str]], None],
    *,
    single: Single,
    proof: Proof | None,
    limit: float,
) -> _Finished:
    """Stamp the file with its whole description, and check that it still says what it said before."""
    golden = single.golden
    before = run_file(made.model, manifest, golden.images, batch=len(golden.images))
    gate = None if made.parity is None else set_limits(made.parity.gate, before.probabilities, golden)
    described = replace(manifest, executed=before.execution, gate=gate, quantisation=made.quantisation)
    if single.finetuning is not None:
        held = _require_proof(proof, manifest.precision)
        described = rescore(described, run_file(made.model, manifest, held.images).probabilities, held)
    path = stage / FILES[manifest.format][0]
    stamp(made.model, path, describe_inside(described))
    after = run_file(path, manifest, golden.images, batch=len(golden.images))
    own = golden.probabilities if gate is None else before.probabilities
    drawn = compare(
        after.probabilities,
        own,
        manifest,
        limit=limit if gate is None else gate.golden_limit,
        reference="",
        count_flips=False,
    )
    if not drawn.passed:
        told = f"the finished file is not the model: {'; '.join(drawn.failures)}; nothing was published"
        raise GateError(told, measured=Measured(parity=drawn))
    own_answers = {} if gate is None else {"file_probabilities": before.probabilities}
    write_arrays(stage / GOLDEN, images=golden.images, probabilities=golden.probabilities, **own_answers)
    if made.parity is not None:
        return _Finished(manifest=described, parity=replace(made.parity, gate=gate))
    parity = _check_finished(path, described, single.parity, proof=proof, limit=limit)
    return _Finished(manifest=described, parity=replace(parity, executed=before.execution))


def _check_finished(
    path: Path, manifest: ArtifactManifest, strict: Parity, *, proof: Proof | None, limit: float
) -> Parity:
    """Compare a file in single precision with the recorded probabilities of labelled images too."""
    if proof is None:
        return strict
    parity = _compare_with_truth(run_file(path, manifest, proof.images), manifest, proof, gate=None, limit=limit)
    if parity.max_difference > limit:
        raise GateError(
            f"the exported file is not the trained model: {'; '.join(parity.failures)} against the probabilities "
            "recorded in training; nothing was published",
            measured=Measured(parity=parity),
        )
    return replace(strict, percentiles=parity.percentiles, sqnr_db=parity.sqnr_db, auroc=parity.auroc)


def _check_proof(manifest: ArtifactManifest, proof: Proof | None) -> None:
    """Refuse at once, before minutes of work, a lower precision that nothing could be said about."""
    if manifest.precision == "fp32":
        return
    given = _require_proof(proof, manifest.precision)
    reason = why_undefined(given.probabilities, _truth_of(given))
    if reason:
        raise GateError(
            f"{manifest.precision} cannot be judged on validation, and was not published: {reason}. "
            "Validate on more patients, or export --precision fp32"
        )


def _require_proof(proof: Proof | None, precision: Precision) -> Proof:
    if proof is None or (precision == "int8" and not len(proof.calibration)):
        raise UsageError(
            f"{precision} needs labelled validation images to be judged by"
            + (", and training images to calibrate with" if precision == "int8" else "")
        )
    return proof


def _truth_of(proof: Proof) -> Truth:
    return Truth(labels=proof.labels, patients=proof.patients, split="val")


def _compare_with_truth(
    answered: Answered, manifest: ArtifactManifest, proof: Proof, *, gate: Gate | None, limit: float = 1.0
) -> Parity:
    return compare(
        answered.probabilities,
        proof.probabilities,
        manifest,
        limit=limit,
        reference=f"the torch model's calibrated probabilities, {len(proof.images)} validation images",
        truth=_truth_of(proof),
        gate=gate,
        executed=answered.execution,
    )


def _describe_folder(
    manifest: ArtifactManifest, parity: Parity, stage: Path, complete: Callable[[Artifact], str]
) -> ArtifactManifest:
    """Write the remaining files, and open the whole as anybody will."""
    codec.save(stage / PARITY, parity)
    # The model card is for people, who may add to it; everything else is pinned by its hash.
    names = (*FILES[manifest.format], REFERENCE, GOLDEN, PARITY)
    whole = replace(manifest, files=tuple(describe_file(stage / name) for name in names))
    codec.save(stage / MANIFEST, whole)
    more = complete(open_artifact(stage))
    publish_text(stage / MODEL_CARD, render_model_card(whole, parity) + more)
    return whole


def _check_single(
    path: Path,
    deployable: Deployable,
    manifest: ArtifactManifest,
    *,
    images: NDArray[np.uint8],
    golden: Golden,
    limit: float,
) -> Parity:
    """Run the file in a child process, one by one and in batches; raises `GateError` unless it does what torch does."""
    expected = torch_probabilities(deployable, images)
    given = run_file(path, manifest, images).probabilities
    singly = run_file(path, manifest, images[:_SMALL_BATCH_IMAGES], batch=1).probabilities
    synthetic = run_file(path, manifest, golden.images, batch=len(golden.images)).probabilities
    if np.ptp(np.concatenate([given, synthetic]), axis=0).max() < _CONSTANT_BELOW:
        raise GateError("the model gives the same answer for every image: train it before you export it")
    real = compare(given, expected, manifest, limit=limit, reference="")
    single = compare(singly, expected[: len(singly)], manifest, limit=limit, reference="")
    drawn = compare(synthetic, golden.probabilities, manifest, limit=limit, reference="", count_flips=False)
    parity = replace(
        real,
        images=real.images + drawn.images,
        max_difference=max(part.max_difference for part in (real, single, drawn)),
        decisions_flipped=max(real.decisions_flipped, single.decisions_flipped),
        reference=f"torch {torch.__version__} eager in fp32 on {real.images} real and {drawn.images} synthetic images",
    )
    if not parity.passed:
        told = f"the exported file is not the model: {'; '.join(parity.failures)}; nothing was published"
        raise GateError(told, measured=Measured(parity=parity))
    return parity
