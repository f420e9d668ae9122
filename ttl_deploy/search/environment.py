"""What besides settings and data decides a search's result: versions, device, and the weights it starts from."""

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
import torch

from ttl_deploy import __version__
from ttl_deploy.errors import WeightsError
from ttl_deploy.files import publish_text
from ttl_deploy.models import weights
from ttl_deploy.models.graph.description import fingerprint_backbone
from ttl_deploy.models.input_conventions import Feeding, describe_convention
from ttl_deploy.models.weights.prepared import find_feeding
from ttl_deploy.models.weights.source import find_weights
from ttl_deploy.records import codec
from ttl_deploy.records.models import FULL, Cut
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.records.weights import WeightsUsed
from ttl_deploy.runs.folder import RunFolder, differences, refuse_differences
from ttl_deploy.runtime.machine import usable_cores


def check_environment(run: RunFolder, settings: SearchSettings, device: torch.device) -> Feeding:
    """Store what else decides the result, or compare it with what the run began with.

    Returns how images are brought to the networks.
    """
    source = find_weights(settings.weights, settings.backbone)
    feeding = find_feeding(
        settings.weights, settings.backbone, image_size=settings.decode.image_size, normalise=settings.normalise
    )
    decisive = {
        "ttl_deploy": __version__,
        "torch": str(torch.__version__),
        "torchvision": version("torchvision"),
        "device": device.type,
        "network": fingerprint_backbone(settings.backbone, settings.decode.image_size),
        "weights_sha256": source.sha256 if source else "",
        "input": describe_convention(feeding.network),
    }
    if run.environment.exists():
        began = msgspec.json.decode(run.environment.read_bytes(), type=dict[str, Any])["decisive"]
        refuse_differences(run.path, differences(began, decisive))
        return feeding
    described = {"python": platform.python_version(), "system": platform.platform(), "cores": usable_cores()}
    publish_text(
        run.environment, msgspec.json.format(msgspec.json.encode({"decisive": decisive, **described})).decode()
    )
    return feeding


def check_weights(
    run: RunFolder, settings: SearchSettings, cuts: Sequence[Cut], *, note: Callable[[str], None]
) -> None:
    """Refuse weights that do not cover a wanted cut, and store what the weights are."""
    used = find_weights_used(settings, cuts)
    codec.save(run.weights, used)
    for change in used.changes:
        note(f"weights: {change}; images become {used.input_in_words}")
    for one in used.cuts:
        if not one.covered:
            note(f"there will be no reference to compare with: {one.reason}")


def find_weights_used(settings: SearchSettings, cuts: Sequence[Cut]) -> WeightsUsed:
    """Return what the weights are and which cuts they cover; raises `WeightsError` where they do not cover one.

    Only the reference may stay uncovered, and then fails.
    """
    used = weights.check_weights(
        settings.weights,
        settings.backbone,
        cuts,
        image_size=settings.decode.image_size,
        normalise=settings.normalise,
    )
    uncovered = [one for one in used.cuts if not one.covered]
    if uncovered and (len(uncovered) == len(used.cuts) or any(one.cut != FULL for one in uncovered)):
        raise WeightsError(uncovered[0].reason)
    return used
