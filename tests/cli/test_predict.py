"""`predict` on the command line: which target and precision, how fast, and what it says when they cannot be had."""

import csv

import numpy as np
import pytest
from PIL import Image

from tests.runtime.conftest import expected_probabilities, random_images, write_artifact

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with an artifact and twelve pictures."""
    folder = tmp_path_factory.mktemp("here")
    write_artifact(folder / "artifact")
    (folder / "pictures").mkdir()
    for number, image in enumerate(random_images(12)):
        Image.fromarray(image).save(folder / "pictures" / f"{number:02d}.png")
    return folder


@pytest.mark.parametrize(
    ("options", "runtime"),
    [
        ((), "(onnxruntime"),
        (("--target", "openvino-cpu", "--precision", "fp32", "--batch", "5"), "(openvino"),
    ],
)
def test_it_predicts_on_the_target_that_is_asked_for_and_says_how_fast(ttl_deploy, here, tmp_path, options, runtime):
    done = ttl_deploy("predict", here / "artifact", here / "pictures", "--out", tmp_path / "p.csv", *options)
    assert done.returncode == 0, done.stderr
    assert "12 images predicted, 0 not readable" in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if " images/s from file to table " in line]
    assert float(line.split()[0]) > 0
    assert runtime in line
    assert line.endswith(", fp32)")
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    given = [(float(row["p_normal"]), float(row["p_ill"])) for row in rows]
    np.testing.assert_allclose(given, expected_probabilities(random_images(12)), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--precision", "bf16"), 2, "onnxruntime-cpu cannot run bf16 on this machine: it can run fp32, int8"),
        (("--target", "openvino"), 2, "did you mean openvino-cpu"),
    ],
)
def test_what_cannot_run_is_refused_and_nothing_written(ttl_deploy, here, tmp_path, options, code, words):
    done = ttl_deploy("predict", here / "artifact", here / "pictures", "--out", tmp_path / "p.csv", *options)
    assert done.returncode == code
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "p.csv").exists()


def test_a_precision_that_was_not_checked_is_told(ttl_deploy, here, tmp_path):
    options = ("--target", "openvino-cpu", "--precision", "bf16")
    done = ttl_deploy("predict", here / "artifact", here / "pictures", "--out", tmp_path / "p.csv", *options)
    if done.returncode == 2:
        assert "openvino-cpu cannot run bf16 on this machine" in " ".join(done.stderr.split())
        return
    assert "tiny was checked in fp32 at its export, not in bf16" in done.stderr
    assert ", bf16)" in done.stderr


def test_a_target_whose_package_is_missing_is_told_with_the_command_that_adds_it(ttl_deploy, here, tmp_path):
    (tmp_path / "openvino.py").write_text("raise ModuleNotFoundError('gone', name='openvino')\n")
    options = ("--target", "openvino-cpu", "--out", tmp_path / "p.csv")
    done = ttl_deploy("predict", here / "artifact", here / "pictures", *options, PYTHONPATH=str(tmp_path))
    assert done.returncode == 6
    assert "pip install 'ttl-deploy[openvino]'" in " ".join(done.stderr.split())
