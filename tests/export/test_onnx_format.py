"""The artifact folder: whole, checked, private, replaced in one step, or not there at all."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ttl_deploy import plugins
from ttl_deploy.errors import GateError, UsageError
from ttl_deploy.evidence.calibration import apply_temperature
from ttl_deploy.export import publishing, writer
from ttl_deploy.export.formats import OnnxFormat
from ttl_deploy.export.golden import golden_images
from ttl_deploy.files import sha256_bytes, sha256_file
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import Calibration, Parity
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu
from ttl_deploy.runtime.verify import check_golden

SHAS = ["ab" * 32, "cd" * 32]
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32)


@pytest.fixture(scope="module")
def exported(new_net, shipped_manifest, real_images, tmp_path_factory):
    """One export for the whole file: the exporter takes seconds."""
    folder = tmp_path_factory.mktemp("run") / "exports" / "stem"
    manifest = OnnxFormat().export(
        new_net(), shipped_manifest, folder, images=real_images, references=(SHAS, PROBABILITIES)
    )
    return folder, manifest


@pytest.fixture
def quick_export(monkeypatch, exported, shipped_manifest, real_images):
    """Export without the slow exporter: its part is played by a copy of the file already made."""
    model = onnx.load(exported[0] / "model.onnx")

    def write(deployable, path, *, image_size, metadata):
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.save(model, path)
        return model

    monkeypatch.setattr(writer, "write_onnx", write)

    def export(net, folder, **options):
        given = {"images": real_images, "references": (SHAS, PROBABILITIES), **options}
        return OnnxFormat().export(net, shipped_manifest, folder, **given)

    return export


def test_the_format_is_found_by_its_name():
    assert plugins.load("formats", "onnx") is OnnxFormat


def test_the_folder_holds_exactly_what_the_design_says_and_opens(exported):
    folder, manifest = exported
    names = {"model.onnx", "manifest.json", "reference.npz", "golden.npz", "verify.json", "model_card.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ["stem"]
    artifact = open_artifact(folder)
    assert artifact.manifest == manifest
    for entry in manifest.files:
        assert (folder / entry.name).stat().st_size == entry.size_bytes
        assert sha256_file(folder / entry.name) == entry.sha256


def test_what_only_the_exporter_knows_is_filled_in(exported, shipped_manifest):
    _, manifest = exported
    assert (manifest.opset, manifest.ir_version, manifest.precision) == (18, 10, "fp32")
    assert (manifest.input.name, manifest.output, manifest.input.max_batch) == ("image", "probabilities", 256)
    assert manifest.scores == shipped_manifest.scores


def test_golden_images_and_check_are_of_the_calibrated_model(new_net, shipped_manifest, real_images, tmp_path):
    calibration = Calibration(temperature=3.0, split="val", images=5, patients=5, effects=())
    OnnxFormat().export(
        new_net(),
        replace(shipped_manifest, calibration=calibration),
        tmp_path / "stem",
        images=real_images,
        references=(SHAS, PROBABILITIES),
    )
    artifact = open_artifact(tmp_path / "stem")
    images, probabilities = artifact.golden()
    plain = writer.make_deployable(new_net(), mean=artifact.manifest.input.mean, std=artifact.manifest.input.std)
    own = writer.torch_probabilities(plain, images)
    np.testing.assert_allclose(probabilities, apply_temperature(own, 3.0), atol=1e-6)
    assert check_golden(artifact, OnnxRuntimeCpu().open(artifact.model_path, threads=1)).passed
    assert codec.load(Parity, tmp_path / "stem" / "verify.json").passed
    told = onnx.load(artifact.model_path).metadata_props
    assert "calibrated by the temperature 3; the largest decides" in {one.key: one.value for one in told}["output"]


def test_golden_images_agree_and_references_come_back(exported):
    artifact = open_artifact(exported[0])
    session = OnnxRuntimeCpu().open(artifact.model_path, threads=1)
    golden = check_golden(artifact, session)
    assert golden.passed
    assert golden.images == 12
    assert list(artifact.references()) == SHAS
    np.testing.assert_array_equal(list(artifact.references().values()), PROBABILITIES)


def test_the_recorded_parity_is_within_the_limit(exported):
    parity = codec.load(Parity, exported[0] / "verify.json")
    assert parity.passed
    assert parity.images == 64 + 12
    assert 0 < parity.max_difference < 1e-4
    assert torch.__version__ in parity.reference


def test_no_image_of_the_data_leaves_with_the_artifact(exported, real_images):
    artifact = open_artifact(exported[0])
    images, _ = artifact.golden()
    np.testing.assert_array_equal(images, golden_images(24, 24))
    assert not any((images == image).all(axis=(1, 2, 3)).any() for image in real_images)
    with np.load(exported[0] / "reference.npz", allow_pickle=False) as content:
        assert set(content) == {"sha256", "probabilities"}


def test_golden_images_are_many_kinds_and_the_same_everywhere():
    images = golden_images(40, 56)
    assert images.shape == (12, 40, 56, 3)
    assert images.dtype == np.uint8
    assert (images[0] == 0).all()
    assert (images[1] == 255).all()
    assert len({image.tobytes() for image in images}) == 12
    assert sha256_bytes(images.tobytes())[:16] == "f03c09872324c4ab"


def test_the_model_card_says_what_people_must_know_and_escapes_names(exported):
    card = (exported[0] / "model_card.md").read_text()
    for words in (
        "Not for clinical use without validation",
        "0.850 to 0.950",
        "No patient's image is in this folder",
        "backbone `smallnet`, cut at `stem`",
        r"\<viral\>",
        "1,000 parameters",
        "every distinct image counts as one",
    ):
        assert words in card


def test_the_code_on_the_model_card_runs(exported, real_images, tmp_path):
    from PIL import Image

    for name in ("model.onnx", "model_card.md"):
        shutil.copy(exported[0] / name, tmp_path)
    Image.fromarray(real_images[0]).save(tmp_path / "image.png")
    code = (tmp_path / "model_card.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 10
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = OnnxRuntimeCpu().open(tmp_path / "model.onnx", threads=1).run(real_images[:1])[0]
    answer = eval(child.stdout)  # a dict of floats that our own code printed
    assert list(answer) == ["normal", "bacterial, severe", "<viral>"]
    np.testing.assert_allclose(list(answer.values()), expected, atol=1e-6)


def test_a_file_that_is_another_model_is_not_published(quick_export, new_net, tmp_path):
    other = new_net()
    with torch.no_grad():
        other.head[-1].bias.add_(torch.tensor([0.01, 0.0, 0.0]))
    with pytest.raises(GateError, match="the exported file is not the model") as refused:
        quick_export(other, tmp_path / "stem")
    parity = refused.value.measured.parity
    assert parity.max_difference > parity.limit
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_always_says_the_same_is_not_published(new_net, shipped_manifest, real_images, tmp_path):
    constant = new_net()
    nn.init.zeros_(constant.head[-1].weight)
    with pytest.raises(GateError, match="same answer for every image"):
        OnnxFormat().export(
            constant, shipped_manifest, tmp_path / "stem", images=real_images, references=(SHAS, PROBABILITIES)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("atomic", [True, False])
def test_a_new_export_replaces_the_old_one_whole(quick_export, new_net, tmp_path, monkeypatch, atomic):
    if not atomic:
        monkeypatch.setattr(publishing, "_exchange", lambda a, b: False)
    first = quick_export(new_net(), tmp_path / "stem")
    (tmp_path / "stem" / "model_card.md").write_text("old")
    second = quick_export(new_net(), tmp_path / "stem", references=([SHAS[0]], PROBABILITIES[:1]))
    assert first != second
    assert open_artifact(tmp_path / "stem").manifest == second
    assert (tmp_path / "stem" / "model_card.md").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["stem"]


def test_a_failed_export_leaves_the_old_artifact(quick_export, new_net, tmp_path):
    first = quick_export(new_net(), tmp_path / "stem")
    other = new_net()
    with torch.no_grad():
        other.head[-1].bias.add_(torch.tensor([0.01, 0.0, 0.0]))
    with pytest.raises(GateError):
        quick_export(other, tmp_path / "stem")
    assert open_artifact(tmp_path / "stem").manifest == first
    assert [path.name for path in tmp_path.iterdir()] == ["stem"]


def test_a_folder_with_other_files_is_never_replaced(quick_export, new_net, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        quick_export(new_net(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_export_left_is_cleared_and_a_living_ones_is_not(quick_export, new_net, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".stem.{dead.pid}.partial", f".stem.{os.getppid()}.partial", f".other.{dead.pid}.partial"):
        (tmp_path / name).mkdir()
    quick_export(new_net(), tmp_path / "stem")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"stem", f".stem.{os.getppid()}.partial", f".other.{dead.pid}.partial"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": np.zeros((0, 24, 24, 3), np.uint8)}, "real uint8 images"),
        ({"images": np.zeros((4, 24, 24, 3), np.float32)}, "real uint8 images"),
        ({"images": np.zeros((4, 25, 24, 3), np.uint8)}, "real uint8 images"),
        ({"references": (SHAS, PROBABILITIES[:1])}, "2 reference images came with"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(quick_export, new_net, tmp_path, options, message):
    with pytest.raises(GateError, match=message):
        quick_export(new_net(), tmp_path / "stem", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_of_the_runtime_is_a_gate_error(quick_export, new_net, tmp_path, monkeypatch):
    crash = writer.run_isolated

    def run(function, *arguments, **options):
        return crash(os._exit, 9, **options)

    monkeypatch.setattr(writer, "run_isolated", run)
    with pytest.raises(GateError, match="cannot run the exported file on onnxruntime-cpu: the child process exited"):
        quick_export(new_net(), tmp_path / "stem")
    assert list(tmp_path.iterdir()) == []


def test_images_fewer_than_a_batch_are_enough_to_check(quick_export, new_net, tmp_path, real_images):
    quick_export(new_net(), tmp_path / "stem", images=real_images[:3])
    assert codec.load(Parity, tmp_path / "stem" / "verify.json").images == 3 + 12
