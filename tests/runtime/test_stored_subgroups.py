"""Subgroups of a run folder that is laid out by hand: which model, which split, which decision."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from ttl_deploy.data.manifest_files import save_manifest
from ttl_deploy.errors import NoRunError, UnknownNameError, UsageError
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import Calibration
from ttl_deploy.records.data import Manifest, Sample
from ttl_deploy.records.scores import Choice, Front, FrontPoint
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.stored_subgroups import (
    Decision,
    describe_subgroups,
    exported_decision,
    find_model,
    list_columns,
    read_models,
)

from .conftest import tiny_manifest

PATIENTS = 60
SEEDS = (0, 1)


def make_manifest() -> Manifest:
    samples = tuple(
        Sample(
            path=f"{split}/{number}.png",
            label=number % 2,
            patient_id=f"{split}{number}",
            split=split,
            sha256=hashlib.sha256(f"{split}{number}".encode()).hexdigest(),
            extra={"sex": "FM"[number // 2 % 2], "age": str(20 + number)},
        )
        for split in ("train", "val", "test")
        for number in range(PATIENTS)
    )
    return Manifest(
        name="films", root="/films", reader="table", classes=("normal", "ill"), samples=samples, patients_known=True
    )


def make_point(cut: str, strategy: str, aurocs: tuple[float | None, ...], *, name: str) -> FrontPoint:
    return FrontPoint(
        name=name,
        cut=cut,
        strategy=strategy,
        params=1,
        macs=1,
        layers=1,
        params_share=1.0,
        macs_share=1.0,
        latency_s=None,
        latency_noise_s=None,
        validation=(),
        test=(),
        seeds=SEEDS,
        seed_values=aurocs,
        to_best=None,
        on_front=(),
    )


CHOICE = Choice(
    cut="layer3",
    strategy="full",
    seed=0,
    rule="best",
    max_latency_s=None,
    max_params=None,
    max_macs=None,
    sentence="layer3",
)
FRONT = Front(
    best="full/full",
    reference="full/full",
    target="onnxruntime-cpu",
    points=(
        make_point("layer2", "full", (None, 0.7), name="layer2/full"),
        make_point("layer3", "full", (0.8, 0.9), name="layer3/full"),
        make_point("layer3", "l2-sp", (0.95, 0.7), name="layer3/l2-sp"),
        make_point("full", "full", (0.9, 0.9), name="full/full"),
    ),
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with two seeds; the test split was opened for layer3 and the full network, both by full finetuning."""
    folder = RunFolder(tmp_path / "run")
    save_manifest(make_manifest(), folder.data)
    codec.save(folder.config, SearchSettings(backbone="resnet18", data="films", strategies=("full", "l2-sp")))
    codec.save(folder.front, FRONT)
    codec.save(folder.chosen, CHOICE)
    generator = np.random.default_rng(0)
    for point in FRONT.points:
        for seed in SEEDS:
            trial = folder.trial(f"{point.cut}__{point.strategy}__s{seed}")
            trial.mkdir(parents=True)
            opened = point.cut != "layer2" and point.strategy == "full"
            for split in ("val", "test") if opened else ("val",):
                scores = generator.random(PATIENTS).astype(np.float32)
                np.savez(trial / f"predictions_{split}.npz", probabilities=np.stack([1 - scores, scores], axis=1))
    return folder


def probabilities_of(run: RunFolder, key: str, split: str) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    with np.load(run.trial(key) / f"predictions_{split}.npz") as content:
        return content["probabilities"]


def test_the_chosen_seed_is_scored_on_test_where_it_was_opened(run: RunFolder) -> None:
    found = describe_subgroups(run, find_model(run), by=("sex",))
    assert (found.split, found.model, found.reference) == ("test", "layer3__full__s0", "full__full__s0")
    assert found.why_split == "opened by the search; nothing was run anew"
    labels, sex = np.arange(PATIENTS) % 2, np.arange(PATIENTS) // 2 % 2
    for number, group in enumerate(found.columns[0].groups):
        for key, score in (
            ("layer3__full__s0", group.score("auroc")),
            ("full__full__s0", group.reference_score("auroc")),
        ):
            scores = probabilities_of(run, key, "test")[:, 1]
            own = sex == number
            assert score is not None
            assert score.value == pytest.approx(roc_auc_score(labels[own], scores[own]), abs=1e-12)


def test_validation_stands_in_where_test_was_not_opened_and_says_so(run: RunFolder) -> None:
    found = describe_subgroups(run, find_model(run, cut="layer2"))
    assert (found.split, found.model, found.reference) == ("val", "layer2__full__s1", "full__full__s1")
    assert found.why_split.startswith("test was not opened for this model; the model was chosen on validation")
    asked = describe_subgroups(run, find_model(run), split="val")
    assert (asked.split, asked.why_split.partition(";")[0]) == ("val", "as asked for")
    with pytest.raises(UsageError, match=r"not opened for layer2__full__s1.*Use --split val"):
        describe_subgroups(run, find_model(run, cut="layer2"), split="test")


def test_models_are_named_by_cut_strategy_and_seed(run: RunFolder) -> None:
    assert find_model(run).key == "layer3__full__s0"
    assert find_model(run, strategy="l2-sp").key == "layer3__l2-sp__s0"
    assert find_model(run, cut="layer3").key == "layer3__full__s0"
    assert find_model(run, seed=1).key == "layer3__full__s1"
    assert find_model(run, cut="full").key == "full__full__s0"
    for wrong in ({"cut": "layer9"}, {"strategy": "lwft"}, {"seed": 7}):
        with pytest.raises(UnknownNameError):
            find_model(run, **wrong)  # type: ignore[arg-type] # one of each kind


def test_without_a_choice_a_cut_must_be_named_and_its_best_is_taken(run: RunFolder) -> None:
    run.chosen.unlink()
    with pytest.raises(NoRunError, match="name a --cut"):
        find_model(run)
    assert find_model(run, cut="layer3").key == "layer3__l2-sp__s0"
    run.front.unlink()
    with pytest.raises(NoRunError, match="has no front yet"):
        find_model(run, cut="layer3")


def test_the_reference_alone_has_none_beside_it(run: RunFolder) -> None:
    found = describe_subgroups(run, find_model(run, cut="full"))
    assert found.reference is None
    assert found.overall.reference_scores == ()
    assert [model.trial for model in read_models(run, found)] == ["full__full__s0"]


def test_a_reference_that_was_not_scored_is_left_out(run: RunFolder) -> None:
    (run.trial("full__full__s0") / "predictions_test.npz").unlink()
    assert describe_subgroups(run, find_model(run)).reference is None


def test_a_threshold_decides_on_calibrated_probabilities(run: RunFolder) -> None:
    found = describe_subgroups(run, find_model(run), decision=Decision(temperature=2.0, threshold=0.6))
    assert found.decision == "ill from a calibrated probability of 0.6 on, as in the exported file"
    scores = probabilities_of(run, "layer3__full__s0", "test")[:, 1].astype(np.float64)
    odds = np.sqrt(scores / (1 - scores))
    decided = odds / (1 + odds) >= 0.6
    labels = np.arange(PATIENTS) % 2
    assert found.overall.score("sensitivity").value == pytest.approx(recall_score(labels, decided))
    assert found.overall.score("auroc").value == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    plain = describe_subgroups(run, find_model(run))
    assert plain.decision == "the most probable class"
    assert plain.overall.score("sensitivity").value == pytest.approx(recall_score(labels, scores > 0.5))


def test_the_exported_file_decides_where_it_is_of_this_model(run: RunFolder) -> None:
    model = find_model(run)
    assert exported_decision(run, model) == Decision()
    calibration = Calibration(temperature=2.0, split="val", images=1, patients=1, effects=())
    exported = {"decision": "threshold", "threshold": 0.6, "calibration": calibration}
    folder = run.export(model.candidate)
    folder.mkdir(parents=True)
    for changes, decision in (
        ({**exported, "seed": 0}, Decision(temperature=2.0, threshold=0.6)),
        ({**exported, "seed": 1}, Decision()),
        ({"seed": 0, "calibration": calibration}, Decision()),
    ):
        codec.save(folder / "manifest.json", tiny_manifest(**changes))
        assert exported_decision(run, model) == decision
        assert exported_decision(run, find_model(run, cut="layer2")) == Decision()


def test_columns_of_the_run_are_listed_and_others_refused(run: RunFolder) -> None:
    assert list_columns(run) == ("sex", "age")
    found = describe_subgroups(run, find_model(run), bands={"age": (40,)})
    assert [column.column for column in found.columns] == ["sex", "age"]
    assert [group.name for group in found.columns[1].groups] == ["below 40", "40 and above"]
    with pytest.raises(UsageError, match="no column 'site': there are sex, age"):
        describe_subgroups(run, find_model(run), by=("site",))


def test_data_without_columns_have_no_subgroups(run: RunFolder) -> None:
    manifest = make_manifest()
    save_manifest(replace(manifest, samples=tuple(replace(one, extra={}) for one in manifest.samples)), run.data)
    found = describe_subgroups(run, find_model(run))
    assert (found.columns, found.left_out, list_columns(run)) == ((), (), ())
