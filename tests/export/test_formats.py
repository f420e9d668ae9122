"""Formats and precisions: what passes its gate is published and says what ran; what does not pass is not there."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ttl_deploy import plugins
from ttl_deploy.errors import GateError, UsageError
from ttl_deploy.export import formats, writer
from ttl_deploy.plugins import Proof
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import CalibrationImages, Gate, Parity
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.inference import open_safely
from ttl_deploy.runtime.ir_file import read_ir_facts
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.verify import LabelledImages, check_golden, verify

COUNT = 400
SHAS = [f"{i:064x}" for i in range(COUNT)]
DESCRIBED = CalibrationImages(split="train", images=32, patients=32, per_class=(11, 11, 10), seed=0, sha256="")


def draw_images(count, *, seed):
    """Draw smooth random images with a clear colour, as unlike the golden ones as radiographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 3, 3, 1)) // 2 + rng.integers(0, 128, (count, 1, 1, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8)


class SpikyNet(torch.nn.Module):
    """A network in which one channel is a thousand times larger than those that decide: its reader cannot be 8 bits."""

    def __init__(self, spike):
        super().__init__()
        torch.manual_seed(1)
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.reader = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.last = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3))
        with torch.no_grad():
            self.first.weight[0] *= spike
            self.reader.weight[:, 0] = 0
            self.head[2].weight.mul_(40)

    def forward(self, x):
        return self.head(torch.relu(self.last(torch.relu(self.reader(torch.relu(self.first(x)))))))


def prove(net, manifest, *, max_drop=0.02, count=COUNT, **changes):
    """Label images by what the net says of them, one in ten at random, and prove with them."""
    images = draw_images(count, seed=3)
    deployable = writer.make_deployable(net, mean=manifest.input.mean, std=manifest.input.std)
    probabilities = writer.torch_probabilities(deployable, images)
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(count) < 0.1, rng.integers(0, 3, count), probabilities.argmax(axis=1))
    proof = Proof(
        images=images,
        labels=[int(label) for label in labels],
        patients=[f"p{i}" for i in range(count)],
        probabilities=probabilities,
        gate=Gate(max_drop=max_drop),
        calibration=draw_images(32, seed=4),
        calibrated_on=DESCRIBED,
    )
    return replace(proof, **changes)


def export(name, precision, net, manifest, folder, **changes):
    proof = prove(net, manifest, **changes)
    return plugins.load("formats", name)().export(
        net,
        replace(manifest, format=name, precision=precision),
        folder,
        images=proof.images[:64],
        references=(SHAS[: len(proof.images)], proof.probabilities),
        proof=proof,
    ), proof


def labelled(proof, manifest):
    return LabelledImages(
        images=proof.images,
        labels=proof.labels,
        patients=proof.patients,
        sha256s=SHAS[: len(proof.images)],
        classes=manifest.classes,
        split="val",
    )


@pytest.fixture(autouse=True, scope="module")
def exporter_runs_once_per_network():
    """Keep what the slow exporter writes: the same network gives the same file."""
    kept, real = {}, writer.write_onnx

    def write(deployable, path, **options):
        name = type(deployable.network).__name__
        if name not in kept:
            kept[name] = real(deployable, path, **options)
        path.write_bytes(kept[name].SerializeToString())
        return kept[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "write_onnx", write)
        yield


@pytest.fixture(scope="module")
def ort_int8(new_net, shipped_manifest, tmp_path_factory):
    """One 8-bit export for several tests."""
    folder = tmp_path_factory.mktemp("run") / "stem-ort-int8"
    manifest, proof = export("ort", "int8", new_net(), shipped_manifest, folder)
    return folder, manifest, proof


def test_an_8_bit_file_says_how_it_was_made_what_ran_and_that_it_passed(ort_int8):
    folder, manifest, _ = ort_int8
    assert open_artifact(folder).manifest == manifest
    assert (manifest.format, manifest.precision, manifest.executed.precision) == ("ort", "int8", "int8")
    assert manifest.executed.target == "onnxruntime-cpu"
    assert manifest.quantisation.calibration == DESCRIBED
    assert manifest.quantisation.attempts[-1].passed
    assert read_onnx_facts(folder / "model.onnx").weight_precision == "int8"
    own = open_artifact(folder).golden_of_file()
    assert manifest.gate.golden_limit == pytest.approx(min(0.02, 0.1 * np.ptp(own, axis=0).max()))
    parity = codec.load(Parity, folder / "verify.json")
    assert parity.passed
    assert parity.gate == manifest.gate
    assert parity.agreement >= 0.98
    assert parity.auroc.difference.low > -0.02
    assert parity.images == COUNT
    card = (folder / "model_card.md").read_text()
    for words in (
        "really ran int8",
        "ranges from 32 training images",
        "Tried, in this order",
        "a loss of 0.02 must be",
    ):
        assert words in card


def test_an_8_bit_file_is_verified_by_its_own_gate_and_answers(ort_int8):
    folder, manifest, proof = ort_int8
    report = verify(open_artifact(folder), labelled(proof, manifest))
    assert report.passed, report.note
    assert report.parity.gate == manifest.gate
    assert (report.precision, report.executed.precision) == ("int8", "int8")
    assert report.golden.max_difference <= 1e-6
    assert report.parity.max_difference > 1e-4  # the strict limit would have refused it


def break_constant(folder, name, factor):
    """Change the normalisation in the file by a factor, and mend the manifest's hashes, so that only numbers tell."""
    artifact = open_artifact(folder)
    model = onnx.load(artifact.model_path)
    shift = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(shift).copy()
    values.flat[0] *= factor
    shift.CopyFrom(numpy_helper.from_array(values, shift.name))
    artifact.model_path.write_bytes(model.SerializeToString())
    entries = tuple(
        writer.describe_file(folder / entry.name) if entry.name == "model.onnx" else entry
        for entry in artifact.manifest.files
    )
    codec.save(folder / "manifest.json", replace(artifact.manifest, files=entries))


@pytest.mark.parametrize(("name", "factor"), [("shift", 0.7), ("scale", 1.2)])
def test_one_wrong_normalisation_constant_is_refused_in_8_bits(ort_int8, tmp_path, name, factor):
    folder, manifest, proof = ort_int8
    broken = shutil.copytree(folder, tmp_path / "broken")
    break_constant(broken, name, factor)
    report = verify(open_artifact(broken), labelled(proof, manifest))
    assert not report.passed
    assert not report.golden.passed
    assert "golden images differ from what this file said at its export" in report.note


def test_one_wrong_normalisation_constant_is_refused_in_single_precision(new_net, shipped_manifest, tmp_path):
    folder = tmp_path / "stem"
    manifest, proof = export("onnx", "fp32", new_net(), shipped_manifest, folder)
    assert codec.load(Parity, folder / "verify.json").auroc.difference.value == pytest.approx(0, abs=1e-6)
    assert verify(open_artifact(folder), labelled(proof, manifest)).passed
    break_constant(folder, "shift", 1.01)
    report = verify(open_artifact(folder), labelled(proof, manifest))
    assert not report.passed
    assert report.parity.max_difference > 1e-4


def test_a_sensitive_layer_is_found_and_kept(shipped_manifest, tmp_path):
    net = SpikyNet(3000).eval()
    manifest, _ = export("onnx", "int8", net, shipped_manifest, tmp_path / "spiky", max_drop=0.05)
    first, *_, last = manifest.quantisation.attempts
    assert not first.passed
    assert first.kept == ()
    assert last.passed
    assert "reader" in manifest.quantisation.kept
    weights = {tensor.name: tensor for tensor in onnx.load(tmp_path / "spiky" / "model.onnx").graph.initializer}
    assert weights["network.reader.weight"].data_type == onnx.TensorProto.FLOAT
    assert "sensitive layers kept in fp32" in (tmp_path / "spiky" / "model_card.md").read_text()


def test_a_file_that_answers_at_random_is_not_published(new_net, shipped_manifest, tmp_path, monkeypatch):
    honest = writer.run_file

    def noisy(model, manifest, images, **options):
        answered = honest(model, manifest, images, **options)
        if manifest.precision == "fp32":
            return answered
        noise = np.random.default_rng(0).random(answered.probabilities.shape).astype(np.float32)
        return replace(answered, probabilities=noise / noise.sum(axis=1, keepdims=True))

    monkeypatch.setattr(writer, "run_file", noisy)
    with pytest.raises(GateError, match=r"no int8 file held the gate in . tries, and nothing was published"):
        export("ort", "int8", new_net(), shipped_manifest, tmp_path / "stem")
    assert list(tmp_path.iterdir()) == []


def test_too_few_patients_are_a_failure_that_says_how_many(new_net, shipped_manifest, tmp_path):
    with pytest.raises(GateError, match=r"a class stands for \d patients only, fewer than 10"):
        export("ort", "int8", new_net(), shipped_manifest, tmp_path / "stem", count=20)
    assert list(tmp_path.iterdir()) == []


def test_8_bits_without_images_to_judge_or_calibrate_with_are_refused(new_net, shipped_manifest, tmp_path):
    proof = prove(new_net(), shipped_manifest, count=64)
    for given in (None, replace(proof, calibration=proof.calibration[:0])):
        with pytest.raises(UsageError, match="int8 needs labelled validation images"):
            formats.OrtFormat().export(
                new_net(),
                replace(shipped_manifest, precision="int8"),
                tmp_path / "stem",
                images=proof.images,
                references=(SHAS[:64], proof.probabilities),
                proof=given,
            )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["onnx", "ort"])
def test_bf16_is_refused_where_nothing_runs_it(name, new_net, shipped_manifest, tmp_path):
    with pytest.raises(UsageError, match=f"{name} can be fp32 or int8, not bf16"):
        export(name, "bf16", new_net(), shipped_manifest, tmp_path / "stem", count=64)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_openvino_files_carry_their_description_and_run_as_asked(precision, new_net, shipped_manifest, tmp_path):
    pytest.importorskip("openvino")
    if precision not in plugins.load("targets", "openvino-cpu")().precisions():
        pytest.skip(f"this processor does not run {precision}")
    folder = tmp_path / "stem"
    manifest, proof = export("openvino", precision, new_net(), shipped_manifest, folder)
    artifact = open_artifact(folder)
    assert (artifact.default_target, artifact.model_path.name) == ("openvino-cpu", "model.xml")
    assert {entry.name for entry in manifest.files} >= {"model.xml", "model.bin"}
    assert manifest.executed.precision == precision
    assert read_ir_facts(folder / "model.xml").metadata["classes"]
    session = open_safely("openvino-cpu", artifact.model_path, threads=1, precision=precision)
    assert check_golden(artifact, session).passed
    report = verify(artifact, labelled(proof, manifest))
    assert report.passed, report.note
    assert report.executed.precision == precision


def test_without_openvino_the_shared_file_is_judged_by_onnx_runtime_which_says_what_it_computed_in(
    new_net, shipped_manifest, tmp_path, monkeypatch
):
    monkeypatch.setattr("ttl_deploy.runtime.artifact.find_spec", lambda name: None)
    manifest, _ = export("onnx", "int8", new_net(), shipped_manifest, tmp_path / "stem")
    artifact = open_artifact(tmp_path / "stem")
    assert artifact.default_target == manifest.executed.target == "onnxruntime-cpu"
    assert "install 'ttl-deploy[openvino]'" in artifact.target_note
    assert sum(manifest.executed.layers.values()) == 3
    assert read_onnx_facts(artifact.model_path).weight_precision == "int8"


def test_a_shared_file_prefers_openvino_where_it_is_and_says_so(new_net, shipped_manifest, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    manifest, proof = export("onnx", "int8", new_net(), shipped_manifest, tmp_path / "stem")
    artifact = open_artifact(tmp_path / "stem")
    assert artifact.default_target == manifest.executed.target == "openvino-cpu"
    assert "--target onnxruntime-cpu forces it" in artifact.target_note
    for target in ("openvino-cpu", "onnxruntime-cpu"):
        assert verify(artifact, labelled(proof, manifest), target=target).passed
