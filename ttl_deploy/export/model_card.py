"""The page for people that lies beside a shipped model."""

from ttl_deploy.evidence.metrics import METRIC_WORDS
from ttl_deploy.export.card_header import LICENSE, render_header
from ttl_deploy.records.artifacts import SHIFTED, ArtifactManifest, Calibration, CalibrationEffect, Parity
from ttl_deploy.records.data import DataFingerprint
from ttl_deploy.records.models import FULL
from ttl_deploy.records.scores import Score
from ttl_deploy.runtime.artifact import FILES
from ttl_deploy.runtime.precision_words import describe_attempt, describe_parity, describe_precision


def render_model_card(manifest: ArtifactManifest, parity: Parity) -> str:
    """Render `model_card.md`: a header for catalogues, then what the model is, how good, how to use it, its limits."""
    sections = [
        render_header(manifest),
        f"# {manifest.name}",
        _what(manifest),
        f"## Intended use\n\n{manifest.intended_use}",
        f"## Scores\n\n{_finetuned(manifest)}{_scores(_apart_from_decisions(manifest))}",
        f"## Beside the full network\n\n{_comparison(manifest)}",
        f"## Calibration\n\n{_calibration(manifest.calibration)}",
        f"## Operating point\n\n{_operating_point(manifest)}",
        f"## Data\n\n{_data(manifest.data)}",
        f"## Costs\n\n{manifest.params:,} parameters, {manifest.macs:,} multiply-accumulates per image. "
        "Latency depends on the machine: measure it with `ttl-deploy bench` on yours.",
        f"## Precision\n\n{_precision(manifest)}",
        f"## Use\n\n{_use(manifest)}",
        f"## Checked before publication\n\n{_parity(parity)}",
        f"## Limits\n\n{_limits(manifest)}",
        f"## License\n\n{LICENSE}",
        f"## Origin\n\n{_origin(manifest)}",
    ]
    return "\n\n".join(sections) + "\n"


def _limits(manifest: ArtifactManifest) -> str:
    calibrated = (
        "The probabilities are the network's own and were not calibrated."
        if manifest.temperature == 1
        else "The probabilities were calibrated on data like those above; where a class is rarer or more frequent than "
        "there, they are too high or too low, and a threshold may no longer fit."
    )
    limits = (
        "Not a medical device. Not for clinical use without validation on the patients and devices it would meet.",
        "The scores hold for data like those above; other scanners, ages or disease rates can change them unseen.",
        calibrated,
        "Any image gets an answer, also one of something else altogether: check the input before you ask.",
        "No patient's image is in this folder. `golden.npz` holds images drawn by code; `reference.npz` holds only "
        "content hashes of the images used and the model's probabilities for them.",
    )
    return "\n".join(f"- {limit}" for limit in limits)


def _what(manifest: ArtifactManifest) -> str:
    classes = ", ".join(f"{i} = {_plain(name)}" for i, name in enumerate(manifest.classes))
    rules = {
        "argmax": "the class with the highest probability",
        "each": "an image can have several classes, or none; each is taken as present from a probability of 0.5 on",
        "threshold": f"class 1 from a probability of {manifest.threshold or 0:.9g} on, else class 0",
    }
    return (
        f"A classifier of medical images: the backbone `{manifest.model.backbone}`, cut at `{manifest.model.cut}`, "
        f"with a new head, trained by `{manifest.strategy}` (seed {manifest.seed})"
        f"{', finetuned for 8 bits' if _is_finetuned(manifest) else ''} and exported as "
        f"{_FORMATS[manifest.format]} in {manifest.precision}.\n\n"
        f"Classes: {classes}. Decision: {rules[manifest.decision]}."
    )


def _apart_from_decisions(manifest: ArtifactManifest) -> tuple[Score, ...]:
    """Return the scores that have no place of their own further down."""
    shown = manifest.operating_point.scores if manifest.operating_point else ()
    return tuple(score for score in manifest.scores if score not in shown)


def _finetuned(manifest: ArtifactManifest) -> str:
    """Say, where the weights were finetuned for 8 bits, what is said of the file and what of the model before."""
    if not _is_finetuned(manifest):
        return ""
    return (
        "The weights were finetuned for 8 bits, and are no longer exactly those that were trained: see Precision. "
        "These scores are of this file on validation, by which it was also judged, so they are a little too good. On "
        "test it was not scored: do that with `ttl-deploy verify`. What is said below of the full network, of "
        "calibration and of how the operating point was chosen is of the trained model before the finetuning.\n\n"
    )


def _is_finetuned(manifest: ArtifactManifest) -> bool:
    return manifest.quantisation is not None and manifest.quantisation.finetuning is not None


def _scores(scores: tuple[Score, ...]) -> str:
    if not scores:
        return "None were recorded."
    head = "| metric | split | value | interval | images | patients |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(map(_score_row, scores)) + f"\n\nIntervals: {scores[0].method}"


def _comparison(manifest: ArtifactManifest) -> str:
    """Say whether this cut is shown to be as good as the full network: never more than the test said."""
    comparison = manifest.comparison
    if manifest.model.cut == FULL:
        return "This is the full network."
    if comparison is None:
        return "It was not tested whether this cut is as good as the full network."
    (found,) = comparison.verdicts
    beside = "to" if found.verdict in ("non-inferior", "inferior") else "against"
    said = (
        f"On the {comparison.split} split ({comparison.patients} patients), at a margin of {comparison.margin:g} in "
        f"AUROC: **{found.verdict}** {beside} {_plain(comparison.reference)}; {found.reason}."
    )
    gap = found.difference
    if gap is None:
        return said
    return (
        f"{said} Difference {gap.value:+z.3f} [{gap.low:+z.3f}, {gap.high:+z.3f}] ({100 * gap.level:g} % interval, "
        "paired by patient, means over the trained seeds)."
    )


def _score_row(score: Score) -> str:
    value = f"{score.value:.3f}" if score.value is not None else f"undefined ({_plain(score.reason)})"
    known = score.low is not None and score.high is not None
    interval = f"{score.low:.3f} to {score.high:.3f} ({score.level:.0%})" if known else "none"
    return (
        f"| {METRIC_WORDS[score.metric]} | {score.split} | {value} | {interval} | {score.images} | {score.patients} |"
    )


def _interval(score: Score | None) -> str:
    if score is None or score.value is None:
        return "not scored"
    known = score.low is not None and score.high is not None
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})" if known else f"{score.value:.3f}"


def _calibration(calibration: Calibration | None) -> str:
    if calibration is None:
        return "Not calibrated: the probabilities are those that the network gives."
    on = f"{calibration.images} validation images of {calibration.patients} patients"
    told = (
        f"Not calibrated, though it was tried on {on}: {_plain(calibration.note)}."
        if calibration.note
        else f"Logits are divided by the temperature {calibration.temperature:.4g} inside the file (Guo et al. 2017), "
        f"fitted on {on} and on nothing else."
    )
    head = (
        "| split | images | negative log-likelihood before | after | calibration error before | after |\n"
        "|---|---|---|---|---|---|\n"
    )
    rows = "\n".join(map(_effect_row, calibration.effects))
    closing = "Validation is too good after the fit, because the fit was made there; test is not."
    return f"{told}\n\n{head}{rows}\n\n{closing}" + (f" {SHIFTED}" if calibration.missed else "")


def _effect_row(effect: CalibrationEffect) -> str:
    errors = " | ".join(_interval(error) for error in (effect.error_before, effect.error_after))
    return f"| {effect.split} | {effect.images} | {effect.nll_before:.4f} | {effect.nll_after:.4f} | {errors} |"


def _operating_point(manifest: ArtifactManifest) -> str:
    point = manifest.operating_point
    if point is None:
        return "None was recorded."
    told = point.sentence
    if point.threshold is not None:
        bounds = "none" if point.low is None or point.high is None else f"{point.low:.4g} to {point.high:.4g}"
        told += (
            f" Class 1, {_plain(manifest.classes[1])}, from the probability {point.threshold:.9g} on "
            f"({point.level:.0%} interval: {bounds}; {point.method}). Chosen on {point.images} images of "
            f"{point.patients} patients of the {point.split} split, where the scores are therefore too good; "
            "those of test are not."
        )
    return f"{told}\n\n{_scores(point.scores)}" if point.scores else told


def _data(data: DataFingerprint) -> str:
    rows = [
        f"| {count.split} | {count.images} | {count.patients} | "
        + ", ".join(f"{_plain(name)} {n}" for name, n in zip(data.classes, count.per_class, strict=True))
        + " |"
        for count in data.counts
    ]
    patients = "" if data.patients_known else " Patients are unknown: every distinct image counts as one."
    return (
        f"`{_plain(data.name)}`, fingerprint `{data.sha256[:16]}`.{patients}\n\n"
        "| split | images | patients | per class |\n|---|---|---|---|\n" + "\n".join(rows)
    )


def _use(manifest: ArtifactManifest) -> str:
    size, fit = manifest.decode.image_size, manifest.decode.fit
    shape = f"(batch, {manifest.input.height}, {manifest.input.width}, 3)"
    return f"""The file takes uint8 RGB images `{shape}`, normalises them itself, and gives
probabilities `(batch, {len(manifest.classes)})`. Its
normalisation is {manifest.input.normalisation}. Images are brought to size with Pillow, bicubic, `{fit}`:

```python
import numpy as np, {_MODULES[manifest.format]}
from PIL import Image, ImageOps
{_resize_code(fit, size)}
{_open_code(manifest)}
image = fit(Image.open("image.png").convert("RGB"))
batch = np.asarray(image, dtype=np.uint8)[None]
{_run_code(manifest)}
print(dict(zip({list(manifest.classes)!r}, probabilities.tolist())))
```

`ttl-deploy predict` does the same from files, with the exact pixel rules of training (16-bit images and DICOM, whose
greys are mapped by `{manifest.decode.grey}`; orientation)."""


_FORMATS = {
    "onnx": "ONNX",
    "ort": "ONNX for ONNX Runtime's CPU kernels",
    "openvino": "OpenVINO IR",
    "trt": "ONNX for TensorRT",
}
_MODULES = {"onnx": "onnxruntime", "ort": "onnxruntime", "openvino": "openvino", "trt": "onnxruntime"}


def _open_code(manifest: ArtifactManifest) -> str:
    name = FILES[manifest.format][0]
    if manifest.format != "openvino":
        return f'session = onnxruntime.InferenceSession("{name}", providers=["CPUExecutionProvider"])'
    hint = "bf16" if manifest.precision == "bf16" else "f32"
    return f'model = openvino.compile_model("{name}", "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})'


def _run_code(manifest: ArtifactManifest) -> str:
    if manifest.format != "openvino":
        return f'probabilities = session.run(["{manifest.output}"], {{"{manifest.input.name}": batch}})[0][0]'
    return f'probabilities = model({{"{manifest.input.name}": batch}})["{manifest.output}"][0]'


def _resize_code(fit: str, size: int) -> str:
    calls = {
        "pad": f"ImageOps.pad(im, ({size}, {size}), Image.Resampling.BICUBIC)",
        "stretch": f"im.resize(({size}, {size}), Image.Resampling.BICUBIC)",
        "crop": f"ImageOps.fit(im, ({size}, {size}), Image.Resampling.BICUBIC)",
    }
    return f"fit = lambda im: {calls[fit]}"


def _parity(parity: Parity) -> str:
    lines = "\n".join(f"- {line}" for line in describe_parity(parity))
    return f"Against {parity.reference}, {parity.images} images:\n\n{lines}"


def _precision(manifest: ArtifactManifest) -> str:
    told = ". ".join(_plain(line) for line in describe_precision(manifest))
    if manifest.precision == "bf16":
        told += ". The weights in the file are fp32: ask the runtime for bf16, as `ttl-deploy predict` does"
    tries = manifest.quantisation.attempts if manifest.quantisation else ()
    rows = "".join(f"\n- {_plain(describe_attempt(attempt))}" for attempt in tries)
    return f"{told}." + (f"\n\nTried, in this order:\n{rows}" if rows else "")


def _origin(manifest: ArtifactManifest) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    return (
        f"Made {manifest.created}. {'Weights before finetuning' if _is_finetuned(manifest) else 'Weights'} "
        f"`{manifest.weights_sha256[:16]}`"
        f"{f' ({_plain(manifest.weights_note)})' if manifest.weights_note else ''}. "
        f"ONNX opset {manifest.opset}, IR {manifest.ir_version}. Made with {versions}."
    )


def _plain(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
