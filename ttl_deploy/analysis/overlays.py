"""Which images two models' Grad-CAM maps are drawn on, and the pictures: these show patients' images."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from ttl_deploy.analysis import gradcam
from ttl_deploy.analysis.networks import Trained
from ttl_deploy.files import make_folder, publish_bytes, storage_errors
from ttl_deploy.models.places import Place
from ttl_deploy.records.analysis import CAM_FOLDER, CamImage, CamKind, Cams
from ttl_deploy.records.data import Split
from ttl_deploy.runtime.stored_predictions import StoredPredictions
from ttl_deploy.training import batches, devices

_SIDE = 224
"""Panels are at least so many pixels wide, since the images of small networks are hard to see."""
_OPACITY = 0.5
_COLOURS = "inferno"


@dataclass(frozen=True, slots=True)
class Picked:
    """An image, by its position in its split, and the class whose evidence is drawn."""

    position: int
    label: int
    kind: CamKind


def pick_images(full: StoredPredictions, cut: StoredPredictions, *, most: int, seed: int) -> tuple[Picked, ...]:
    """Draw at most `most` images: of each class one where both models are right, then such where they differ.

    Drawn at random, not the most convincing ones. Differences are taken class by class in turn.
    """
    drawn = np.random.default_rng(seed)
    agree: list[Picked] = []
    differ: list[list[Picked]] = []
    for label in range(len(full.classes)):
        true, right_full = _answers(full, label)
        _, right_cut = _answers(cut, label)
        both = drawn.permutation(np.flatnonzero(true & right_full & right_cut))
        agree += [Picked(int(position), label, "both right") for position in both[:1]]
        other = drawn.permutation(np.flatnonzero(true & (right_full != right_cut)))
        differ.append(
            [
                Picked(int(at), label, f"only the {'full network' if right_full[at] else 'truncated model'} right")  # type: ignore[arg-type] # two of the kinds
                for at in other
            ]
        )
    turns = chain.from_iterable(zip_longest(*differ))
    return tuple([*agree, *(one for one in turns if one is not None)][:most])


def _answers(model: StoredPredictions, label: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell of every image whether it has a class, and whether the model says so."""
    labels = np.array([sample.label for sample in model.samples])
    if labels.ndim == 2:
        return labels[:, label] == 1, model.probabilities[:, label] >= 0.5
    return labels == label, model.probabilities.argmax(axis=1) == label


def draw_overlays(
    folder: Path,
    models: tuple[Trained, Trained],
    predictions: tuple[StoredPredictions, StoredPredictions],
    picked: Sequence[Picked],
    *,
    split: Split,
    pixels: Callable[[Sequence[int]], NDArray[np.uint8]],
    seed: int,
    device: torch.device,
) -> Cams | None:
    """Write a picture per image into `folder/analysis`, and return what they show; None where there are no maps.

    The models, and their predictions, are the full one and the truncated one. `pixels` returns the images at
    positions of the split, `(n, S, S, 3)`.
    """
    places = [gradcam.find_last_map(one.trial.model) for one in models]
    full, cut = places
    if full is None or cut is None or not picked:
        return None
    images = pixels([one.position for one in picked])
    labels = np.array([one.label for one in picked])
    maps = [_draw_maps(one, place, images, labels, device) for one, place in zip(models, (full, cut), strict=True)]
    make_folder(folder / CAM_FOLDER)
    found = []
    for number, (one, image) in enumerate(zip(picked, images, strict=True)):
        file = f"{CAM_FOLDER}/gradcam-{number + 1}.png"
        publish_bytes(folder / file, _paint(image, [cams[number] for cams in maps]))
        found.append(_describe(file, one, predictions, split))
    return Cams(
        full_layer=full.name,
        full_grid=full.features[1:],
        cut_layer=cut.name,
        cut_grid=cut.features[1:],
        seed=seed,
        images=tuple(found),
    )


def remove_pictures(folder: Path) -> None:
    """Delete what `draw_overlays` wrote before, so that no patient's image stays behind that no record names."""
    with storage_errors(folder / CAM_FOLDER):
        for path in (folder / CAM_FOLDER).glob("gradcam-*.png"):
            path.unlink()


def _describe(
    file: str, picked: Picked, predictions: tuple[StoredPredictions, StoredPredictions], split: Split
) -> CamImage:
    full, cut = (float(one.probabilities[picked.position, picked.label]) for one in predictions)
    return CamImage(
        file=file,
        image=predictions[0].samples[picked.position].path,
        split=split,
        label=predictions[0].classes[picked.label],
        kind=picked.kind,
        full=full,
        cut=cut,
    )


def _draw_maps(
    trained: Trained,
    place: Place,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    device: torch.device,
) -> NDArray[np.float32]:
    """Return the maps of images `(n, S, S, 3)` at the images' size, `(n, S, S)`, each with 1 at its highest."""
    network = trained.network
    model = devices.place(network.model, device).eval()
    given = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    with devices.full_precision():
        maps = gradcam.draw_cam(
            model, place, batches.normalise(given, network.input), torch.from_numpy(labels).to(device)
        )
    large = functional.interpolate(maps[:, None].cpu(), size=images.shape[1:3], mode="bilinear", align_corners=False)
    highest = large.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(large.dtype).tiny)
    scaled: NDArray[np.float32] = (large / highest)[:, 0].numpy()
    return scaled


def _paint(image: NDArray[np.uint8], maps: Sequence[NDArray[np.float32]]) -> bytes:
    """Return a PNG of the image and of it under each map, side by side."""
    factor = -(-_SIDE // image.shape[0])
    panels = np.concatenate(list(_panels(image, maps)), axis=1).repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(panels).save(buffer, format="PNG")
    return buffer.getvalue()


def _panels(image: NDArray[np.uint8], maps: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.uint8]]:
    yield image
    for one in maps:
        coloured = 255 * colormaps[_COLOURS](one)[..., :3]
        opacity = _OPACITY * one[..., None]  # where there is no evidence the image stays as it is
        yield np.rint((1 - opacity) * image + opacity * coloured).astype(np.uint8)
