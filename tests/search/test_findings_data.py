"""Data with several findings per image that a search cannot use are refused before anything is decoded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.records.data import Reading
from ttl_deploy.records.trials import SearchSettings, TrainSettings
from ttl_deploy.search.preparation import prepare_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty pictures of twenty patients; in the validation split every finding is always present."""
    rng, lines = np.random.default_rng(0), ["path,patient_id,split,edema,fracture"]
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        split = ("train", "train", "val", "test")[number // 2 % 4]
        marks = "1,1" if split == "val" else f"{number % 3 % 2},{number % 2}"
        lines.append(f"{number}.png,p{number // 2},{split},{marks}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def prepare(folder: Path, **changes: object) -> None:
    settings = SearchSettings(
        backbone="resnet18",
        data=str(folder),
        reading=Reading(label_col="edema,fracture", split_col=str(changes.pop("split_col", ""))),
        train=TrainSettings(**changes),  # type: ignore[arg-type] # keyword arguments of several types
    )
    prepare_data(settings, progress=lambda stage, done, total: None)


def test_a_validation_split_on_which_no_finding_can_be_scored_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"'val' of .* no finding is present in some images and absent in others"):
        prepare(folder)
    prepare(folder, split_col="none")


def test_balanced_sampling_is_refused_with_what_to_do_instead(folder: Path) -> None:
    with pytest.raises(UsageError, match="weighed by --class-weights balanced; or search with --label"):
        prepare(folder, split_col="none", sampling="balanced", class_weights="none")
