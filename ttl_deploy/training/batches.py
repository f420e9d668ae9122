"""Images from the pixel cache to batches on the device: shuffled, prefetched, augmented, normalised."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ttl_deploy.errors import UsageError
from ttl_deploy.records.models import InputConvention
from ttl_deploy.records.trials import Augmentation, Sampling

Plan = tuple[NDArray[np.int64], ...]
"""An epoch's mini-batches, as positions."""


@dataclass(frozen=True, slots=True)
class LabelledPixels:
    """Images of one split: `rows` into a uint8 array `(n, S, S, 3)`, and their labels.

    These are class numbers `(len(rows),)`, or marks `(len(rows), classes)`: 1 present, 0 absent, -1 not known.
    """

    array: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(slots=True)
class Wait:
    """How long the loop waited for images, in seconds."""

    seconds: float = 0.0


def shuffled(count: int, *, batch_size: int, seed: int, epoch: int) -> Plan:
    """Return an epoch's batches as positions, in an order fixed by seed and epoch.

    A last batch of one image is left out, because BatchNorm cannot learn from it.
    """
    return _learnable(np.random.default_rng((seed, epoch)).permutation(count).astype(np.int64), batch_size)


def balanced(labels: NDArray[np.int64], *, batch_size: int, seed: int, epoch: int) -> Plan:
    """Return an epoch's batches of `len(labels)` positions that hold every class equally often, give or take one.

    Of a class with more images than its share, some stay out of this epoch; of one with fewer, all are
    repeated as evenly as possible. Order and draws are fixed by seed and epoch. A last batch of one image
    is left out, as in `shuffled`.
    """
    rng = np.random.default_rng((seed, epoch))
    present = rng.permutation(np.unique(labels))  # in an order of chance, so that no class always gets the odd image
    shares = np.full(len(present), len(labels) // len(present))
    shares[: len(labels) % len(present)] += 1
    drawn = [_draw(np.flatnonzero(labels == label), share, rng) for label, share in zip(present, shares, strict=True)]
    return _learnable(rng.permutation(np.concatenate(drawn)).astype(np.int64), batch_size)


def plan_epoch(labels: NDArray[np.int64], *, sampling: Sampling, batch_size: int, seed: int, epoch: int) -> Plan:
    """Return an epoch's training batches over images with these labels, `shuffled` or `balanced`.

    Raises `UsageError` where images with several labels are to be balanced.
    """
    if sampling == "balanced" and labels.ndim == 2:
        raise UsageError(
            "--sampling balanced wants one class per image, and these have several labels: use --class-weights balanced"
        )
    if sampling == "balanced":
        return balanced(labels, batch_size=batch_size, seed=seed, epoch=epoch)
    return shuffled(len(labels), batch_size=batch_size, seed=seed, epoch=epoch)


def _draw(positions: NDArray[np.int64], share: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw `share` of the positions; none a second time before all were drawn once."""
    rounds = -(-share // len(positions))
    return np.concatenate([rng.permutation(positions) for _ in range(max(rounds, 1))])[:share]


def _learnable(order: NDArray[np.int64], batch_size: int) -> Plan:
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return tuple(batch for batch in batches if len(batch) > 1)


def in_order(count: int, *, batch_size: int) -> Plan:
    """Return all positions in order, in batches."""
    positions = np.arange(count, dtype=np.int64)
    return tuple(positions[start : start + batch_size] for start in range(0, count, batch_size))


def load(
    data: LabelledPixels, batches: Plan, *, device: torch.device, wait: Wait | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield uint8 images `(N, 3, S, S)` (channels last in memory) and labels on `device`, one batch ahead."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead: Future[tuple[Tensor, Tensor]] | None = None
        for number in range(len(batches) + 1):
            ready = ahead
            ahead = (
                reader.submit(_read, data, batches[number], device.type == "cuda") if number < len(batches) else None
            )
            if ready is None:
                continue
            started = time.perf_counter()
            images, labels = ready.result()
            if wait is not None:
                wait.seconds += time.perf_counter() - started
            yield images.to(device, non_blocking=True).permute(0, 3, 1, 2), labels.to(device, non_blocking=True)


def _read(data: LabelledPixels, positions: NDArray[np.int64], pinned: bool) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(np.ascontiguousarray(data.array[data.rows[positions]]))
    labels = torch.from_numpy(data.labels[positions])
    return (images.pin_memory(), labels.pin_memory()) if pinned else (images, labels)


def normalise(images: Tensor, convention: InputConvention) -> Tensor:
    """Turn RGB `(N, 3, H, W)` in 0..255 into the float32 input `(N, C, H, W)` that a network wants.

    C is the convention's number of entries; with one, the channels are averaged, which is exact for grey images.
    """
    mean, std = _statistics(convention, images.device)
    pixels = images.float()
    if len(convention.mean) == 1:
        pixels = pixels.mean(dim=1, keepdim=True)
    return (pixels / 255.0 - mean) / std


@lru_cache(maxsize=8)
def _statistics(convention: InputConvention, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and std `(1, C, 1, 1)`; kept on the device, since each copy to a GPU would wait for all its work."""
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (convention.mean, convention.std))
    return mean, std


def augment(images: Tensor, settings: Augmentation, *, generator: torch.Generator) -> Tensor:
    """Change uint8 images `(N, 3, H, W)` at random, each on its own; returns float32 in 0..255.

    `generator` lives on the CPU, so that the same draws are made on every device.
    """
    draws = torch.rand((7, len(images)), generator=generator)
    if images.device.type == "cuda":
        draws = draws.pin_memory()  # a copy from other memory would wait for all the GPU's work
    draws = draws.to(images.device, non_blocking=True)
    changed = images.float()
    if _moves(settings):
        grid = _lay_grid(_affine(settings, draws), *changed.shape[2:])
        changed = functional.grid_sample(changed, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if settings.contrast or settings.brightness:
        gain = 1 + settings.contrast * (2 * draws[5] - 1)
        offset = 255 * settings.brightness * (2 * draws[6] - 1)
        mean = changed.mean(dim=(1, 2, 3))
        changed = changed * gain.view(-1, 1, 1, 1) + (mean * (1 - gain) + offset).view(-1, 1, 1, 1)
    return changed.clamp(0, 255)


def _lay_grid(transforms: Tensor, height: int, width: int) -> Tensor:
    """Return where each pixel is taken from, `(N, height, width, 2)` in grid_sample's coordinates, for `(N, 2, 3)`.

    The same as torch's `affine_grid`, a tenth of its time: sums of what each row and each column adds.
    """
    across, down = (_centres(side, transforms.device) for side in (width, height))
    grid = transforms.new_empty((len(transforms), height, width, 2))
    for axis in (0, 1):
        by_column = transforms[:, axis, 0, None] * across
        by_row = transforms[:, axis, 1, None] * down + transforms[:, axis, 2, None]
        torch.add(by_column[:, None, :], by_row[:, :, None], out=grid[..., axis])
    return grid


def _centres(side: int, device: torch.device) -> Tensor:
    """Return the coordinates of pixel centres along a side of the image, whose ends are at -1 and 1."""
    return (2 * torch.arange(side, device=device) + 1) / side - 1


def _moves(settings: Augmentation) -> bool:
    return bool(settings.flip or settings.rotate_deg or settings.zoom or settings.shift)


def _affine(settings: Augmentation, draws: Tensor) -> Tensor:
    """Return the sampling transforms `(N, 2, 3)` in grid_sample's coordinates (-1..1)."""
    angle = math.radians(settings.rotate_deg) * (2 * draws[0] - 1)
    scale = 1 + settings.zoom * (2 * draws[1] - 1)
    mirror = 1 - 2 * (draws[2] < 0.5).float() if settings.flip else torch.ones_like(scale)
    shift_x = 2 * settings.shift * (2 * draws[3] - 1)
    shift_y = 2 * settings.shift * (2 * draws[4] - 1)
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    first = torch.stack((mirror * cosine, -sine, shift_x), dim=1)
    second = torch.stack((mirror * sine, cosine, shift_y), dim=1)
    return torch.stack((first, second), dim=1)
