"""Forecasts of plans and their prices: from imagined searches, held against sums that are made here."""

from pathlib import Path

import pytest

from ttl_deploy import plugins
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.forecast import DiskForecast, Span
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.trials import SearchSettings, TrainSettings, Trial
from ttl_deploy.search.forecast import describe_plan, estimate_disk
from ttl_deploy.search.forecast_time import Clock
from ttl_deploy.search.imagined import Course, Part, imagine_worlds
from ttl_deploy.search.pace import Pace, Timed, measure_pace
from ttl_deploy.search.policies import Proposal, StudyState
from ttl_deploy.search.policies.halving import find_rungs
from ttl_deploy.search.prospect import Prospect, look_ahead

DATA = "phantom:texture?patients=30&size=32&seed=1"
CUTS = ("stage2.3", "stage3.3", "stage3.7", FULL)
EPOCHS, SEEDS, STRATEGIES = 8, (0, 1), ("full", "l2-sp")


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTL_DEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def settings_of(policy: str, *, patience: int = 0, epochs: int = EPOCHS, **others: object) -> SearchSettings:
    from ttl_deploy.records.data import DecodeSettings

    given: dict[str, object] = {"seeds": SEEDS, "strategies": STRATEGIES, "cuts": CUTS[:-1]} | others
    return SearchSettings(
        backbone="shufflenet_v2_x0_5",
        data=DATA,
        weights="none",
        policy=policy,
        decode=DecodeSettings(image_size=32),
        train=TrainSettings(epochs=epochs, patience=patience),
        **given,  # type: ignore[arg-type] # of the right types, above and in the tests
    )


def ahead_of(settings: SearchSettings) -> Prospect:
    return look_ahead(settings, note=lambda text: None, progress=lambda stage, done, total: None)


def macs_of_image() -> dict[str, int]:
    return {cut.name: cut.macs for cut in list_cuts("shufflenet_v2_x0_5", image_size=32, classes=2)}


def confirm_of(ahead: Prospect) -> tuple[Span, Span]:
    (stage,) = [stage for stage in describe_plan(ahead) if stage.stage == "confirm"]
    return stage.trainings, stage.macs


def test_an_exhaustive_search_is_the_sum_over_cuts_strategies_and_seeds() -> None:
    ahead = ahead_of(settings_of("exhaustive"))
    one_epoch = sum(macs_of_image()[cut] for cut in CUTS) * (3 * ahead.images["train"] + ahead.images["val"])
    total = one_epoch * EPOCHS * len(SEEDS) * len(STRATEGIES)
    trainings, macs = confirm_of(ahead)
    count = len(CUTS) * len(SEEDS) * len(STRATEGIES)
    assert trainings == Span(least=count, most=count)
    assert (macs.least, macs.most) == pytest.approx((total, total))
    assert ahead.exhaustive_macs == pytest.approx(total)


def test_a_patience_makes_it_at_most_that_and_at_least_one_epoch_more_than_the_patience() -> None:
    never, early = (confirm_of(ahead_of(settings_of("exhaustive", patience=patience)))[1] for patience in (0, 2))
    assert early.most == pytest.approx(never.most)
    assert early.least == pytest.approx(never.most * 3 / EPOCHS)
    assert confirm_of(ahead_of(settings_of("exhaustive", patience=EPOCHS)))[1] == never


@pytest.mark.parametrize(("warm", "epochs"), [(False, EPOCHS), (True, 5)])  # 5 are six tenths, rounded up
def test_a_guided_search_trains_the_full_network_alone_at_least_and_three_finalists_at_most(
    warm: bool, epochs: int
) -> None:
    ahead = ahead_of(settings_of("guided", strategies=("full",), seeds=(0, 1, 2), cuts=("all",), warm_start=warm))
    trainings, macs = confirm_of(ahead)
    assert (trainings.least, trainings.most) == (3, 3 * 4)
    per_image = macs_of_image()
    epoch = 3 * ahead.images["train"] + ahead.images["val"]
    assert macs.least == pytest.approx(3 * EPOCHS * epoch * per_image[FULL])
    finalists = sorted((value for cut, value in per_image.items() if cut != FULL), reverse=True)[:3]
    assert macs.most == pytest.approx(macs.least + 3 * epochs * epoch * sum(finalists))


def test_a_halving_search_counts_the_epochs_of_what_is_dropped() -> None:
    ahead = ahead_of(settings_of("halving", strategies=("full",), seeds=(0,)))
    trainings, macs = confirm_of(ahead)
    assert trainings == Span(least=len(CUTS), most=len(CUTS))
    assert find_rungs(EPOCHS) == (1, 2, 4)
    per_image, epoch = macs_of_image(), 3 * ahead.images["train"] + ahead.images["val"]
    small, middle, large = (per_image[cut] for cut in CUTS[:-1])
    # Of three rivals two are left after epoch 1 and one after epoch 2, which is trained to the end.
    full = EPOCHS * per_image[FULL]
    assert macs.least == pytest.approx(epoch * (full + EPOCHS * small + 2 * middle + 1 * large))
    assert macs.most == pytest.approx(epoch * (full + EPOCHS * large + 2 * middle + 1 * small))


def test_every_trial_of_a_course_is_trained_gaplessly_and_once() -> None:
    for policy in plugins.names("policies"):
        ahead = ahead_of(settings_of(policy))
        for course in ahead.courses:
            done: dict[str, int] = {}
            for part in course.parts:
                assert part.begun == done.get(part.trial.key, 0)
                assert part.begun < part.end <= part.trial.train.epochs
                assert all(key in done for key in part.trial.needs)
                done[part.trial.key] = part.end
            assert {key for key in done if key.startswith(f"{FULL}__")} >= {f"{FULL}__full__s{seed}" for seed in SEEDS}


class OneAfterTheOther:
    """A policy of somebody else's: deeper cuts, one by one, until one is as good as any so far."""

    def propose(self, state: StudyState) -> list[Proposal]:
        """Return the next cut's trial."""
        for cut in state.cuts:
            trial = state.trial_of[cut.name, state.strategies[0], state.seeds[0]]
            if trial.key not in state.outcomes:
                front = state.find_front()
                scored = [point for point in front.points if point.name != front.best] if front else []
                grows = all(point.to_best is not None and point.to_best.high < 0 for point in scored)
                return [Proposal(trial=trial)] if grows else []
        return []


def test_a_policy_of_somebody_else_is_followed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda table, name: OneAfterTheOther if name == "theirs" else load(table, name)
    )
    trainings, _ = confirm_of(ahead_of(settings_of("theirs", strategies=("full",), seeds=(0,))))
    assert (trainings.least, trainings.most) == (2, len(CUTS))


def test_worlds_hold_the_flat_curve_and_the_steepest() -> None:
    cuts = list_cuts("shufflenet_v2_x0_5", image_size=32, classes=2)
    worlds = list(imagine_worlds(cuts))
    assert any(len(set(world.alone.values())) == 1 for world in worlds)
    best_alone = [max(world.alone, key=lambda cut: world.alone[cut]) for world in worlds]
    assert set(best_alone) == {cut.name for cut in cuts}
    assert any(world.looks != world.alone for world in worlds)


def test_data_and_names_are_refused_as_by_a_search() -> None:
    from ttl_deploy.errors import InfeasibleError, UnknownNameError

    with pytest.raises(UnknownNameError, match="stage9"):
        ahead_of(settings_of("guided", cuts=("stage9",)))
    with pytest.raises(UnknownNameError, match="nonsense"):
        ahead_of(settings_of("nonsense"))
    with pytest.raises(InfeasibleError):
        ahead_of(settings_of("exhaustive", max_params=10))


def test_a_limit_leaves_out_what_is_over_it_but_not_the_reference() -> None:
    sizes = {cut.name: cut.params for cut in list_cuts("shufflenet_v2_x0_5", image_size=32, classes=2)}
    ahead = ahead_of(settings_of("exhaustive", max_params=sizes["stage3.3"]))
    assert [cut.name for cut in ahead.possible.cuts] == ["stage2.3", "stage3.3", FULL]
    assert [cut.name for cut in ahead.cuts] == list(CUTS)


def trial_of(cut: str, *, teacher: str | None = None, epochs: int = 4) -> Trial:
    spec = ModelSpec(backbone="shufflenet_v2_x0_5", cut=cut, classes=2, image_size=32)
    train = TrainSettings(epochs=epochs, batch_size=8)
    return Trial(model=spec, weights="none", strategy="full", seed=0, train=train, teacher=teacher)


def clock_of(*, images: dict[str, int], begin_s: float = 0.0) -> Clock:
    """A pace of a second per training image and MAC, and a third of it per validated one."""
    full = Timed(image_s=10.0, validation_s=10 / 3, begin_s=begin_s, save_s=0.0, precision="fp32")
    shallow = Timed(image_s=2.0, validation_s=2 / 3, begin_s=begin_s, save_s=0.0, precision="fp32")
    pace = Pace(full=full, shallow=shallow, macs=(10, 2), params=(10, 2), start_s=0.0)
    costs = {FULL: 10, "middle": 6, "shallow": 2}
    return Clock(pace=pace, macs=costs, params=costs, images=images)


def test_times_lie_on_the_line_between_the_two_that_were_taken() -> None:
    clock = clock_of(images={"train": 3, "val": 3})
    assert clock.epoch_s(trial_of("middle")) == pytest.approx(3 * 6 + 3 * 2)
    taught = clock.epoch_s(trial_of("middle", teacher="full__full__s0"))
    assert taught == pytest.approx(3 * 6 + 3 * 2 + 3 * 10 / 3)


def test_trainings_share_the_workers_and_wait_for_their_teachers() -> None:
    clock = clock_of(images={"train": 1, "val": 0}, begin_s=1.0)
    teacher, pupil, other = trial_of(FULL), trial_of("shallow", teacher="full__full__s0"), trial_of("middle")
    parts = tuple(Part(trial=trial, begun=0, end=4) for trial in (teacher, pupil, other))
    lengths = (1 + 4 * 10, 1 + 4 * (2 + 10 / 3), 1 + 4 * 6)
    course = Course(rounds=(parts,), probed=False)
    assert clock.trainings_s(course, workers=1, patience=0) == pytest.approx(sum(lengths))
    assert clock.trainings_s(course, workers=2, patience=0) >= lengths[0] + lengths[1]
    alone = Course(rounds=(parts[:1], parts[2:]), probed=False)
    assert clock.trainings_s(alone, workers=8, patience=0) == pytest.approx(lengths[0] + lengths[2])
    assert clock.trainings_s(alone, workers=8, patience=1) == pytest.approx(2 + 2 * 10 + 2 * 6)


def test_real_steps_are_timed_in_processes_of_their_own() -> None:
    import torch

    pace = measure_pace(
        trial_of(FULL), trial_of("stage2.3"), macs=(10, 2), params=(10, 2), device=torch.device("cpu"), at_once=1
    )
    for timed in (pace.full, pace.shallow):
        assert min(timed.image_s, timed.validation_s, timed.begin_s, timed.save_s) > 0
    assert pace.start_s > 0


def test_disk_holds_weights_of_every_trial_and_two_checkpoints_of_those_that_run(tmp_path: Path) -> None:
    ahead = ahead_of(settings_of("exhaustive", strategies=("full",), seeds=(0,)))
    found = estimate_disk(ahead, tmp_path / "not" / "yet", workers=2, decoded=False)
    sizes = {cut.name: cut.weights_bytes for cut in list_cuts("shufflenet_v2_x0_5", image_size=32, classes=2)}
    predictions = len(CUTS) * (ahead.images["val"] + ahead.images["test"]) * 2 * 4
    assert found.trials.least == found.trials.most == sum(sizes[cut] for cut in CUTS) + predictions
    assert found.checkpoints == 2 * 3 * (sizes[FULL] + sizes["stage3.7"])
    assert found.cache == len({sample.sha256 for sample in ahead.manifest.samples}) * 32 * 32 * 3
    assert estimate_disk(ahead, tmp_path, workers=2, decoded=True).cache == 0
    assert not (tmp_path / "not").exists()


def test_a_disk_that_is_too_small_is_named() -> None:
    def disk(*, cache_free: int, run_free: int, same_disk: bool) -> DiskForecast:
        return DiskForecast(
            cache=100,
            trials=Span(least=10, most=50),
            checkpoints=30,
            cache_folder="here",
            run_folder="there",
            cache_free=cache_free,
            run_free=run_free,
            same_disk=same_disk,
        )

    assert disk(cache_free=100, run_free=80, same_disk=False).shortage == ""
    assert disk(cache_free=180, run_free=180, same_disk=True).shortage == ""
    assert disk(cache_free=99, run_free=80, same_disk=False).shortage.startswith("here")
    assert disk(cache_free=100, run_free=79, same_disk=False).shortage.startswith("there")
    assert "180" in disk(cache_free=179, run_free=179, same_disk=True).shortage
