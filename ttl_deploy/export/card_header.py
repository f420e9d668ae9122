"""The YAML in front of a model card, as https://huggingface.co/docs/hub/model-cards asks for it.

Every text is written as a double-quoted YAML scalar with all that is not printable escaped, so that no name of a
class or a data set can become anything but a text.
"""

from collections.abc import Iterator

from ttl_deploy.evidence.metrics import METRIC_WORDS
from ttl_deploy.records.artifacts import ArtifactManifest
from ttl_deploy.records.scores import Score

_LIBRARIES = {"onnx": "onnx", "ort": "onnx", "openvino": "openvino", "trt": "tensorrt"}
_METRICS = {"auroc": "roc_auc", "accuracy": "accuracy", "f1": "f1", "brier": "brier_score"}
"""Our metrics by the names that the hub knows; the others keep ours."""
LICENSE = (
    "None is stated here: what may be done with the weights depends on the licences of the images they were trained "
    "on and of the weights they began with. Whoever publishes this file adds `license:` to the header."
)


def render_header(manifest: ArtifactManifest) -> str:
    """Render the header between its two lines of dashes; scores that are undefined are left out."""
    return "\n".join(("---", *_lines(manifest), "---"))


def _lines(manifest: ArtifactManifest) -> Iterator[str]:
    yield "# license: not stated by the program, see the section License; add the one that applies"
    yield f"library_name: {quote(_LIBRARIES[manifest.format])}"
    yield "pipeline_tag: image-classification"
    if base := _base_model(manifest):
        yield f"base_model: {quote(base)}"
    yield "tags:"
    backbone = manifest.model.backbone.partition("?")[0]
    for tag in ("ttl-deploy", "medical", "image-classification", manifest.format, manifest.precision, backbone):
        yield f"- {quote(tag)}"
    scores = [score for score in manifest.scores if score.value is not None]
    if not scores:
        return
    yield "metrics:"
    yield from (f"- {quote(name)}" for name in dict.fromkeys(_metric(score) for score in scores))
    yield "model-index:"
    yield f"- name: {quote(manifest.name)}"
    yield "  results:"
    for split in dict.fromkeys(score.split for score in scores):
        yield from _result(manifest, split, [score for score in scores if score.split == split])


def _result(manifest: ArtifactManifest, split: str, scores: list[Score]) -> Iterator[str]:
    """Yield one entry of `model-index`: the scores on one split of the data set."""
    yield "  - task:"
    yield "      type: image-classification"
    yield "    dataset:"
    yield f"      type: {quote(_slug(manifest.data.name))}"
    yield f"      name: {quote(manifest.data.name)}"
    yield f"      split: {quote(split)}"
    yield f"      revision: {quote(manifest.data.sha256)}"
    yield "    metrics:"
    for score in scores:
        yield f"    - type: {quote(_metric(score))}"
        yield f"      value: {score.value:.6f}"
        yield f"      name: {quote(f'{METRIC_WORDS[score.metric]}, {split} split, {score.patients} patients')}"


def _metric(score: Score) -> str:
    return _METRICS.get(score.metric, score.metric)


def _base_model(manifest: ArtifactManifest) -> str:
    """Return the hub's name of the pretrained network, where the model began with a file of its weights.

    timm's networks stand on the hub by their names, torchvision's do not.
    """
    family, _, name = manifest.model.backbone.partition(":")
    pretrained = "covers the trunk" in manifest.weights_note
    return f"timm/{name}" if family == "timm" and "." in name and pretrained else ""


def _slug(name: str) -> str:
    """Return a data set's name as the hub's identifiers are written."""
    kept = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "-" for sign in name)
    return kept.strip("-.") or "data"


def quote(text: str) -> str:
    """Return a text as a double-quoted YAML scalar on one line."""
    escaped = (f"\\{sign}" if sign in '"\\' else sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in text)
    return f'"{"".join(escaped)}"'
