"""Engines of whole and cut networks, by TensorRT for RTX from the very graphs that `export --format trt` writes.

Weights are random and images small: what is tested is that the parser and the builder take each graph in each
precision, and that the graph in half precision computes what the one in single does.
"""

import numpy as np
import pytest
import torch

from ttl_deploy.export import quantisation
from ttl_deploy.export.half_precision import write_half
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx
from ttl_deploy.models import truncation
from ttl_deploy.records.engines import EngineOptions, EngineRequest
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.parity import sqnr_db
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu
from ttl_deploy.runtime.tensorrt.engines import make_engine

pytest.importorskip("tensorrt_rtx")
SIDE = 64
FAST = (("mobilenet_v2", "features.7"),)
SLOW = (
    ("mobilenet_v2", "full"),
    ("densenet121", "features.transition2"),
    ("densenet121", "full"),
    ("resnet50", "layer2.3"),
    ("resnet50", "full"),
)
LEAST_DB = 30  # of the logits: networks of random weights carry rounding on, trained ones less so


def draw_images(count, *, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3))
    return coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2).astype(np.uint8)


def settle(network):
    """Give BatchNorm the statistics of some images, and the last layer answers that differ from image to image."""
    images = torch.from_numpy(draw_images(16, seed=3)).permute(0, 3, 1, 2) / 64 - 2
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches
    with torch.no_grad():
        network.train()(images)
        logits = network.eval()(images)
        last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        spread, mean = logits.std(dim=0), logits.mean(dim=0)
        last.weight.div_(spread[:, None])
        last.bias.copy_((last.bias - mean) / spread)


@pytest.fixture(
    scope="module", params=[*FAST, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)], ids="-".join
)
def graphs(request, tmp_path_factory):
    """A network's graph in the three precisions, as the format makes them."""
    backbone, cut = request.param
    folder = tmp_path_factory.mktemp(f"{backbone}-{cut}")
    torch.manual_seed(0)
    network = truncation.build(ModelSpec(backbone=backbone, cut=cut, classes=3, image_size=SIDE))
    settle(network)
    files = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    deployable = make_deployable(network, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), temperature=1.3)
    write_onnx(deployable, files["fp32"], image_size=SIDE, metadata={})
    write_half(files["fp32"], files["fp16"])
    quantisation.prepare(files["fp32"], folder / "prepared.onnx")
    quantisation.quantise(
        folder / "prepared.onnx",
        files["int8"],
        recipe=quantisation.SHARED,
        ranges=folder / "ranges.json",
        images=draw_images(8, seed=1),
    )
    return files


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_from_the_graph_in_this_precision(graphs, tmp_path, precision):
    request = EngineRequest(flavour="rtx", options=EngineOptions())
    manifest = make_engine(graphs[precision], tmp_path, request)
    print(f"{precision}: {manifest.build_s:.2f} s, {manifest.engine.size_bytes / 1e6:.1f} MB, {manifest.layers} layers")
    assert manifest.precision == read_onnx_facts(graphs[precision]).weight_precision == precision
    assert manifest.layers > 50
    assert not manifest.warnings
    weights = graphs["fp32"].stat().st_size
    assert manifest.engine.size_bytes > weights / 5


def test_half_precision_computes_what_single_does(graphs):
    images = draw_images(6, seed=2)
    exact, rounded = (OnnxRuntimeCpu().open(graphs[name], threads=1).run(images) for name in ("fp32", "fp16"))
    assert 0 < np.abs(rounded - exact).max() < 0.05
    assert sqnr_db(rounded, exact) > LEAST_DB
    assert np.ptp(exact, axis=0).max() > 0.1
