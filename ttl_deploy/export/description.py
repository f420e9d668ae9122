"""What a model file says of itself."""

import json

from ttl_deploy.models.input_conventions import describe_convention
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import ArtifactManifest, InputSpec
from ttl_deploy.records.models import InputConvention
from ttl_deploy.runtime.artifact import METADATA_KEY


def describe_inside(manifest: ArtifactManifest) -> dict[str, str]:
    """Return the metadata that the model file itself carries."""
    return {
        METADATA_KEY: codec.to_json(manifest),
        "classes": json.dumps(manifest.classes, ensure_ascii=False),
        "input": f"uint8 RGB (batch, {manifest.input.height}, {manifest.input.width}, 3); normalised inside: "
        f"{manifest.input.normalisation}",
        "output": f"probabilities (batch, {len(manifest.classes)}), {_describe_output(manifest)}",
        "intended_use": manifest.intended_use,
    }


def describe_input(spec: InputSpec) -> str:
    """Say in words how images are normalised."""
    return describe_convention(InputConvention(mean=spec.mean, std=spec.std))


def _describe_output(manifest: ArtifactManifest) -> str:
    """Say in a few words what a reader of the file alone must know to use its probabilities."""
    scaling = (
        "not calibrated" if manifest.temperature == 1 else f"calibrated by the temperature {manifest.temperature:.4g}"
    )
    if manifest.decision == "each":
        return f"{scaling}; an image can have several classes, each from 0.5 on"
    if manifest.threshold is None:
        return f"{scaling}; the largest decides"
    return f"{scaling}; class 1 from {manifest.threshold:.9g} on"
