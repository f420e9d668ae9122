"""Grad-CAM against captum's, and the choice of images that it is drawn on."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor

from ttl_deploy.analysis import gradcam
from ttl_deploy.analysis.overlays import pick_images
from ttl_deploy.models import truncation
from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.records.data import Sample
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.runtime.stored_predictions import StoredPredictions

CBR = "cbr:tiny?kernel=3&widths=8-12"
CLASSES = torch.tensor([0, 1, 2, 1])


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def build(backbone: str, cut: str, size: int = 32) -> tuple[TruncatedModel, ModelSpec]:
    spec = ModelSpec(backbone=backbone, cut=cut, classes=3, image_size=size)
    return truncation.build(spec).eval(), spec


def draw(size: int = 32) -> Tensor:
    return torch.randn(len(CLASSES), 3, size, size)


@pytest.mark.parametrize(("backbone", "cut"), [(CBR, "unit1"), ("shufflenet_v2_x0_5", "stage2.3")])
def test_the_map_of_a_truncated_model_is_captums(backbone: str, cut: str) -> None:
    model, spec = build(backbone, cut)
    place = gradcam.find_last_map(spec)
    assert place is not None
    assert place.name == cut
    images = draw()
    expected = LayerGradCam(model, model.trunk).attribute(images, target=CLASSES, relu_attributions=True)
    found = gradcam.draw_cam(model, place, images, CLASSES)
    assert found.max() > 0
    torch.testing.assert_close(found, expected[:, 0].detach())


def test_the_map_of_the_full_network_is_captums_at_the_last_module_that_returns_a_map() -> None:
    model, spec = build("shufflenet_v2_x0_5", "full", size=64)
    place = gradcam.find_last_map(spec)
    assert place is not None
    assert place.name == "conv5.2"
    images = draw(64)
    layer = model.trunk.get_submodule("conv5.2")
    expected = LayerGradCam(model, layer).attribute(images, target=CLASSES, relu_attributions=True)
    torch.testing.assert_close(gradcam.draw_cam(model, place, images, CLASSES), expected[:, 0].detach())


def test_a_map_with_channels_last_is_the_one_of_its_transposed_features() -> None:
    """A linear head on averages: the slopes are the head's weights over the number of positions."""
    model, spec = build("swin_t", "features.1.1")
    place = gradcam.find_last_map(spec)
    assert place is not None
    assert place.layout == "map-last"
    images = draw()
    with torch.no_grad():
        features = model.trunk(images)  # (N, H, W, C)
        slopes = torch.autograd.functional.jacobian(
            lambda given: model.head(given).gather(1, CLASSES[:, None]).sum(), features
        )
        expected = torch.einsum("nc,nhwc->nhw", slopes.mean(dim=(1, 2)), features).clamp(min=0)
    torch.testing.assert_close(gradcam.draw_cam(model, place, images, CLASSES), expected)


def test_tokens_have_no_map() -> None:
    assert gradcam.find_last_map(ModelSpec(backbone="vit_b_32", cut="full", classes=2, image_size=32)) is None


def predicted(rows: list[tuple[float, ...]], labels: list[int] | list[tuple[int, ...]]) -> StoredPredictions:
    samples = tuple(
        Sample(path=f"{number}.png", label=label, patient_id=str(number), split="val", sha256="")
        for number, label in enumerate(labels)
    )
    return StoredPredictions(
        name="m",
        classes=("a", "b"),
        samples=samples,
        probabilities=np.array(rows),
        patients_known=True,
    )


SURE, WRONG = (0.9, 0.1), (0.1, 0.9)


def test_one_image_of_each_class_where_both_are_right_then_such_where_they_differ() -> None:
    labels = [0, 0, 1, 1, 1, 0]
    full = predicted([SURE, WRONG, WRONG, WRONG, SURE, WRONG], labels)
    cut = predicted([SURE, SURE, WRONG, SURE, SURE, WRONG], labels)
    found = pick_images(full, cut, most=9, seed=0)
    assert [(one.position, one.label, one.kind) for one in found] == [
        (0, 0, "both right"),
        (2, 1, "both right"),
        (1, 0, "only the truncated model right"),
        (3, 1, "only the full network right"),
    ]
    assert pick_images(full, cut, most=1, seed=0) == found[:1]


def test_images_with_several_labels_are_judged_finding_by_finding() -> None:
    labels = [(1, 0), (0, 1), (1, -1)]
    full = predicted([(0.9, 0.2), (0.1, 0.4), (0.7, 0.9)], labels)
    cut = predicted([(0.8, 0.1), (0.1, 0.6), (0.2, 0.9)], labels)
    found = [(one.position, one.label, one.kind) for one in pick_images(full, cut, most=9, seed=0)]
    assert found == [
        (0, 0, "both right"),
        (2, 0, "only the full network right"),
        (1, 1, "only the truncated model right"),
    ]
