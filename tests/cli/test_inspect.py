"""`ttl-deploy inspect`, as a user types it, on a machine without torch."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "plotly", "matplotlib", "onnx", "safetensors")
PHANTOM = "phantom:blob?patients=24&size=32&seed=1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders whose classes differ in file type; `[b]` would be markup for a careless printer."""
    generator = np.random.default_rng(0)
    for label, suffix in (("[b]ill", "jpg"), ("normal", "png")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(40):
            coarse = Image.fromarray(generator.integers(20, 220, (14, 14), dtype=np.uint8))
            coarse.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "set" / label / f"{number}.{suffix}")
    return tmp_path / "set"


def test_a_phantom_is_described_in_80_columns_without_torch_and_without_alarm(
    ttl_deploy: Callable[..., object],
) -> None:
    done = ttl_deploy("inspect", PHANTOM, blocked=HEAVY)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "phantom-blob (phantom)" in done.stdout
    assert "width 32 to 32 (median 32) px" in done.stdout
    assert "border brightness" in done.stdout
    assert "ALARM" not in done.stdout
    assert "looking at the images" in done.stderr


def test_a_give_away_is_named_and_markup_is_left_alone(ttl_deploy: Callable[..., object], folder: Path) -> None:
    done = ttl_deploy("inspect", folder, "--no-progress")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    assert "file type alone predicts the label with AUROC 1.00: the classes may come from different machines" in text
    assert "[b]ill" in done.stdout
    assert "file types JPEG 40, PNG 40" in done.stdout
    assert "patients " not in done.stdout.partition("what predicts")[0]


def test_json_is_the_record_on_stdout_and_in_the_file(ttl_deploy: Callable[..., object], tmp_path: Path) -> None:
    done = ttl_deploy("inspect", PHANTOM, "--json", "-o", tmp_path / "inspect.json", "--image-size", "64")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((tmp_path / "inspect.json").read_text())
    assert record["record"] == "Inspection"
    assert record["sizes"]["enlarged"] == sum(count["images"] for count in record["splits"])


def test_bad_files_are_listed_and_leakage_ends_with_the_sentence_of_search(
    ttl_deploy: Callable[..., object], folder: Path
) -> None:
    (folder / "normal" / "0.png").write_bytes(b"")
    listed = ttl_deploy("inspect", folder)
    assert listed.returncode == 0, listed.stderr
    assert "1 unreadable files:" in listed.stdout
    assert "is empty (0 bytes)" in " ".join(listed.stdout.split())
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*g"))
    lines = [f"{path},{path.partition('/')[0]},one,{('train', 'val')[n % 2]}" for n, path in enumerate(paths)]
    (folder / "labels.csv").write_text("\n".join(["path,label,patient_id,split", *lines]) + "\n")
    refused = ttl_deploy("inspect", folder)
    assert refused.returncode == 3
    sentence = "error: patient 'one' is in train and val. A patient may stand in one split only"
    assert refused.stderr.splitlines()[-1].startswith(sentence)
