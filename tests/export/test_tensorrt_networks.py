"""Engines of whole and cut networks, by TensorRT for RTX from the very files that `export --format trt` writes.

Everything goes the way of an export, in fp32, fp16 and int8. To be quick, weights are random and images small, the slow
exporter writes each network once, what an export does in children is called in this process, and the kits come without
their wheel: that those are children, and that kits are whole, is tested elsewhere.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ttl_deploy.export import lowering, tensorrt_format, writer
from ttl_deploy.export.tensorrt_format import TensorRtFormat
from ttl_deploy.models import truncation
from ttl_deploy.plugins import Proof
from ttl_deploy.processes import Finished
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import CalibrationImages, Gate
from ttl_deploy.records.engines import EngineManifest, EngineRequest
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.runtime.kit import writing
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.parity import sqnr_db
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu
from ttl_deploy.runtime.tensorrt import engines
from ttl_deploy.runtime.tensorrt.trust import engine_path, manifest_path

pytest.importorskip("tensorrt_rtx")
SIDE, IMAGES = 64, 24
NETWORKS = (
    ("mobilenet_v2", "features.7"),
    ("mobilenet_v2", "full"),
    ("densenet121", "features.transition1"),
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


@pytest.fixture(scope="module", autouse=True)
def shortcuts():
    """Convert, judge and build in this process, and let the slow exporter write each network once."""
    written, write_onnx = {}, writer.write_onnx

    def write(deployable, path, **options):
        key = deployable.network.drawn_for
        if key not in written:
            written[key] = write_onnx(deployable, path, **options)
        path.write_bytes(written[key].SerializeToString())
        return written[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (lowering, tensorrt_format, writer, engines):
            patch.setattr(module, "run_isolated", lambda call, *given, timeout_s: Finished(value=call(*given)))
        patch.setattr(writer, "write_onnx", write)
        patch.setattr(writing, "write_wheel", lambda folder: None)
        yield


@pytest.fixture(scope="module")
def export(shipped_manifest, tmp_path_factory):
    """Export a network in a precision, with the engine; each once. Returns the folder."""
    root, drawn = tmp_path_factory.mktemp("run"), {}
    maker = TensorRtFormat(EngineRequest(flavour="rtx"))

    def once(network, precision):
        folder = root / "-".join((*network, precision))
        if not folder.exists():
            if network not in drawn:
                drawn[network] = draw(network, shipped_manifest)
            model, manifest, proof = drawn[network]
            maker.export(
                model,
                replace(manifest, precision=precision),
                folder,
                images=proof.images[:6],
                references=([f"{number:064x}" for number in range(IMAGES)], proof.probabilities),
                proof=proof,
                limit=1e-3,
            )
        return folder

    return once


def draw(network, shipped):
    """Return a model with random weights, a manifest for it, and images to judge its files by."""
    spec = ModelSpec(backbone=network[0], cut=network[1], classes=2, image_size=SIDE)
    given = replace(shipped.input, height=SIDE, width=SIDE)
    manifest = replace(shipped, model=spec, classes=shipped.classes[:2], input=given, format="trt")
    torch.manual_seed(0)
    model = truncation.build(spec)
    settle(model)
    model.drawn_for = spec  # copies of it are the same network to the exporter
    images = draw_images(IMAGES, seed=2)
    deployable = writer.make_deployable(model, mean=given.mean, std=given.std)
    probabilities = writer.torch_probabilities(deployable, images)
    proof = Proof(
        images=images,
        labels=[int(label) for label in probabilities[:, 1] > np.median(probabilities[:, 1])],
        patients=[str(number) for number in range(IMAGES)],
        probabilities=probabilities,
        gate=Gate(max_drop=0.4, min_agreement=0.5),  # random weights carry rounding on; trained ones have their tests
        calibration=draw_images(4, seed=1),
        calibrated_on=CalibrationImages(split="train", images=4, patients=4, per_class=(2, 2), seed=0, sha256=""),
    )
    return model, manifest, proof


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("network", NETWORKS, ids="-".join)
def test_an_engine_is_built_from_the_file_that_is_exported(export, network, precision):
    folder = export(network, precision)
    engine = engine_path(folder, "rtx")
    manifest = codec.load(EngineManifest, manifest_path(engine))
    print(f"{precision}: {manifest.build_s:.2f} s, {manifest.engine.size_bytes / 1e6:.1f} MB, {manifest.layers} layers")
    assert manifest.precision == read_onnx_facts(folder / "model.onnx").weight_precision == precision
    assert manifest.layers > 50
    assert not manifest.warnings
    assert engine.stat().st_size > (export(network, "fp32") / "model.onnx").stat().st_size / 5


@pytest.mark.parametrize("network", NETWORKS, ids="-".join)
def test_half_precision_computes_what_single_does(export, network):
    images = draw_images(6, seed=2)
    exact, rounded = (
        OnnxRuntimeCpu().open(export(network, name) / "model.onnx", threads=1).run(images) for name in ("fp32", "fp16")
    )
    assert 0 < np.abs(rounded - exact).max() < 0.05
    assert sqnr_db(rounded, exact) > LEAST_DB
    assert np.ptp(exact, axis=0).max() > 0.1
