"""Finetuning at an export: by training images, chosen on validation, kept beside the trial, never with test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ttl_deploy.errors import GateError, UsageError  # noqa: E402 # torch may be missing
from ttl_deploy.files import sha256_file  # noqa: E402 # torch may be missing
from ttl_deploy.models import truncation, weights  # noqa: E402 # torch may be missing
from ttl_deploy.plugins import Proof  # noqa: E402 # torch may be missing
from ttl_deploy.records.artifacts import Gate  # noqa: E402 # torch may be missing
from ttl_deploy.records.data import Manifest, Sample, Split  # noqa: E402 # torch may be missing
from ttl_deploy.records.trials import Trial  # noqa: E402 # torch may be missing
from ttl_deploy.runs.folder import RunFolder  # noqa: E402 # torch may be missing
from ttl_deploy.search import qat, shipping  # noqa: E402 # torch may be missing
from ttl_deploy.training import quantisation_aware  # noqa: E402 # torch may be missing
from ttl_deploy.training.steps import NotFiniteError  # noqa: E402 # torch may be missing

COUNTS: dict[Split, int] = {"train": 24, "val": 12, "test": 12}
SIDE = 32


class Cache:
    """Images of noise; those of test are not to be read."""

    def __init__(self) -> None:
        count = sum(COUNTS.values())
        self.array = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
        self.rows = np.arange(count)[::-1]  # not in the manifest's order


@pytest.fixture
def data() -> Manifest:
    samples = tuple(
        Sample(path=f"{split}{i}", label=i % 2, patient_id=f"{split}{i}", split=split, sha256=f"{split}{i}")
        for split, count in COUNTS.items()
        for i in range(count)
    )
    return Manifest(name="d", root="/", reader="folder", classes=("a", "b"), samples=samples, patients_known=True)


@pytest.fixture
def plan(tmp_path: Path, make_trial: Callable[..., Trial], data: Manifest) -> Callable[..., Any]:
    """Plan one epoch for a small model, in an own run folder each time."""

    def make(name: str = "run", told: list[tuple[str, int, int]] | None = None) -> tuple[Any, Any, RunFolder]:
        trial, cache, run = make_trial("layer1.0"), Cache(), RunFolder(tmp_path / name)
        run.trial(trial.key).mkdir(parents=True)
        torch.manual_seed(0)
        model = truncation.build(trial.model).eval()
        proof = Proof(
            images=np.zeros((0, SIDE, SIDE, 3), np.uint8),
            labels=(),
            patients=(),
            probabilities=np.zeros((0, 2), np.float32),
            gate=Gate(max_drop=0.01),
            calibration=cache.array[-8:],
            calibrated_on=None,  # type: ignore[arg-type] # not looked at
            progress=lambda *step: told.append(step) if told is not None else None,
        )
        finetune = qat.plan_finetuning(run, trial, model, data=data, cache=cache, proof=proof, epochs=1)  # type: ignore[arg-type] # a stand-in
        return finetune, model, run

    return make


def test_images_and_labels_are_of_the_split_and_go_together(data: Manifest) -> None:
    for split, count in COUNTS.items():
        pixels = qat.pixels_of(data, Cache(), split)  # type: ignore[arg-type] # a stand-in
        positions = data.of_split(split)
        assert len(pixels) == count
        assert pixels.rows.tolist() == [47 - position for position in positions]
        assert pixels.labels.tolist() == [data.samples[position].label for position in positions]


def test_the_weights_are_kept_beside_the_trial_and_are_the_same_again(
    plan: Callable[..., Any], make_trial: Callable[..., Trial]
) -> None:
    told: list[tuple[str, int, int]] = []
    finetune, model, run = plan("first", told)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = finetune()
    path = run.path / found.finetuning.weights
    assert path.name == "int8-qat1.safetensors"
    assert path.parent.parent == run.path / "trials"
    assert sha256_file(path) == found.finetuning.weights_sha256
    kept = truncation.build(make_trial("layer1.0").model)
    weights.load_weights(kept, path)
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, kept.state_dict()[name])
        assert torch.equal(before[name], model.state_dict()[name])  # the trial's own model is not touched
    assert (found.finetuning.epochs, found.finetuning.best_epoch, found.finetuning.images) == (1, 1, 24)
    assert found.finetuning.lr == quantisation_aware.LEARNING_RATE
    assert told[-1] == ("finetuning for 8 bits, epoch 1 of 1", 1, 1)
    again, _, _ = plan("second")
    assert again().finetuning == found.finetuning


def test_what_diverges_is_a_failed_gate_and_keeps_nothing(
    plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise NotFiniteError("the training loss became nan in step 1 at a rate of 1")

    monkeypatch.setattr(quantisation_aware, "finetune", diverge)
    finetune, _, run = plan()
    with pytest.raises(GateError, match=r"finetuning for 8 bits failed on .*became nan"):
        finetune()
    assert list(run.path.rglob("*.safetensors")) == []


@pytest.mark.parametrize(("precision", "epochs"), [("fp32", 2), ("int8", -1)])
def test_epochs_that_make_no_sense_are_refused_at_once(precision: str, epochs: int) -> None:
    plan = shipping._Plan(
        exporter=SimpleNamespace(precisions=("fp32", "int8")),  # type: ignore[arg-type] # a stand-in
        format_name="onnx",
        precision=precision,  # type: ignore[arg-type] # one of them
        gate=Gate(max_drop=0.01),
        qat_epochs=epochs,
    )
    with pytest.raises(UsageError, match=f"--qat-epochs {epochs} with --precision {precision}"):
        plan.check()
    replace(plan, qat_epochs=0).check()
