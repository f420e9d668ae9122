"""What the stages of a search cost and told, against sums done by hand, in run folders that are laid out by hand."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import spearmanr

from ttl_deploy.data.manifest_files import save_manifest
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records import codec
from ttl_deploy.records.data import Manifest, Sample, Split
from ttl_deploy.records.models import Cut, ModelSpec
from ttl_deploy.records.probe import Probe, ProbeScore
from ttl_deploy.records.scores import Score
from ttl_deploy.records.stages import StageCost, StageCosts
from ttl_deploy.records.trials import (
    CutProfile,
    Profile,
    SearchSettings,
    TrainSettings,
    Trial,
    TrialFailure,
    TrialPause,
    TrialResult,
)
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.policies import StudyState
from ttl_deploy.search.policies.guided import rank_probed
from ttl_deploy.search.stages import describe_stages, rank_correlation

EPOCHS = 3
TRAIN, VAL, TEST = 10, 8, 6
MACS = {"a": 100, "b": 400, "full": 1000}


def by_stage(costs: StageCosts | None) -> dict[str, StageCost]:
    assert costs is not None
    return {one.stage: one for one in costs.stages}


@dataclass
class Layout:
    """A run folder laid out by hand: cuts `MACS`, predictions of a known quality, no weights."""

    run: RunFolder
    settings: SearchSettings

    def begin(self, cut: str, strategy: str, *, epochs: int, teacher: str | None = None) -> Trial:
        """Lay a trial that has had so many epochs, of 2 s each."""
        spec = ModelSpec(backbone="resnet18", cut=cut, classes=2, image_size=32)
        trial = Trial(model=spec, weights="none", strategy=strategy, seed=0, train=self.settings.train, teacher=teacher)
        folder = self.run.trial(trial.key)
        folder.mkdir(parents=True)
        codec.save(folder / "trial.json", trial)
        (folder / "metrics.jsonl").write_text('{"seconds": 2.0}\n' * epochs)
        return trial

    def finish(self, cut: str, strategy: str = "full", *, epochs: int = EPOCHS, teacher: str | None = None) -> None:
        """Lay a trial that has ended, and whose predictions are right."""
        trial = self.begin(cut, strategy, epochs=epochs, teacher=teacher)
        labels = np.arange(VAL) % 2
        probabilities = np.stack([1 - labels, labels], axis=1).astype(np.float32)
        np.savez(self.run.trial(trial.key) / "predictions_val.npz", probabilities=probabilities, labels=labels)
        self.run.ledger.append("trial_finished", trial.key, msgspec.to_builtins(make_result(trial, epochs)))

    def rest(self, cut: str, strategy: str, *, epochs: int) -> None:
        """Lay a trial that rests."""
        trial = self.begin(cut, strategy, epochs=epochs)
        pause = TrialPause(
            key=trial.key, cut=cut, strategy=strategy, seed=0, epoch=epochs, val_auroc=0.5, seconds=2.0 * epochs
        )
        self.run.ledger.append("trial_paused", pause.fact, msgspec.to_builtins(pause))

    def fail(self, cut: str, strategy: str, *, epochs: int) -> None:
        """Lay a trial that failed."""
        trial = self.begin(cut, strategy, epochs=epochs)
        failure = TrialFailure(key=trial.key, cut=cut, strategy=strategy, seed=0, kind="numerical", reason="no number")
        self.run.ledger.append("trial_failed", trial.key, msgspec.to_builtins(failure))

    def choose(self) -> None:
        """End the search."""
        self.run.ledger.append("chosen", "a", {})


def make_result(trial: Trial, epochs: int) -> TrialResult:
    return TrialResult(
        key=trial.key,
        cut=trial.model.cut,
        strategy=trial.strategy,
        seed=trial.seed,
        best_epoch=1,
        epochs_run=epochs,
        val_auroc=1.0,
        params=10,
        weights_sha256="0" * 64,
        weights_note="",
        precision="fp32",
        device="cpu",
        seconds=2.0 * epochs,
    )


def make_manifest() -> Manifest:
    sizes: dict[Split, int] = {"train": TRAIN, "val": VAL, "test": TEST}
    samples = tuple(
        Sample(path=f"{split}{i}", label=i % 2, patient_id=f"{split}{i}", split=split, sha256=f"{split}{i}")
        for split, count in sizes.items()
        for i in range(count)
    )
    return Manifest(name="n", root="/r", reader="t", classes=("x", "y"), samples=samples, patients_known=True)


def lay(path: Path, **changes: Any) -> Layout:
    """Lay a run folder that has come as far as its profile."""
    settings = SearchSettings(
        **{"backbone": "resnet18", "data": "d", "train": TrainSettings(epochs=EPOCHS), "policy": "exhaustive"} | changes
    )
    run = RunFolder(path / "run")
    run.path.mkdir()
    codec.save(run.config, settings)
    save_manifest(make_manifest(), run.data)
    cuts = tuple(
        CutProfile(
            cut=cut,
            params=macs,
            macs=macs,
            layers=1,
            params_share=macs / 1000,
            macs_share=macs / 1000,
            size_bytes=1,
            latency_s=None,
            latency_noise_s=None,
        )
        for cut, macs in MACS.items()
    )
    codec.save(
        run.profile,
        Profile(target="t", runtime="", precision="fp32", threads=1, batch=1, machine="", cuts=cuts),
    )
    return Layout(run, settings)


EPOCH = {cut: macs * (3 * TRAIN + VAL) for cut, macs in MACS.items()}
LESSON = MACS["full"] * TRAIN


def test_before_the_profile_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert describe_stages(RunFolder(tmp_path)) is None


def test_an_old_run_with_a_profile_alone_has_cost_nothing(tmp_path: Path) -> None:
    costs = describe_stages(lay(tmp_path).run)
    assert costs is not None
    assert (costs.macs, costs.finished, [one.stage for one in costs.stages]) == (0, False, ["profile"])
    assert costs.stages[0].seconds is None
    assert costs.stages[0].told == "3 cuts, from 10 % of the full network's MACs on; no latency was measured"


def test_resting_failed_and_running_trials_cost_the_epochs_they_had(tmp_path: Path) -> None:
    layout = lay(tmp_path, policy="halving")
    layout.finish("full", epochs=2)
    layout.rest("b", "full", epochs=1)
    layout.fail("a", "full", epochs=2)
    layout.begin("a", "l2-sp", epochs=1)
    layout.begin("b", "l2-sp", epochs=0)
    stage = by_stage(describe_stages(layout.run))["confirm"]
    assert stage.macs == 2 * EPOCH["full"] + EPOCH["b"] + 3 * EPOCH["a"]
    assert (stage.trials, stage.seconds) == (4, 12.0)
    assert stage.told.endswith("1 training failed. 2 trainings were not finished")
    layout.choose()
    assert by_stage(describe_stages(layout.run))["confirm"].told.endswith("2 trainings were stopped early")


def test_a_teachers_passes_count_and_so_does_a_teacher_nobody_asked_for(tmp_path: Path) -> None:
    layout = lay(tmp_path, strategies=("distill?teacher=l2-sp", "full"))
    layout.finish("full", "l2-sp")
    layout.finish("a", "distill?teacher=l2-sp", epochs=2, teacher="full__l2-sp__s0")
    layout.finish("a", "full")
    costs = describe_stages(layout.run)
    assert costs is not None
    assert costs.macs == 3 * EPOCH["full"] + 2 * (EPOCH["a"] + LESSON) + 3 * EPOCH["a"]
    everything = 2 * sum(EPOCH.values()) + 3 * LESSON + EPOCH["full"]
    assert costs.exhaustive_macs == EPOCHS * everything
    assert costs.full_macs == EPOCHS * EPOCH["full"]


def test_an_exhaustive_search_without_early_stopping_costs_all_of_training_everything(tmp_path: Path) -> None:
    layout = lay(tmp_path, strategies=("full", "distill"))
    for cut in MACS:
        layout.finish(cut, "full")
        layout.finish(cut, "distill", teacher="full__full__s0")
    costs = describe_stages(layout.run)
    assert costs is not None
    assert costs.macs == costs.exhaustive_macs


def test_cuts_over_a_limit_are_no_part_of_training_everything(tmp_path: Path) -> None:
    costs = describe_stages(lay(tmp_path, max_macs=300).run)
    assert costs is not None
    assert costs.exhaustive_macs == EPOCHS * (EPOCH["a"] + EPOCH["full"])  # the reference is trained whatever it costs


def test_a_result_that_a_finished_search_did_not_use_costs_nothing(tmp_path: Path) -> None:
    layout = lay(tmp_path)
    layout.finish("full")
    other = layout.begin("a", "full", epochs=3)
    codec.save(layout.run.trial(other.key) / "result.json", make_result(other, 3))
    layout.choose()
    assert by_stage(describe_stages(layout.run))["confirm"].macs == 3 * EPOCH["full"]


def test_a_run_whose_predictions_were_deleted_still_tells_its_costs(tmp_path: Path) -> None:
    layout = lay(tmp_path)
    layout.finish("full")
    assert "is the best" in by_stage(describe_stages(layout.run))["confirm"].told
    (layout.run.trial("full__full__s0") / "predictions_val.npz").unlink()
    stage = by_stage(describe_stages(layout.run))["confirm"]
    assert (stage.macs, stage.told) == (3 * EPOCH["full"], "1 cut (full)")


def test_the_smallest_of_equals_is_told(tmp_path: Path) -> None:
    layout = lay(tmp_path)
    for cut in ("b", "full"):
        layout.finish(cut)
    told = by_stage(describe_stages(layout.run))["confirm"].told
    assert told == "2 cuts (b, full): b is the best, and no smaller one as good"


def test_the_test_costs_a_pass_over_its_images(tmp_path: Path) -> None:
    layout = lay(tmp_path)
    for cut in ("a", "full"):
        layout.finish(cut)
    opening = {"split": "test", "command": "c", "trials": ["a__full__s0", "full__full__s0"]}
    layout.run.ledger.append("test_opened", "search", opening)
    stage = by_stage(describe_stages(layout.run))["test"]
    assert (stage.macs, stage.told) == (1100 * TEST, f"2 candidates scored on {TEST} images")


def make_score(value: float | None, high: float | None) -> Score:
    return Score(
        metric="auroc",
        split="val",
        value=value,
        low=None if value is None else value - 0.1,
        high=high,
        level=0.95,
        images=VAL,
        patients=VAL,
        per_class=(value,),
        defined=1,
        method="",
        reason="" if value is not None else "one class",
    )


@pytest.mark.parametrize(
    "scores",
    [
        {"a": (0.7, 0.85), "b": (0.8, 0.9), "full": (0.84, 0.95)},
        {"a": (0.7, 0.75), "b": (0.8, 0.9), "full": (0.84, 0.95)},
        {"a": (0.7, 0.75), "b": (0.8, 0.83), "full": (0.84, 0.95)},
        {"a": (None, None), "b": (0.8, None), "full": (0.8, None)},
    ],
)
def test_the_probe_alone_would_choose_as_the_policy_does(
    tmp_path: Path, scores: dict[str, tuple[float | None, float | None]]
) -> None:
    layout = lay(tmp_path, policy="guided")
    found = tuple(
        ProbeScore(cut=cut, features=4, cv_auroc=None, validation=make_score(*pair), penalty=1.0)
        for cut, pair in scores.items()
    )
    probe = Probe(cuts=found, train_images=TRAIN, val_images=VAL, macs=18_000, seconds=1.5)
    codec.save(layout.run.probe, probe)
    cut_of: Cut = list_cuts("resnet18", image_size=32, classes=2)[-1]
    state = StudyState(
        cuts=tuple(replace(cut_of, name=cut) for cut in MACS), strategies=(), seeds=(), trial_of={}, outcomes={}
    )
    first = next(iter(rank_probed(state, probe)), "full")
    stage = by_stage(describe_stages(layout.run))["probe"]
    assert stage.told.endswith(f"alone it would choose {first}")
    assert (stage.macs, stage.seconds, stage.trials) == (18_000, 1.5, 0)


def test_the_probe_tells_how_it_ranks_beside_the_joint_training(tmp_path: Path) -> None:
    layout = lay(tmp_path, policy="guided")
    probed, exits = {"a": 0.6, "b": 0.9, "full": 0.8}, {"a": 0.7, "b": 0.85, "full": 0.95}
    found = tuple(
        ProbeScore(cut=cut, features=4, cv_auroc=None, validation=make_score(value, value), penalty=1.0)
        for cut, value in probed.items()
    )
    codec.save(layout.run.probe, Probe(cuts=found, train_images=TRAIN, val_images=VAL, macs=1, seconds=1.0))
    before = "The best is b (0.900); alone it would choose b"
    assert by_stage(describe_stages(layout.run))["probe"].told == before
    spec = ModelSpec(backbone="resnet18", cut="full", classes=2, image_size=32, exits=tuple(MACS))
    joint = Trial(model=spec, weights="none", strategy="full", seed=0, train=layout.settings.train)
    parts = tuple(
        replace(make_result(joint, EPOCHS), key=f"{cut}__joint__s0", cut=cut, strategy="joint", val_auroc=value)
        for cut, value in exits.items()
    )
    result = replace(make_result(joint, EPOCHS), exits=parts)
    layout.run.ledger.append("trial_finished", joint.key, msgspec.to_builtins(result))
    told = by_stage(describe_stages(layout.run))["probe"].told
    assert told == f"{before}. Spearman correlation with the joint exits: {rank_of(probed, exits):.2f} (3 cuts)"


def rank_of(one: dict[str, float], other: dict[str, float]) -> float:
    return float(spearmanr(list(one.values()), list(other.values())).statistic)


def test_a_probe_of_which_nothing_is_defined_says_so(tmp_path: Path) -> None:
    layout = lay(tmp_path, policy="guided")
    score = ProbeScore(cut="a", features=4, cv_auroc=None, validation=make_score(None, None), penalty=1.0)
    codec.save(layout.run.probe, Probe(cuts=(score,), train_images=1, val_images=1, macs=1, seconds=1.0))
    assert by_stage(describe_stages(layout.run))["probe"].told == "Every AUROC is undefined"


@pytest.mark.parametrize(
    ("one", "other"),
    [([1, 2, 3, 4], [1, 3, 2, 4]), ([0.9, 0.9, 0.5], [0.1, 0.2, 0.2]), ([5, 4, 3, 2, 1], [1, 2, 2, 2, 9])],
)
def test_ranks_correlate_as_scipys_do(one: list[float], other: list[float]) -> None:
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)


@pytest.mark.parametrize(("one", "other"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([], [])])
def test_what_has_no_order_has_no_correlation(one: list[float], other: list[float]) -> None:
    assert rank_correlation(one, other) is None


def test_stages_are_read_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import ttl_deploy.search.stages"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
