"""An artifact is opened only when every file in it is what its manifest says."""

import json

import numpy as np
import onnx
import pytest

from ttl_deploy.errors import ArtifactError, NoRunError
from ttl_deploy.files import sha256_file
from ttl_deploy.runtime.artifact import decide, open_artifact


@pytest.mark.parametrize("name", ["", "manifest.json", "model.onnx"])
def test_an_artifact_opens_by_folder_manifest_or_model(artifact_folder, name):
    artifact = open_artifact(artifact_folder / name)
    assert artifact.manifest.name == "tiny"
    assert artifact.model_path == artifact_folder / "model.onnx"


def test_references_and_golden_images_come_back(artifact_folder, tiny):
    artifact = open_artifact(artifact_folder)
    images, probabilities = artifact.golden()
    np.testing.assert_array_equal(probabilities, tiny.expected(images))
    references = artifact.references()
    assert len(references) == 6
    assert all(len(sha256) == 64 and row.shape == (2,) for sha256, row in references.items())


def test_nothing_there_is_a_usage_error(tmp_path):
    with pytest.raises(NoRunError, match="there is no artifact at"):
        open_artifact(tmp_path / "nowhere")


def test_a_folder_without_manifest_is_refused(artifact_folder):
    (artifact_folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json"):
        open_artifact(artifact_folder)


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "golden.npz"])
def test_any_flipped_bit_is_noticed(artifact_folder, name):
    path = artifact_folder / name
    original = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(original), 20):
        damaged = bytearray(original)
        damaged[position] ^= 1 << int(position % 8)
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="changed or damaged"):
            open_artifact(artifact_folder)
    path.write_bytes(original)
    open_artifact(artifact_folder)


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "golden.npz"])
def test_a_truncated_missing_or_linked_file_is_refused(artifact_folder, name, tmp_path):
    path = artifact_folder / name
    original = path.read_bytes()
    path.write_bytes(original[:-1])
    with pytest.raises(ArtifactError, match="bytes, its manifest says"):
        open_artifact(artifact_folder)
    path.unlink()
    with pytest.raises(ArtifactError, match="missing or not a regular file"):
        open_artifact(artifact_folder)
    (tmp_path / "elsewhere").write_bytes(original)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="missing or not a regular file"):
        open_artifact(artifact_folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "sub/file", "..", ""])
def test_a_manifest_naming_files_elsewhere_is_refused(artifact_folder, tiny, name):
    tiny.change_manifest(
        artifact_folder, lambda content: content["files"].append({"name": name, "size_bytes": 1, "sha256": "0" * 64})
    )
    with pytest.raises(ArtifactError, match="only plain file names"):
        open_artifact(artifact_folder)


def test_a_manifest_that_leaves_a_file_out_is_refused(artifact_folder, tiny):
    tiny.change_manifest(artifact_folder, lambda content: content["files"].pop(0))
    with pytest.raises(ArtifactError, match=r"does not list model\.onnx"):
        open_artifact(artifact_folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("schema", 99, "schema 99"), ("classes", 3, "not a valid"), ("format", "engine", "not a valid")],
)
def test_an_unknown_or_broken_manifest_is_refused(artifact_folder, tiny, key, value, message):
    tiny.change_manifest(artifact_folder, lambda content: content.update({key: value}))
    with pytest.raises(ArtifactError, match=message):
        open_artifact(artifact_folder)


def test_a_manifest_whose_classes_were_swapped_is_refused(artifact_folder, tiny):
    tiny.change_manifest(artifact_folder, lambda content: content["classes"].reverse())
    with pytest.raises(ArtifactError, match="tell different stories"):
        open_artifact(artifact_folder)


def test_a_model_without_our_metadata_is_refused(artifact_folder, tiny):
    onnx.save(tiny.model(), artifact_folder / "model.onnx")
    tiny.seal(artifact_folder, tiny.manifest())
    with pytest.raises(ArtifactError, match="carries no metadata"):
        open_artifact(artifact_folder)


def test_pickled_arrays_are_never_loaded(artifact_folder, tiny, tmp_path):
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return (canary.write_text, ("ran",))

    np.savez(artifact_folder / "reference.npz", sha256=np.array([Payload()]), probabilities=np.zeros((1, 2)))
    tiny.seal(artifact_folder, tiny.manifest())
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_artifact(artifact_folder).references()
    assert not canary.exists()


def test_references_that_do_not_fit_the_classes_are_refused(artifact_folder, tiny):
    np.savez(artifact_folder / "reference.npz", sha256=np.array(["a"]), probabilities=np.zeros((1, 3), np.float32))
    tiny.seal(artifact_folder, tiny.manifest())
    with pytest.raises(ArtifactError, match="does not fit the manifest's classes"):
        open_artifact(artifact_folder).references()


def test_decisions_follow_the_manifest(tiny):
    probabilities = np.array([[0.6, 0.4], [0.4, 0.6], [0.75, 0.25]], dtype=np.float32)
    assert decide(probabilities, tiny.manifest()).tolist() == [0, 1, 0]
    by_threshold = tiny.manifest(decision="threshold", threshold=0.3)
    assert decide(probabilities, by_threshold).tolist() == [1, 1, 0]


def test_an_artifact_from_before_calibration_opens_and_decides_as_then(artifact_folder, tiny):
    for part in ("calibration", "operating_point"):
        tiny.change_manifest(artifact_folder, lambda content, part=part: content.pop(part))
    model = onnx.load(artifact_folder / "model.onnx")
    told = json.loads(model.metadata_props[0].value)
    onnx.helper.set_model_props(
        model,
        {"ttl_deploy": json.dumps({k: v for k, v in told.items() if k not in ("calibration", "operating_point")})},
    )
    onnx.save(model, artifact_folder / "model.onnx")
    digest, size = sha256_file(artifact_folder / "model.onnx"), (artifact_folder / "model.onnx").stat().st_size
    tiny.change_manifest(artifact_folder, lambda content: content["files"][0].update(sha256=digest, size_bytes=size))
    artifact = open_artifact(artifact_folder)
    assert (artifact.manifest.calibration, artifact.manifest.operating_point) == (None, None)
    assert artifact.manifest.temperature == 1
    assert artifact.decide(np.array([[0.6, 0.4], [0.4, 0.6]], np.float32)).tolist() == [0, 1]
