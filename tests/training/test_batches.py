"""Batches cover every image once; augmentation changes images as stated and nothing else."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from ttl_deploy.models.input_conventions import NAMED, fit_channels
from ttl_deploy.records.models import IMAGENET_INPUT, InputConvention
from ttl_deploy.records.trials import Augmentation
from ttl_deploy.training import batches, losses
from ttl_deploy.training.batches import LabelledPixels

STILL = Augmentation(flip=False, rotate_deg=0, zoom=0, shift=0, brightness=0, contrast=0)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    first = np.concatenate(batches.shuffled(100, batch_size=32, seed=0, epoch=1))
    again = np.concatenate(batches.shuffled(100, batch_size=32, seed=0, epoch=1))
    second = np.concatenate(batches.shuffled(100, batch_size=32, seed=0, epoch=2))
    assert sorted(first) == list(range(100))
    assert (first == again).all()
    assert (first != second).any()


def test_a_last_batch_of_one_image_is_left_out() -> None:
    assert [len(batch) for batch in batches.shuffled(33, batch_size=16, seed=0, epoch=1)] == [16, 16]


def test_loading_yields_the_images_of_the_positions() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    data = LabelledPixels(array=pixels, rows=np.arange(9, -1, -1), labels=np.arange(10))
    loaded = list(batches.load(data, batches.in_order(10, batch_size=4), device=torch.device("cpu")))
    images = torch.cat([images for images, _ in loaded])
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), pixels[::-1])
    assert torch.cat([labels for _, labels in loaded]).tolist() == list(range(10))


def test_normalising_is_torchvisions() -> None:
    expected = (IMAGES.double() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    torch.testing.assert_close(batches.normalise(IMAGES, IMAGENET_INPUT).double(), expected, atol=1e-6, rtol=0)


def test_normalising_for_a_grey_network_averages_the_channels_and_keeps_grey_images_exactly() -> None:
    convention = InputConvention(mean=(0.5,), std=(0.25,))
    averaged = batches.normalise(IMAGES, convention)
    expected = (IMAGES.double().mean(dim=1, keepdim=True) / 255 - 0.5) / 0.25
    torch.testing.assert_close(averaged.double(), expected, atol=1e-6, rtol=0)
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    once = (grey.float() / 255 - 0.5) / 0.25
    assert torch.equal(batches.normalise(grey.expand(1, 3, 16, 16), convention), once)


def test_torchxrayvisions_values_reach_from_minus_to_plus_1024() -> None:
    grey = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    for channels in (1, 3):
        given = batches.normalise(grey, fit_channels(NAMED["torchxrayvision"], channels))
        assert given.shape == (2, channels, 1, 1)
        torch.testing.assert_close(given[:, 0].flatten(), torch.tensor([-1024.0, 1024.0]))


def test_no_augmentation_changes_nothing() -> None:
    torch.testing.assert_close(batches.augment(IMAGES, STILL, generator=generator()), IMAGES.float())


def test_flipping_mirrors_about_half_of_the_images_exactly() -> None:
    many = IMAGES.repeat(20, 1, 1, 1)
    changed = batches.augment(
        many, Augmentation(rotate_deg=0, zoom=0, shift=0, brightness=0, contrast=0), generator=generator()
    )
    mirrored = torch.tensor(
        [torch.allclose(new, old.float().flip(-1), atol=0.01) for new, old in zip(changed, many, strict=True)]
    )
    same = torch.tensor([torch.allclose(new, old.float(), atol=0.01) for new, old in zip(changed, many, strict=True)])
    assert bool((mirrored ^ same).all())
    assert 0.3 < float(mirrored.float().mean()) < 0.7


def test_a_rotation_keeps_the_centre_and_moves_a_corner() -> None:
    image = torch.zeros(1, 3, 17, 17, dtype=torch.uint8)
    image[:, :, 8, 8] = 255
    image[:, :, 0, 0] = 255
    turned = Augmentation(flip=False, rotate_deg=45, zoom=0, shift=0, brightness=0, contrast=0)
    changed = batches.augment(image, turned, generator=generator(3))
    assert float(changed[0, 0, 8, 8]) == pytest.approx(255, abs=1)
    assert float(changed[0, 0, 0, 0]) < 200


def test_brightness_shifts_all_pixels_of_an_image_alike() -> None:
    grey = torch.full((4, 3, 8, 8), 128, dtype=torch.uint8)
    bright = Augmentation(flip=False, rotate_deg=0, zoom=0, shift=0, brightness=0.1, contrast=0)
    changed = batches.augment(grey, bright, generator=generator()) - 128
    assert float(changed.flatten(1).std(dim=1).max()) < 1e-3
    assert 0 < float(changed.abs().max()) <= 25.5 + 1e-3
    assert len({round(float(image.mean()), 3) for image in changed}) == 4


def test_the_grid_is_that_of_torch() -> None:
    transforms = torch.randn((3, 2, 3), generator=generator())
    expected = torch.nn.functional.affine_grid(transforms, [3, 1, 5, 7], align_corners=False)
    torch.testing.assert_close(batches._lay_grid(transforms, 5, 7), expected)


def test_augmented_images_stay_in_range_and_repeat_with_the_generator() -> None:
    first, again = (batches.augment(IMAGES, Augmentation(), generator=generator(5)) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert 0 <= float(first.min()) <= float(first.max()) <= 255


def test_class_weights_are_scikit_learns() -> None:
    labels = np.array([0] * 70 + [1] * 20 + [2] * 10)
    weights = losses.class_weights(labels, classes=3, kind="balanced")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert weights is not None
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert losses.class_weights(labels, classes=3, kind="none") is None
