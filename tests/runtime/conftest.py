"""A tiny artifact whose answers numpy can compute: mean colour, one linear layer, softmax."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ttl_deploy.files import sha256_bytes, sha256_file
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import ArtifactManifest, FileEntry, InputSpec
from ttl_deploy.records.data import DataFingerprint, DecodeSettings
from ttl_deploy.records.models import ModelSpec

onnx = pytest.importorskip("onnx")
SIDE = 16
WEIGHT = np.array([[4.0, -2.0], [-3.0, 1.0], [0.5, 2.0]], dtype=np.float32)


def expected_probabilities(images):
    """Compute what the tiny model gives for uint8 images `(N, 16, 16, 3)`, in numpy."""
    logits = (images.astype(np.float64) / 255).mean(axis=(1, 2)) @ WEIGHT.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def tiny_model(metadata=None, weight_type=np.float32):
    helper, numpy_helper, tensor = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    weight = numpy_helper.from_array(WEIGHT.astype(weight_type), "weight")
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=tensor.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["weight"], ["weight32"], to=tensor.FLOAT),
        helper.make_node("MatMul", ["mean", "weight32"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [
        weight,
        numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", tensor.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", tensor.FLOAT, ["batch", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    return model


def tiny_manifest(**changes):
    manifest = ArtifactManifest(
        name="tiny",
        format="onnx",
        precision="fp32",
        model=ModelSpec(backbone="tiny", cut="full", classes=2, image_size=SIDE),
        classes=("normal", "ill"),
        decode=DecodeSettings(image_size=SIDE),
        input=InputSpec(name="image", height=SIDE, width=SIDE, mean=(0, 0, 0), std=(1, 1, 1), max_batch=8),
        output="probabilities",
        decision="argmax",
        threshold=None,
        scores=(),
        params=6,
        macs=6,
        data=DataFingerprint(
            name="d", reader="folder", sha256="0" * 64, classes=("normal", "ill"), counts=(), patients_known=False
        ),
        strategy="full",
        seed=0,
        weights_sha256="0" * 64,
        weights_note="",
        versions={},
        opset=18,
        ir_version=10,
        created="2026-01-01T00:00:00+00:00",
        intended_use="research",
    )
    return replace(manifest, **changes)


def random_images(count, seed=0):
    """Draw images of clearly different mean colours."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (count, 1, 1, 3))
    noise = rng.integers(-20, 21, (count, SIDE, SIDE, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def write_artifact(folder, *, manifest=None, reference_images=None):
    """Write a whole artifact; references are for `reference_images`, named by the hash of their bytes."""
    folder.mkdir()
    manifest = manifest or tiny_manifest()
    onnx.save(tiny_model({"ttl_deploy": codec.to_json(manifest)}), folder / "model.onnx")
    images = random_images(6, seed=1) if reference_images is None else reference_images
    golden = random_images(5, seed=2)
    np.savez(
        folder / "reference.npz",
        sha256=np.array([sha256_bytes(image.tobytes()) for image in images]),
        probabilities=expected_probabilities(images),
    )
    np.savez(folder / "golden.npz", images=golden, probabilities=expected_probabilities(golden))
    seal(folder, manifest)
    return folder


def seal(folder, manifest):
    """Write the manifest with the present files' hashes."""
    files = tuple(
        FileEntry(name=name, size_bytes=(folder / name).stat().st_size, sha256=sha256_file(folder / name))
        for name in ("model.onnx", "reference.npz", "golden.npz")
    )
    (folder / "manifest.json").write_text(codec.to_json(replace(manifest, files=files)))


def change_manifest(folder, change):
    """Apply `change` to the manifest's JSON content."""
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


@pytest.fixture
def artifact_folder(tmp_path):
    return write_artifact(tmp_path / "artifact")


@pytest.fixture(scope="session")
def tiny():
    """The module's functions, for tests that build their own artifacts."""
    from types import SimpleNamespace

    return SimpleNamespace(
        side=SIDE,
        weight=WEIGHT,
        expected=expected_probabilities,
        model=tiny_model,
        manifest=tiny_manifest,
        images=random_images,
        write=write_artifact,
        seal=seal,
        change_manifest=change_manifest,
    )
