"""The last resort: a finetuned model is tried when all else has failed, judged alike, and the artifact says so."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import torch.fx
from onnx import numpy_helper
from sklearn.metrics import roc_auc_score

from ttl_deploy import plugins
from ttl_deploy.errors import GateError
from ttl_deploy.export import quantisation, writer
from ttl_deploy.export.lowering import Int8Search
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx
from ttl_deploy.plugins import Finetuned, Proof
from ttl_deploy.records.artifacts import CalibrationImages, Gate
from ttl_deploy.records.models import InputConvention
from ttl_deploy.records.quantisation import Finetuning
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.verify import LabelledImages, verify
from ttl_deploy.training import quantisation_aware

COUNT = 400
SHAS = [f"{i:064x}" for i in range(COUNT)]
DESCRIBED = CalibrationImages(split="train", images=32, patients=32, per_class=(11, 11, 10), seed=0, sha256="")
FINETUNING = Finetuning(
    epochs=3,
    best_epoch=2,
    lr=1e-4,
    temperature=2.0,
    seed=7,
    images=700,
    auroc_before=0.8,
    auroc_after=(0.9, 0.95, None),
    weights="trials/t/int8-qat3.safetensors",
    weights_sha256="ef" * 32,
)


def draw_images(count, *, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 3, 3, 1)) // 2 + rng.integers(0, 128, (count, 1, 1, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8)


def prove(net, manifest, finetune):
    """Label images by what the net says of them, one in ten at random."""
    images = draw_images(COUNT, seed=3)
    deployable = make_deployable(net, mean=manifest.input.mean, std=manifest.input.std)
    probabilities = writer.torch_probabilities(deployable, images)
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(COUNT) < 0.1, rng.integers(0, 3, COUNT), probabilities.argmax(axis=1))
    return Proof(
        images=images,
        labels=[int(label) for label in labels],
        patients=[f"p{i}" for i in range(COUNT)],
        probabilities=probabilities,
        gate=Gate(max_drop=0.02),
        calibration=draw_images(32, seed=4),
        calibrated_on=DESCRIBED,
        finetune=finetune,
    )


def export(net, manifest, folder, finetune):
    proof = prove(net, manifest, finetune)
    exporter = plugins.load("formats", "ort")()
    found = exporter.export(
        net,
        replace(manifest, format="ort", precision="int8"),
        folder,
        images=proof.images[:64],
        references=(SHAS, proof.probabilities),
        proof=proof,
    )
    return found, proof


@pytest.fixture(autouse=True, scope="module")
def exporter_runs_once_per_network():
    """Keep what the slow exporter writes: the same weights give the same file."""
    kept, real = {}, writer.write_onnx

    def write(deployable, path, **options):
        key = float(sum(parameter.double().sum() for parameter in deployable.parameters()))
        if key not in kept:
            kept[key] = real(deployable, path, **options)
        path.write_bytes(kept[key].SerializeToString())
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "write_onnx", write)
        yield


@pytest.fixture(scope="module")
def finetuned_net(new_net):
    """The net with weights a little apart from its own."""
    net = new_net()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.003 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return net


@pytest.fixture(scope="module")
def exported(new_net, finetuned_net, shipped_manifest, tmp_path_factory):
    """An export in which only files of the finetuned model pass: decisions of all others are declared to differ."""
    folder = tmp_path_factory.mktemp("run") / "stem-ort-int8"
    asked, honest = [], writer.Writing.judge

    def finetune():
        asked.append("finetuned")
        return Finetuned(model=finetuned_net, finetuning=FINETUNING)

    def judge(self, model):
        parity = honest(self, model)
        return parity if asked else replace(parity, decisions_flipped=parity.images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer.Writing, "judge", judge)
        patch.setattr(Int8Search, "_with_layers_kept", lambda self, recipe: iter(()))
        manifest, proof = export(new_net(), shipped_manifest, folder, finetune)
    assert asked == ["finetuned"]
    return folder, manifest, proof


def test_all_is_tried_before_finetuning_and_then_the_same_recipes(exported):
    _, manifest, _ = exported
    tries = [(attempt.recipe, attempt.passed) for attempt in manifest.quantisation.attempts]
    full, plain = quantisation.CPU_FULL.name, quantisation.CPU.name
    assert tries == [(full, False), (plain, False), (f"{full}, model finetuned for 8 bits", True)]
    assert manifest.quantisation.finetuning == FINETUNING


def test_the_file_holds_the_finetuned_weights(exported, finetuned_net):
    folder, _, _ = exported
    known = {one.name: numpy_helper.to_array(one) for one in onnx.load(folder / "model.onnx").graph.initializer}
    given = known["network.head.3.weight_quantized"] * known["network.head.3.weight_scale"][:, None]
    wanted = finetuned_net.head[-1].weight.detach().numpy()
    assert np.abs(given - wanted).max() <= known["network.head.3.weight_scale"].max() * 0.5001


def test_scores_are_the_files_own_on_validation_and_none_are_of_test(exported):
    folder, manifest, proof = exported
    assert {score.split for score in manifest.scores} == {"val"}
    own = open_artifact(folder)
    session = plugins.load("targets", "onnxruntime-cpu")().open(own.model_path, threads=1)
    said = np.concatenate([session.run(proof.images[i : i + 16]) for i in range(0, COUNT, 16)])
    auroc = next(score.value for score in manifest.scores if score.metric == "auroc")
    assert auroc == pytest.approx(roc_auc_score(proof.labels, said, multi_class="ovr"), abs=1e-6)


def test_golden_answers_are_the_finetuned_models_and_verify_holds_to_the_files_own(exported, finetuned_net):
    folder, manifest, proof = exported
    artifact = open_artifact(folder)
    images, expected = artifact.golden()
    deployable = make_deployable(finetuned_net, mean=manifest.input.mean, std=manifest.input.std)
    np.testing.assert_array_equal(expected, writer.torch_probabilities(deployable, images))
    data = LabelledImages(
        images=proof.images,
        labels=proof.labels,
        patients=proof.patients,
        sha256s=SHAS,
        classes=manifest.classes,
        split="val",
    )
    report = verify(artifact, data)
    assert report.passed, report.note
    assert report.golden.max_difference <= 1e-6


def test_the_card_says_that_the_weights_are_no_longer_the_trials(exported):
    folder, _, _ = exported
    card = (folder / "model_card.md").read_text()
    for words in ("finetuned for 8 bits", "best after epoch 2 of 3", "rate 0.0001", "seed 7", "efefefefefefefef"):
        assert words in card, words
    assert "the trained model before the finetuning" in " ".join(card.split())


@pytest.mark.parametrize("wanted", [False, True])
def test_where_nothing_holds_the_gate_the_message_names_finetuning_unless_it_was_tried(
    new_net, finetuned_net, shipped_manifest, tmp_path, monkeypatch, wanted
):
    honest, kept = writer.Writing.judge, {}

    def judge(self, model):
        kept["parity"] = kept.get("parity") or honest(self, model)
        return replace(kept["parity"], decisions_flipped=kept["parity"].images)

    monkeypatch.setattr(writer.Writing, "judge", judge)
    monkeypatch.setattr(Int8Search, "_with_layers_kept", lambda self, recipe: iter(()))
    given = (lambda: Finetuned(model=finetuned_net, finetuning=FINETUNING)) if wanted else None
    with pytest.raises(GateError, match=f"in {4 if wanted else 2} tries, and nothing was published") as refused:
        export(new_net(), shipped_manifest, tmp_path / "stem", given)
    assert ("--qat-epochs" in str(refused.value)) == (not wanted)
    tries = [(one.passed, one.agreement) for one in refused.value.measured.attempts]
    assert tries == [(False, 0.0)] * (4 if wanted else 2)
    assert list(tmp_path.iterdir()) == []


def test_the_rounded_model_says_what_the_quantised_file_says(new_net, real_images, normalise, tmp_path):
    net, calibration, mean, std = new_net().eval(), real_images[:32], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    write_onnx(make_deployable(net, mean=mean, std=std), tmp_path / "f.onnx", image_size=24, metadata={})
    quantisation.prepare(tmp_path / "f.onnx", tmp_path / "prepared.onnx")
    quantisation.quantise(
        tmp_path / "prepared.onnx",
        tmp_path / "int8.onnx",
        recipe=quantisation.SHARED,
        ranges=tmp_path / "ranges.json",
        images=calibration,
    )
    target = plugins.load("targets", "onnxruntime-cpu")()
    plain, quantised = (target.open(tmp_path / name, threads=1).run(real_images) for name in ("f.onnx", "int8.onnx"))
    convention = InputConvention(mean=mean, std=std)
    learner = torch.fx.symbolic_trace(net)  # a graph, as a truncated model's trunk is
    scales = quantisation_aware.observe_scales(learner, calibration, convention=convention, device=torch.device("cpu"))
    with torch.no_grad(), quantisation_aware.rounded(learner, scales):
        rounded = learner(normalise(real_images)).softmax(1).numpy()
    assert np.abs(plain - quantised).max() > 1e-3
    np.testing.assert_allclose(rounded, quantised, atol=1e-6)
