"""The page for people that lies beside a shipped model."""

from ttl_deploy.records.artifacts import ArtifactManifest, Parity
from ttl_deploy.records.data import DataFingerprint
from ttl_deploy.records.scores import Score


def render_model_card(manifest: ArtifactManifest, parity: Parity) -> str:
    """Render `model_card.md`: what the model is, how good, on what, how to use it, and its limits."""
    sections = [
        f"# {manifest.name}",
        _what(manifest),
        f"## Intended use\n\n{manifest.intended_use}",
        f"## Scores\n\n{_scores(manifest.scores)}",
        f"## Data\n\n{_data(manifest.data)}",
        f"## Costs\n\n{manifest.params:,} parameters, {manifest.macs:,} multiply-accumulates per image. "
        "Latency depends on the machine: measure it with `ttl-deploy bench` on yours.",
        f"## Use\n\n{_use(manifest)}",
        f"## Checked before publication\n\n{_parity(parity)}",
        f"## Limits\n\n{_LIMITS}",
        f"## Origin\n\n{_origin(manifest)}",
    ]
    return "\n\n".join(sections) + "\n"


_LIMITS = "\n".join(
    f"- {limit}"
    for limit in (
        "Not a medical device. Not for clinical use without validation on the patients and devices it would meet.",
        "The scores hold for data like those above; other scanners, ages or disease rates can change them unseen.",
        "The probabilities are softmax outputs and were not calibrated.",
        "Any image gets an answer, also one that is no radiograph: check the input before you ask.",
        "No patient's image is in this folder. `golden.npz` holds images drawn by code; `reference.npz` holds only "
        "content hashes of the images used and the model's probabilities for them.",
    )
)


def _what(manifest: ArtifactManifest) -> str:
    classes = ", ".join(f"{i} = {_plain(name)}" for i, name in enumerate(manifest.classes))
    rule = (
        "the class with the highest probability"
        if manifest.decision == "argmax"
        else f"class 1 from a probability of {manifest.threshold} on, else class 0"
    )
    return (
        f"A classifier of medical images: the backbone `{manifest.model.backbone}`, cut at `{manifest.model.cut}`, "
        f"with a new head, trained by `{manifest.strategy}` (seed {manifest.seed}) and exported as ONNX "
        f"in {manifest.precision}.\n\n"
        f"Classes: {classes}. Decision: {rule}."
    )


def _scores(scores: tuple[Score, ...]) -> str:
    if not scores:
        return "None were recorded."
    head = "| metric | split | value | interval | images | patients |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(map(_score_row, scores)) + f"\n\nIntervals: {scores[0].method}"


def _score_row(score: Score) -> str:
    value = f"{score.value:.3f}" if score.value is not None else f"undefined ({_plain(score.reason)})"
    known = score.low is not None and score.high is not None
    interval = f"{score.low:.3f} to {score.high:.3f} ({score.level:.0%})" if known else "none"
    return f"| {score.metric} | {score.split} | {value} | {interval} | {score.images} | {score.patients} |"


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
import numpy as np, onnxruntime
from PIL import Image, ImageOps
{_resize_code(fit, size)}
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
image = fit(Image.open("image.png").convert("RGB"))
batch = np.asarray(image, dtype=np.uint8)[None]
probabilities = session.run(["{manifest.output}"], {{"{manifest.input.name}": batch}})[0][0]
print(dict(zip({list(manifest.classes)!r}, probabilities.tolist())))
```

`ttl-deploy predict` does the same from files, with the exact pixel rules of training (16-bit images, orientation)."""


def _resize_code(fit: str, size: int) -> str:
    calls = {
        "pad": f"ImageOps.pad(im, ({size}, {size}), Image.Resampling.BICUBIC)",
        "stretch": f"im.resize(({size}, {size}), Image.Resampling.BICUBIC)",
        "crop": f"ImageOps.fit(im, ({size}, {size}), Image.Resampling.BICUBIC)",
    }
    return f"fit = lambda im: {calls[fit]}"


def _parity(parity: Parity) -> str:
    return (
        f"Against {parity.reference}: {parity.images} images, largest difference in probability "
        f"{parity.max_difference:.2g} (allowed {parity.limit:g}), {parity.decisions_flipped} decisions changed."
    )


def _origin(manifest: ArtifactManifest) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    return (
        f"Made {manifest.created}. Weights `{manifest.weights_sha256[:16]}`"
        f"{f' ({_plain(manifest.weights_note)})' if manifest.weights_note else ''}. "
        f"ONNX opset {manifest.opset}, IR {manifest.ir_version}. Made with {versions}."
    )


def _plain(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
