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
QUICK = ("mobilenet_v2", "features.7")
NETWORKS = (
    QUICK,
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


@pytest.fixture(scope="module")
def draw_graph(tmp_path_factory):
    """Write a network's graph in a precision, as the format makes it; each once."""
    root, kept = tmp_path_factory.mktemp("graphs"), {}

    def once(network, precision):
        path = root / f"{'-'.join(network)}-{precision}.onnx"
        if path not in kept:
            kept[path] = path
            if precision == "fp32":
                write_single(network, path)
            elif precision == "fp16":
                write_half(once(network, "fp32"), path)
            else:
                quantise(once(network, "fp32"), path)
        return path

    return once


def write_single(network, path):
    backbone, cut = network
    torch.manual_seed(0)
    model = truncation.build(ModelSpec(backbone=backbone, cut=cut, classes=3, image_size=SIDE))
    settle(model)
    deployable = make_deployable(model, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), temperature=1.3)
    write_onnx(deployable, path, image_size=SIDE, metadata={})


def quantise(source, path):
    prepared = path.with_suffix(".prepared")
    quantisation.prepare(source, prepared)
    quantisation.quantise(
        prepared,
        path,
        recipe=quantisation.SHARED,
        ranges=path.with_suffix(".json"),
        images=draw_images(8, seed=1),
    )


BUILDS = [(network, precision) for network in NETWORKS for precision in ("fp32", "fp16", "int8")]


@pytest.mark.parametrize(
    ("network", "precision"),
    [pytest.param(*one, marks=() if one == (QUICK, "fp16") else pytest.mark.slow) for one in BUILDS],
    ids=lambda part: part if isinstance(part, str) else "-".join(part),
)
def test_an_engine_is_built_from_the_graph_in_this_precision(draw_graph, tmp_path, network, precision):
    request = EngineRequest(flavour="rtx", options=EngineOptions())
    graph = draw_graph(network, precision)
    manifest = make_engine(graph, tmp_path, request)
    print(f"{precision}: {manifest.build_s:.2f} s, {manifest.engine.size_bytes / 1e6:.1f} MB, {manifest.layers} layers")
    assert manifest.precision == read_onnx_facts(graph).weight_precision == precision
    assert manifest.layers > 50
    assert not manifest.warnings
    weights = draw_graph(network, "fp32").stat().st_size
    assert manifest.engine.size_bytes > weights / 5


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids="-".join)
def test_half_precision_computes_what_single_does(draw_graph, network):
    images = draw_images(6, seed=2)
    exact, rounded = (
        OnnxRuntimeCpu().open(draw_graph(network, name), threads=1).run(images) for name in ("fp32", "fp16")
    )
    assert 0 < np.abs(rounded - exact).max() < 0.05
    assert sqnr_db(rounded, exact) > LEAST_DB
    assert np.ptp(exact, axis=0).max() > 0.1
