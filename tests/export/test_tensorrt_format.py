"""The format `trt`: the graph carries the precision, the engine comes with it or the folder says how to build it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from tests.export.test_formats import (  # noqa: F401 # the last is a fixture of this file too
    SHAS,
    exporter_runs_once_per_network,
    labelled,
    prove,
)
from ttl_deploy.errors import GateError, TargetUnavailableError, UsageError
from ttl_deploy.export import half_precision
from ttl_deploy.export.tensorrt_format import TensorRtFormat
from ttl_deploy.export.writer import Writing
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import Parity
from ttl_deploy.records.engines import BatchRange, EngineManifest, EngineOptions, EngineRequest
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.tensorrt import flavours
from ttl_deploy.runtime.verify import verify

RTX = EngineRequest(flavour="rtx", options=EngineOptions(batch=BatchRange(smallest=1, usual=2, largest=4)))


@pytest.fixture(autouse=True)
def _needs_tensorrt_for_rtx(monkeypatch):
    pytest.importorskip("tensorrt_rtx")


def export(maker, precision, net, manifest, folder, **changes):
    proof = prove(net, manifest, **changes)
    made = maker.export(
        net,
        replace(manifest, format="trt", precision=precision),
        folder,
        images=proof.images[:64],
        references=(SHAS[: len(proof.images)], proof.probabilities),
        proof=proof,
    )
    return made, proof


PRECISIONS = ["fp16", pytest.param("fp32", marks=pytest.mark.slow), pytest.param("int8", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def ship(new_net, shipped_manifest, tmp_path_factory):
    """Export with an engine by TensorRT for RTX, each precision once: folder, manifest, proof."""
    root, kept = tmp_path_factory.mktemp("run"), {}

    def once(precision):
        if precision not in kept:
            folder = root / precision
            kept[precision] = (folder, *export(TensorRtFormat(RTX), precision, new_net(), shipped_manifest, folder))
        return kept[precision]

    return once


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_precision_is_in_the_graph_with_an_engine_built_ahead_of_time(ship, precision):
    folder, manifest, _ = ship(precision)
    artifact = open_artifact(folder)
    assert artifact.manifest == manifest
    assert (manifest.format, manifest.precision, manifest.opset, manifest.ir_version) == ("trt", precision, 18, 10)
    assert read_onnx_facts(folder / "model.onnx").weight_precision == precision
    engine = codec.load(EngineManifest, folder / "model.rtx.json")
    assert engine.model.sha256 == artifact.model_sha256
    assert engine.precision == precision
    assert engine.engine.size_bytes == (folder / "model.rtx.engine").stat().st_size
    card = (folder / "model_card.md").read_text()
    assert "model.rtx.engine" in card
    assert "not run: there was no GPU where it was built" in card
    assert f"exported as ONNX for TensorRT in {precision}" in card
    assert {path.name for path in folder.iterdir()} == {
        *("model.onnx", "manifest.json", "golden.npz", "reference.npz", "verify.json", "model_card.md"),
        *("model.rtx.engine", "model.rtx.json", "build_on_target.sh", "kit"),
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_graph_is_verified_on_the_cpu_which_says_what_it_computed_in(ship, precision):
    folder, manifest, proof = ship(precision)
    report = verify(open_artifact(folder), labelled(proof, manifest))
    assert report.passed, report.note
    ran = "int8" if report.executed.target == "openvino-cpu" else "fp32"
    assert report.executed.precision == ran
    assert report.parity.max_difference > (0 if precision == "fp32" else 1e-5)


def test_half_precision_was_judged_by_the_gate(ship):
    folder, manifest, _ = ship("fp16")
    parity = codec.load(Parity, folder / "verify.json")
    assert parity.gate == manifest.gate
    assert parity.passed
    assert parity.agreement >= 0.98
    assert parity.auroc.difference.low > -0.02
    assert manifest.quantisation is None
    assert "fp16" in (folder / "model_card.md").read_text()


def test_without_tensorrt_or_a_gpu_the_folder_says_that_no_engine_was_built_and_how_to_build_it(
    new_net, shipped_manifest, tmp_path, monkeypatch
):
    monkeypatch.setattr(flavours, "find_spec", lambda name: None)
    folder = tmp_path / "stem"
    export(TensorRtFormat(), "fp16", new_net(), shipped_manifest, folder)
    card = (folder / "model_card.md").read_text()
    assert "The engine was not built here: TensorRT is not installed." in card
    assert "`ttl-deploy build . --flavour trt`" in card
    assert "`sh build_on_target.sh`" in card
    kit = json.loads((folder / "kit" / "kit.json").read_text())
    assert (kit["target"], kit["flavour"], kit["precision"]) == ("tensorrt", "trt", "fp16")
    assert kit["limit"] == open_artifact(folder).manifest.gate.foreign_golden_limit
    assert not list(folder.glob("*.engine"))
    assert open_artifact(folder).manifest.format == "trt"


def test_without_tensorrt_for_rtx_its_flavour_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(flavours, "find_spec", lambda name: None)
    with pytest.raises(TargetUnavailableError, match=r"ttl-deploy\[rtx\]"):
        TensorRtFormat(RTX)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timing_cache": "kept"}, "--timing-cache: TensorRT for RTX measures nothing"),
        ({"options": EngineOptions(compute_capabilities=("3.0",))}, r"--compute-capability 3\.0: .* knows 7\.5, 8\.0"),
        ({"options": EngineOptions(hardware="ampere-plus")}, "run on all GPUs from SM 8.0 on"),
    ],
)
def test_options_that_its_flavour_does_not_have_are_refused_before_anything_is_exported(changes, words):
    with pytest.raises(UsageError, match=words):
        TensorRtFormat(replace(RTX, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_jetpack_5_gets_opset_17_in_every_precision_and_the_command_to_build_with(
    new_net, shipped_manifest, tmp_path, precision
):
    folder = tmp_path / "stem"
    manifest, _ = export(TensorRtFormat(RTX, jetpack5=True), precision, new_net(), shipped_manifest, folder)
    model = onnx.load(folder / "model.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert (model.ir_version, manifest.opset, manifest.ir_version) == (8, 17, 8)
    onnx.checker.check_model(model, full_check=True)
    card = (folder / "model_card.md").read_text()
    assert "trtexec --onnx=model.onnx --minShapes=image:1x24x24x3" in card
    assert (f"--{precision}" in card) == (precision != "fp32")
    assert not list(folder.glob("*.engine"))


def test_an_engine_that_cannot_be_built_leaves_nothing_behind(new_net, shipped_manifest, tmp_path):
    turing = EngineRequest(flavour="rtx", options=EngineOptions(compute_capabilities=("7.5",)))
    with pytest.raises(GateError, match="builds no fp32 layers for Turing"):
        export(TensorRtFormat(turing), "fp32", new_net(), shipped_manifest, tmp_path / "stem")
    assert list(tmp_path.iterdir()) == []


def test_an_export_over_an_older_one_replaces_its_engine_too(ship, new_net, shipped_manifest, tmp_path, monkeypatch):
    folder = shutil.copytree(ship("fp16")[0], tmp_path / "stem")
    shutil.copy(folder / "model.rtx.engine", folder / "model.trt.engine")
    monkeypatch.setattr(TensorRtFormat, "_why_not_here", lambda self: "there is no GPU")
    export(TensorRtFormat(), "fp32", new_net(), shipped_manifest, folder)
    assert not list(folder.glob("*.engine"))


class LoudNet(torch.nn.Module):
    """A net whose activations end beyond what half precision holds, and whose answers hardly show it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3))
        with torch.no_grad():
            self.first.weight.mul_(1e5)
            self.last.weight.mul_(1e-4)
            self.head[2].weight.mul_(10)

    def forward(self, x):
        return self.head(torch.relu(self.last(torch.relu(self.first(x)))))


def test_activations_are_measured_before_half_precision_is_made(new_net, shipped_manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(half_precision, "LARGEST", 1.0)
    with pytest.raises(GateError, match=r"fp16 was not published: .* reaches"):
        export(TensorRtFormat(RTX), "fp16", new_net(), shipped_manifest, tmp_path / "stem")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_activations_beyond_half_precision_are_found_though_the_cpu_never_shows_them(shipped_manifest, tmp_path):
    with pytest.raises(GateError, match=r"reaches .*e\+05 on validation images, and fp16 ends at 65504"):
        export(TensorRtFormat(RTX), "fp16", LoudNet().eval(), shipped_manifest, tmp_path / "loud")
    assert list(tmp_path.iterdir()) == []


def test_half_precision_that_changes_decisions_is_not_published(new_net, shipped_manifest, tmp_path, monkeypatch):
    honest = Writing.judge

    def worse(self, model):
        return replace(honest(self, model), decisions_flipped=40)

    monkeypatch.setattr(Writing, "judge", worse)
    with pytest.raises(GateError, match=r"fp16 does not hold the gate: 40 of 400 decisions changed") as refused:
        export(TensorRtFormat(RTX), "fp16", new_net(), shipped_manifest, tmp_path / "stem")
    assert refused.value.measured.parity.decisions_flipped == 40
    assert list(tmp_path.iterdir()) == []


def test_half_precision_without_images_to_judge_by_is_refused(new_net, shipped_manifest, tmp_path):
    with pytest.raises(UsageError, match="fp16 needs labelled validation images"):
        TensorRtFormat(RTX).export(
            new_net(),
            replace(shipped_manifest, format="trt", precision="fp16"),
            tmp_path / "stem",
            images=np.zeros((1, 24, 24, 3), np.uint8),
            references=(SHAS[:1], np.ones((1, 3), np.float32) / 3),
        )
    with pytest.raises(UsageError, match="trt can be fp32 or fp16 or int8, not bf16"):
        export(TensorRtFormat(RTX), "bf16", new_net(), shipped_manifest, tmp_path / "stem")


def test_torchs_names_are_there_for_the_second_way_to_cuda():
    for name in ("Stream", "Event", "CUDAGraph", "graph", "stream", "is_available", "get_device_capability"):
        assert hasattr(torch.cuda, name)
    assert hasattr(torch.cuda.CUDAGraph, "replay")
    assert torch.version.cuda is None or isinstance(torch.version.cuda, str)
