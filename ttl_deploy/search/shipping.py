"""From the choice to an artifact: rebuild the chosen trial's model, describe it, let a format export it."""

import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import __version__, plugins
from ttl_deploy.data.cache import PixelCache, open_cache
from ttl_deploy.data.manifest_files import fingerprint, load_manifest
from ttl_deploy.errors import NoRunError, UnknownNameError, UsageError
from ttl_deploy.evidence import operating_point
from ttl_deploy.models import truncation, weights
from ttl_deploy.plugins import Progress, Proof
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import MAX_DROP, PRECISIONS, ArtifactManifest, Gate, InputSpec, Precision
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.data import Manifest, Split
from ttl_deploy.records.engines import EngineRequest
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.refusals import Asked
from ttl_deploy.records.scores import Choice, Comparison, FrontPoint
from ttl_deploy.records.trials import Trial, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.extras import installed_version
from ttl_deploy.search import calibrating, findings, proving, qat, refusing
from ttl_deploy.search.calibrating import Settled
from ttl_deploy.search.findings import Found
from ttl_deploy.training.loop import WEIGHTS

CHECK_IMAGES = 128
"""How many validation images the exported file is compared on with torch, before it is published."""
_OPTIONAL = ("openvino", "nncf", "tensorrt", "tensorrt-rtx")
INTENDED_USE = "Research. Not for clinical use without validation on the data of the site that uses it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """An artifact that was published: its folder and manifest; `note` says what was taken without being named."""

    folder: Path
    manifest: ArtifactManifest
    note: str = ""


def ship(
    run: RunFolder,
    *,
    format_name: str = "onnx",
    precision: str = "fp32",
    max_drop: float = MAX_DROP,
    qat_epochs: int = 0,
    cut: str | None = None,
    strategy: str | None = None,
    seed: int | None = None,
    operating_rule: str = "argmax",
    calibrate: bool = True,
    engine: EngineRequest | None = None,
    jetpack5: bool = False,
    command: str = "",
    progress: Progress = lambda stage, done, total: None,
) -> Shipped:
    """Export the chosen model of a run, or that of another trained candidate, and publish it if it passes its checks.

    Without a `cut` it is the chosen one, without a `strategy` the one that did best at the named cut. `operating_rule`
    is how the file decides, as `operating_point.parse_rule` reads it. Temperature and threshold are fitted on
    validation alone. `max_drop` is the loss of AUROC that a precision below fp32 must exclude. Where no file of 8 bits
    does, the model is finetuned for them for `qat_epochs` epochs, unless these are 0. `engine` is what the format `trt`
    builds, and with `jetpack5` its graph is one that JetPack 5 reads. Raises `UnknownNameError` for a format,
    precision, cut, strategy, seed or rule that is not there, `UsageError` for a precision that the format does not
    know, what `choose_operating_point` raises, and `GateError`, publishing nothing, where the file does not do what the
    model does. Such a refusal leaves a record in the run, with the `command` that was typed.
    """
    rule = operating_point.parse_rule(operating_rule)
    plan = _Plan(
        exporter=_exporter(format_name, engine, jetpack5=jetpack5, progress=progress),
        format_name=format_name,
        precision=_parse_precision(precision),
        gate=_parse_gate(max_drop),
        qat_epochs=qat_epochs,
        variant=_variant(engine, jetpack5=jetpack5),
    )
    plan.check()
    found = findings.read(run)
    if cut is None and found.choice is None:
        raise NoRunError(f"{run.path} is not finished, so nothing is chosen yet: resume it, or name a --cut")
    wanted, note = find_candidate(found, cut, strategy)
    point = found.front.point_of(*wanted)
    keys = findings.finished(findings.outcomes_so_far(run))[wanted]
    if seed is None:
        seed = found.choice.seed if found.choice and found.choice.candidate == wanted else _best_seed(point)
    if seed not in keys:
        raise UnknownNameError("trained seed", str(seed), map(str, keys))
    compared = found.front.compared(point.name)
    asked = plan.ask(run, point, seed, rule=operating_rule, calibrate=calibrate)
    with refusing.recorded(run, asked, command):
        settled = _settle(run, keys[seed], rule=rule, calibrate=calibrate)
        return replace(_export(run, plan, point, compared, keys[seed], settled, progress), note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What kind of file is made, and what it must keep."""

    exporter: plugins.Format
    format_name: str
    precision: Precision
    gate: Gate
    qat_epochs: int
    variant: str = ""

    def check(self) -> None:
        """Refuse a precision that the format does not know, before anything is computed."""
        if self.qat_epochs < 0 or (self.qat_epochs and self.precision != "int8"):
            raise UsageError(
                f"--qat-epochs {self.qat_epochs} with --precision {self.precision}: finetuning is for int8, and "
                "takes 1 epoch or more (0 does without)"
            )
        if self.precision not in self.exporter.precisions:
            known = " or ".join(self.exporter.precisions)
            told = f"--format {self.format_name} --precision {self.precision}: {self.format_name} can be {known}"
            other = {"bf16": "openvino", "fp16": "trt"}.get(self.precision)
            raise UsageError(told + (f"; for {self.precision} choose --format {other}" if other else ""))

    def folder(self, exports: Path) -> Path:
        """Return the artifact's folder: `exports` itself for ONNX in single precision, one beside it for all else."""
        if (self.format_name, self.precision) == ("onnx", "fp32"):
            return exports
        return exports.with_name(f"{exports.name}-{self.variant or self.format_name}-{self.precision}")

    def ask(self, run: RunFolder, point: FrontPoint, seed: int, *, rule: str, calibrate: bool) -> Asked:
        """Describe what is asked for, as a refusal would record it."""
        return Asked(
            artifact=_name(run.settings().backbone, self.folder(run.export(point.candidate))),
            format=self.format_name,
            precision=self.precision,
            cut=point.cut,
            strategy=point.strategy,
            seed=seed,
            max_drop=self.gate.max_drop,
            qat_epochs=self.qat_epochs,
            operating_rule=rule,
            calibrate=calibrate,
        )


def _name(backbone: str, folder: Path) -> str:
    """Return an artifact's name."""
    return f"{backbone}-{folder.name}"


def _exporter(format_name: str, engine: EngineRequest | None, *, jetpack5: bool, progress: Progress) -> plugins.Format:
    """Return a format, given the engine that is wanted; only `trt` takes one."""
    kind = plugins.load("formats", format_name)
    if format_name == "trt":
        exporter: plugins.Format = kind(engine, jetpack5=jetpack5, say=lambda stage: progress(stage, 0, 1))
        return exporter
    if engine is not None or jetpack5:
        raise UsageError(f"options of engines, and --target jetpack5, go with --format trt, not {format_name}")
    plain: plugins.Format = kind()
    return plain


def _variant(engine: EngineRequest | None, *, jetpack5: bool) -> str:
    """Name what sets folders of the format `trt` apart: the flavour, or JetPack 5."""
    return "trt-jetpack5" if jetpack5 else "" if engine is None else engine.flavour


def _parse_precision(given: str) -> Precision:
    if given not in PRECISIONS:
        raise UnknownNameError("precision", given, PRECISIONS)
    return given


def _parse_gate(max_drop: float) -> Gate:
    try:
        return Gate(max_drop=max_drop)
    except ValueError as error:
        raise UsageError(f"--max-drop: {error}") from error


def find_candidate(found: Found, cut: str | None, strategy: str | None) -> tuple[Candidate, str]:
    """Return which candidate a cut and a strategy mean, None being not named; and a word on what was taken.

    Raises `UnknownNameError` listing what was trained. A cut is needed where nothing is chosen.
    """
    choice: Choice | None = found.choice
    if cut is None and strategy is None and choice is not None:
        return choice.candidate, ""
    wanted = cut or (choice.cut if choice else "")
    if wanted not in found.front.cuts:
        raise UnknownNameError("trained cut", wanted, found.front.cuts)
    points = {point.strategy: point for point in found.front.points if point.cut == wanted}
    if strategy is not None:
        if strategy not in points:
            raise UnknownNameError("trained strategy", strategy, points, f"The cut was {wanted}.")
        return points[strategy].candidate, ""
    best = max(points.values(), key=_validation_auroc)
    if len(points) == 1:
        return best.candidate, ""
    others = ", ".join(one for one in points if one != best.strategy)
    return (
        best.candidate,
        f"{wanted} by {best.strategy}, which did best there on validation; with --strategy also {others}",
    )


def _validation_auroc(point: FrontPoint) -> float:
    value = next(score.value for score in point.validation if score.metric == "auroc")
    return -1.0 if value is None else value


def _best_seed(point: FrontPoint) -> int:
    scored = zip(point.seeds, point.seed_values, strict=True)
    return max(scored, key=lambda pair: -1.0 if pair[1] is None else pair[1])[0]


def _settle(run: RunFolder, key: str, *, rule: operating_point.Rule, calibrate: bool) -> Settled:
    """Fit temperature and threshold to the trial's stored predictions, which stay as they are."""
    splits = _scored_splits(run, key)
    return calibrating.settle(
        {split: findings.read_probabilities(run, key, split) for split in splits},
        {split: findings.labelled_split(run.data, split) for split in splits},
        rule=rule,
        calibrate=calibrate,
    )


def _export(
    run: RunFolder,
    plan: _Plan,
    point: FrontPoint,
    compared: Comparison | None,
    key: str,
    settled: Settled,
    progress: Progress,
) -> Shipped:
    trial = codec.load(Trial, run.trial(key) / "trial.json")
    result = codec.load(TrialResult, run.trial(key) / "result.json")
    data = load_manifest(run.data)
    model = truncation.build(trial.model)
    weights.load_weights(model, run.trial(key) / WEIGHTS)
    folder = plan.folder(run.export(trial.candidate))
    cache = open_cache(data, replace(run.settings().decode, image_size=trial.model.image_size))
    described = _describe(run, trial, result, point, data, settled, name=_name(trial.model.backbone, folder))
    manifest = plan.exporter.export(
        model.eval(),
        replace(described, precision=plan.precision, comparison=compared),
        folder,
        images=_check_images(cache, data),
        references=_references(settled, data),
        proof=_prove(run, plan, trial, model, data, cache, settled, progress),
    )
    return Shipped(folder=folder, manifest=manifest)


def _prove(
    run: RunFolder,
    plan: _Plan,
    trial: Trial,
    model: truncation.TruncatedModel,
    data: Manifest,
    cache: PixelCache,
    settled: Settled,
    progress: Progress,
) -> Proof:
    """Gather what the file is judged by, with what finetunes the model for 8 bits where that is wanted."""
    proof = proving.gather(
        data, cache, settled.probabilities["val"], precision=plan.precision, gate=plan.gate, progress=progress
    )
    if not plan.qat_epochs:
        return proof
    finetune = qat.plan_finetuning(run, trial, model, data=data, cache=cache, proof=proof, epochs=plan.qat_epochs)
    return replace(proof, finetune=finetune)


def _describe(
    run: RunFolder,
    trial: Trial,
    result: TrialResult,
    point: FrontPoint,
    data: Manifest,
    settled: Settled,
    *,
    name: str,
) -> ArtifactManifest:
    settings, threshold = run.settings(), settled.operating_point.threshold
    spec: ModelSpec = trial.model
    return ArtifactManifest(
        name=name,
        format="onnx",
        precision="fp32",
        model=replace(spec, layers=()),  # what they are stands in the graph
        classes=data.classes,
        decode=replace(settings.decode, image_size=spec.image_size),
        input=InputSpec(
            name="image",
            height=spec.image_size,
            width=spec.image_size,
            mean=trial.input.mean,
            std=trial.input.std,
            max_batch=1,
        ),
        output="probabilities",
        decision="each" if spec.multilabel else "argmax" if threshold is None else "threshold",
        threshold=threshold,
        scores=settled.scores,  # the shipped weights' own; the front's are means over seeds
        params=result.params,
        macs=point.macs,
        data=fingerprint(data),
        strategy=trial.strategy,
        seed=trial.seed,
        weights_sha256=result.weights_sha256,
        weights_note=result.weights_note,
        versions=_versions(),
        opset=0,
        ir_version=0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        intended_use=INTENDED_USE,
        calibration=settled.calibration,
        operating_point=settled.operating_point,
    )


def _scored_splits(run: RunFolder, key: str) -> tuple[Split, ...]:
    opened = (run.trial(key) / "predictions_test.npz").exists()
    return ("val", "test") if opened else ("val",)


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")
    optional = {name: found for name in _OPTIONAL if (found := installed_version(name))}
    own = {"ttl-deploy": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages} | optional


def _check_images(cache: PixelCache, data: Manifest) -> NDArray[np.uint8]:
    """Return validation images `(n, S, S, 3)` spread evenly over the split."""
    positions = np.array(data.of_split("val"))
    spread = np.unique(np.linspace(0, len(positions) - 1, min(CHECK_IMAGES, len(positions))).astype(int))
    return cache.pixels(positions[spread])


def _references(settled: Settled, data: Manifest) -> tuple[list[str], NDArray[np.float32]]:
    """Return content hashes and the calibrated model's probabilities of every held-out image it was scored on."""
    known = settled.probabilities
    hashes = [data.samples[position].sha256 for split in known for position in data.of_split(split)]
    return hashes, np.concatenate(list(known.values()))
