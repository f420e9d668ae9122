"""Exported files normalise as the trial did, for RGB and for grey networks, and say so in words."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ttl_deploy.errors import DataError
from ttl_deploy.export.formats import OnnxFormat
from ttl_deploy.export.model_card import render_model_card
from ttl_deploy.export.onnx_writer import export_for_timing, make_deployable, write_onnx
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import InputSpec, Parity
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu

SIDE = 24


def make_grey_net() -> nn.Module:
    torch.manual_seed(6)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    )
    net.channels = 1
    return net.eval()


def expected(net, images, mean, std):
    """Compute the probabilities with numpy's own average of the channels, in double precision up to the network."""
    grey = images.astype(np.float64).mean(axis=3)[:, None]
    with torch.inference_mode():
        return torch.softmax(net(torch.from_numpy(((grey / 255 - mean) / std).astype(np.float32))), 1).numpy()


@pytest.mark.parametrize(("mean", "std"), [(0.449, 0.226), (0.5, 0.5 / 1024)])
def test_a_grey_networks_file_averages_the_channels(real_images, tmp_path, mean, std):
    net = make_grey_net()
    net[0].weight.data *= std  # keeps the logits in a range where they can differ
    write_onnx(make_deployable(net, mean=(mean,), std=(std,)), tmp_path / "m.onnx", image_size=SIDE, metadata={})
    given = OnnxRuntimeCpu().open(tmp_path / "m.onnx", threads=1).run(real_images)
    np.testing.assert_allclose(given, expected(net, real_images, mean, std), atol=1e-5)
    assert np.ptp(given, axis=0).max() > 1e-3
    operations = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert operations[: operations.index("Conv")] == ["Cast", "Transpose", "ReduceMean", "Mul", "Add"]


def test_the_file_for_timing_fits_the_models_channels(real_images, tmp_path):
    net = make_grey_net()
    export_for_timing(net, SIDE, tmp_path / "timing.onnx")
    given = OnnxRuntimeCpu().open(tmp_path / "timing.onnx", threads=1).run(real_images)
    mean, std = (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3
    np.testing.assert_allclose(given, expected(net, real_images, mean, std), atol=1e-5)


@pytest.fixture(scope="module")
def grey_artifact(shipped_manifest, real_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grey") / "artifact"
    spec = InputSpec(name="", height=SIDE, width=SIDE, mean=(0.25,), std=(0.125,), max_batch=1)
    manifest = codec.from_builtins(
        type(shipped_manifest), codec.to_builtins(shipped_manifest) | {"input": codec.to_builtins(spec)}
    )
    references = (["ab" * 32], np.full((1, 3), 1 / 3, np.float32))
    OnnxFormat().export(make_grey_net(), manifest, folder, images=real_images, references=references)
    return folder


def test_manifest_metadata_and_card_say_it_in_words(grey_artifact):
    words = "(pixel / 255 - mean) / std with mean 0.25 and std 0.125 on the mean of red, green and blue"
    assert open_artifact(grey_artifact).manifest.input.normalisation == words
    assert words in (grey_artifact / "model_card.md").read_text(encoding="utf-8")
    metadata = {entry.key: entry.value for entry in onnx.load(grey_artifact / "model.onnx").metadata_props}
    assert metadata["input"].endswith(f"normalised inside: {words}")


def test_artifacts_from_before_there_were_words_still_open(grey_artifact, tmp_path):
    content = json.loads((grey_artifact / "manifest.json").read_text(encoding="utf-8"))
    del content["input"]["normalisation"]
    manifest = codec.from_builtins(type(open_artifact(grey_artifact).manifest), content)
    assert manifest.input.normalisation == ""
    parity = Parity(images=1, max_difference=0, mean_difference=0, decisions_flipped=0, limit=1e-4, reference="torch")
    assert "normalises them itself" in render_model_card(manifest, parity)


def test_a_manifest_with_two_means_is_refused(grey_artifact):
    content = json.loads((grey_artifact / "manifest.json").read_text(encoding="utf-8"))
    content["input"] |= {"mean": [0.5, 0.5], "std": [1, 1]}
    with pytest.raises(DataError, match="must both have one entry, or three"):
        codec.from_builtins(type(open_artifact(grey_artifact).manifest), content)
