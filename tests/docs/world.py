"""A folder in which the names of the documents exist: images, tables, weights, a network, settings. All of it tiny."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from tests.docs.typed_commands import ROOT
from ttl_deploy.models.torchvision_border import load_torchvision

SIDE = 32
PATIENTS = 80
FEWER_EPOCHS = ("epochs = 20", "epochs = 2")
"""What the tutorial's file says, and what the tests' one does: a file's settings beat the environment's."""
CLASSES = ("normal", "pneumonia")
NETS = """\
from torch import nn


class FilmNet(nn.Sequential):
    def __init__(self, channels, classes):
        stem = nn.Sequential(nn.Conv2d(channels, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        deep = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        super().__init__(stem, deep, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))


def film_net() -> nn.Module:
    return FilmNet(channels=1, classes=14)
"""
FINDINGS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
"""CheXpert's columns."""


def make_world(here: Path) -> Path:
    """Fill a folder with what the documents' commands read, but for runs, and return it."""
    for name in ("cxr", "scans", "DATA", "YOUR_FOLDER", "labelled_images"):
        draw_classes(here / name)
        write_patients(here / name)
    for split in ("train", "test"):
        draw_classes(here / "cxr_kermany" / split, first=0 if split == "train" else PATIENTS)
    for number in range(3):
        draw(here / "new_images" / f"{number}.png", number, bright=bool(number % 2))
    write_chexpert(here / "CheXpert-v1.0-small")
    write_weights(here)
    (here / "hospital").mkdir()
    (here / "hospital" / "nets.py").write_text(NETS, encoding="utf-8")
    write_predictions(here)
    for page, name in (("settings.md", "settings.toml"), ("tutorial.md", "search.toml")):
        (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        (here / name).write_text(block.replace(*FEWER_EPOCHS), encoding="utf-8")
    return here


def draw(path: Path, number: int, *, bright: bool) -> None:
    """Draw noise, darker or brighter, so that any network can learn to tell the two."""
    noise = np.random.default_rng(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    level = 150 if bright else 20
    Image.fromarray(noise.integers(level, level + 90, (SIDE, SIDE), dtype=np.uint8)).save(path)


def draw_classes(folder: Path, first: int = 0) -> None:
    """Draw class folders."""
    for number in range(first, first + PATIENTS):
        bright = bool(number % 2)
        draw(folder / CLASSES[bright] / f"{number:03}.png", number, bright=bright)


def write_patients(folder: Path) -> None:
    """Write the table of class folders: who is on an image, how old, of which sex."""
    rows = [
        (f"{CLASSES[n % 2]}/{n:03}.png", CLASSES[n % 2], f"p{n}", "FM"[n // 2 % 2], str(20 + n % 60))
        for n in range(PATIENTS)
    ]
    write_table(folder / "labels.csv", ("path", "label", "patient_id", "sex", "age"), rows)


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Write a table as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([tuple(header), *rows])


def write_chexpert(folder: Path) -> None:
    """Write CheXpert's two tables, and images that show the same whatever is stated of them."""
    header = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)
    marks = ("1.0", "0.0", "-1.0", "", "1.0", "0.0", "")
    for split, numbers in (("train", range(60)), ("valid", range(60, 80))):
        rows = []
        for number in numbers:
            path = f"{split}/patient{number:05}/study1/view1_frontal.jpg"
            draw(folder / path, number, bright=bool(number % 2))
            stated = [marks[(number + 3 * place) % len(marks)] for place in range(len(FINDINGS))]
            rows.append((f"{folder.name}/{path}", "Female", "50", "Frontal", "AP", *stated))
        write_table(folder / f"{split}.csv", header, rows)


def write_weights(here: Path) -> None:
    """Write the weights files that the documents name: random weights in the form of the real ones."""
    torch.manual_seed(0)
    models = load_torchvision().models
    mobilenet = models.mobilenet_v2(weights=None)
    for name in ("mobilenet_v2.pth", "mobilenet_v2-onnxzoo.pth"):
        torch.save(mobilenet.state_dict(), here / name)
    densenet = models.densenet121(weights=None)
    densenet.features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    densenet.classifier = nn.Linear(1024, 18)
    densenet.register_buffer("op_threshs", torch.full((18,), float("nan")))  # torchxrayvision's mark
    torch.save(densenet.state_dict(), here / "xrv-densenet121.pth")
    nets: dict[str, type[nn.Module]] = {}
    exec(NETS, nets)
    torch.save(nets["FilmNet"](channels=1, classes=14).state_dict(), here / "film_net.pth")


def write_predictions(here: Path) -> None:
    """Write two models' predictions of 800 images, hardly different, and the images' labels."""
    random = np.random.default_rng(0)
    truth = np.arange(800) % 2
    score = 3.0 * truth + random.normal(size=800)
    write_table(
        here / "labels.csv",
        ("path", "label", "patient_id"),
        [(f"{n}.png", CLASSES[label], f"p{n}") for n, label in enumerate(truth)],
    )
    for name, noise in (("full", 0.0), ("small", 0.02)):
        ill = 1 / (1 + np.exp(1.5 - score - noise * random.normal(size=800)))
        rows = [
            (f"{n}.png", CLASSES[int(p >= 0.5)], f"{1 - p:.6f}", f"{p:.6f}") for n, p in enumerate(ill.astype(float))
        ]
        write_table(here / f"{name}.csv", ("path", "predicted", *(f"p_{label}" for label in CLASSES)), rows)
