"""What a front says of uncertainty: who is clearly worse on validation, and who is as good as the reference on test."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ttl_deploy.evidence import intervals, noninferiority
from ttl_deploy.evidence.front import LabelledSplit, add_test_scores, build_front, pareto_members
from ttl_deploy.records import codec
from ttl_deploy.records.scores import AXES, Dominated, Front, PairedDifference

from .simulated import draw
from .test_front import by_full, cost, profile_of

CUTS = ("a", "b", "c", "d", "full")


def make_study(seed, aurocs, *, split="val", patients=120, seeds=1):
    """Predictions of the cuts, shallow to deep, with these AUROCs; further seeds are other draws of the noise."""
    generator = np.random.default_rng(seed)
    study = draw(generator, aurocs, patients=patients)
    names = CUTS[-len(aurocs) :]
    predictions = {
        by_full(cut): {
            number: np.clip(one + number * 0.03 * generator.normal(size=one.shape), 0, 1) for number in range(seeds)
        }
        for cut, one in zip(names, study.models.values(), strict=True)
    }
    return predictions, LabelledSplit(split=split, labels=study.labels, patients=study.patients)


def make_costs(noise_s=0.0):
    return profile_of(
        *(cost(cut, macs=number, latency_s=number / 1000, noise_s=noise_s) for number, cut in enumerate(CUTS, start=1))
    )


def beaten_clearly(front, predictions, truth, *, axis):
    """Ask of every pair whether one costs no more and is surely better, with differences computed anew."""
    stacked = {candidate.cut: np.stack(list(one.values())) for candidate, one in predictions.items()}
    found = {point.name: set() for point in front.points}
    for point in front.points:
        for other in front.points:
            noise = max(point.latency_noise_s, other.latency_noise_s) if axis == "latency_s" else 0
            if other is point or getattr(other, axis) - getattr(point, axis) > noise:
                continue
            difference = intervals.paired_difference(
                stacked[point.cut], stacked[other.cut], truth.labels, truth.patients, reference="", replicates=200
            )
            if difference.high < 0:
                found[point.name].add(other.name)
    return found


@hypothesis_settings(max_examples=15)
@given(
    seed=st.integers(0, 30),
    aurocs=st.permutations([0.7, 0.8, 0.85, 0.87, 0.9]),
    noise_s=st.sampled_from([0.0, 0.0015]),
)
def test_off_the_front_and_surely_beaten_is_what_clearly_worse_means(seed, aurocs, noise_s):
    predictions, validation = make_study(seed, aurocs)
    front = build_front(make_costs(noise_s), predictions, validation, replicates=200)
    for axis in AXES:
        beaten = beaten_clearly(front, predictions, validation, axis=axis)
        for point in front.points:
            if axis in point.on_front:
                assert point.standing(axis) == "on the front"
                continue
            assert point.standing(axis) == ("clearly worse" if beaten[point.name] else "not clearly worse")
            for one in point.dominated_by:
                assert one.axis != axis or one.by in beaten[point.name]


def test_the_difference_that_decides_is_the_paired_one_of_the_two():
    predictions, validation = make_study(0, (0.95, 0.7, 0.9))
    front = build_front(make_costs(), predictions, validation)
    (found,) = {one.difference for one in front.point("d").dominated_by}
    d, c = (predictions[by_full(cut)][0] for cut in ("d", "c"))
    assert found == intervals.paired_difference(d, c, validation.labels, validation.patients, reference="c")
    assert [one.axis for one in front.point("d").dominated_by] == list(AXES)


def test_it_may_take_one_that_is_off_the_front_itself_to_be_surely_better():
    # c and d differ by little but surely; a, a bit better than c, has other errors, and so is not surely better than d.
    generator = np.random.default_rng(3)
    labels = np.arange(200) % 2
    of_c, of_a = (labels + generator.normal(size=200) for _ in range(2))
    scores = {"a": of_a + 0.15 * labels, "c": of_c, "d": of_c - 0.25 * labels}
    positive = {cut: 1 / (1 + np.exp(-one)) for cut, one in scores.items()}
    predictions = {by_full(cut): {0: np.stack([1 - one, one], axis=1)} for cut, one in positive.items()}
    front = build_front(
        make_costs(), predictions, LabelledSplit(split="val", labels=labels, patients=np.arange(200)), replicates=500
    )
    assert [point.standing("macs") for point in front.points] == ["on the front", "not clearly worse", "clearly worse"]
    assert {one.by for one in front.point("d").dominated_by} == {"c"}


def test_a_cost_that_was_not_measured_has_no_standing():
    predictions, validation = make_study(0, (0.95, 0.7, 0.9))
    profile = make_costs()
    without = replace(profile, cuts=tuple(replace(one, latency_s=None, latency_noise_s=None) for one in profile.cuts))
    front = build_front(without, predictions, validation, replicates=50)
    assert [point.standing("latency_s") for point in front.points] == [None] * 3
    assert front.point("d").axes("clearly worse") == ("macs", "params")


def test_on_an_older_front_nobody_is_called_clearly_worse():
    predictions, validation = make_study(0, (0.95, 0.7, 0.9))
    front = build_front(make_costs(), predictions, validation, replicates=50)
    older = replace(front.point("d"), dominated_by=None)
    assert {older.standing(axis) for axis in AXES} == {"off the front"}


def test_nobody_is_clearly_worse_by_an_interval_that_reaches_zero():
    difference = PairedDifference(reference="a", value=-0.01, low=-0.02, high=0.0, level=0.95)
    with pytest.raises(ValueError, match="a is not clearly better"):
        Dominated(axis="macs", difference=difference)


def confirmed(seeds=1, **options):
    predictions, validation = make_study(0, (0.75, 0.84, 0.8, 0.9, 0.9), seeds=seeds)
    front = build_front(make_costs(), predictions, validation, replicates=100)
    unseen, test = make_study(1, (0.75, 0.84, 0.8, 0.9, 0.9), split="test", patients=300, seeds=seeds)
    wanted = {*pareto_members(front), "full"}
    opened = {candidate: one for candidate, one in unseen.items() if candidate.cut in wanted}
    return add_test_scores(front, opened, test, **options), opened, test


@pytest.mark.parametrize("seeds", [1, 2])
def test_verdicts_are_those_of_the_comparison_of_the_same_predictions(seeds):
    front, opened, test = confirmed(seeds, margin=0.05)
    order = ["full", *(point.name for point in front.points if point.test and point.name != "full")]
    assert len(order) > 2
    given_once = {name: np.stack(list(opened[by_full(name)].values())) for name in order}
    expected = noninferiority.compare(given_once, test.labels, test.patients, split="test", margin=0.05)
    assert front.verdicts == expected
    for model in expected.models:
        (auroc,) = (score for score in front.point(model.name).test if score.metric == "auroc")
        assert auroc == model.auroc


def test_a_verdict_is_found_by_name_and_the_reference_has_none():
    front, *_ = confirmed(replicates=200)
    assert {name: front.verdict(name) for name in ("full", "no-such-cut")} == {"full": None, "no-such-cut": None}
    for found in front.verdicts.verdicts:
        assert front.verdict(found.model) is found


def test_patients_that_are_not_known_are_told():
    front, opened, test = confirmed()
    assert front.verdicts.patients_known
    plain = replace(front, verdicts=None, points=tuple(replace(point, test=()) for point in front.points))
    unknown = add_test_scores(plain, opened, replace(test, patients_known=False))
    assert not unknown.verdicts.patients_known


def test_without_the_reference_or_without_another_there_is_nothing_to_compare():
    front, opened, test = confirmed(replicates=100)
    alone = {candidate: one for candidate, one in opened.items() if candidate.cut == "full"}
    others = {candidate: one for candidate, one in opened.items() if candidate.cut != "full"}
    for some in (alone, others):
        assert add_test_scores(front, some, test, replicates=100).verdicts is None


def test_more_members_than_the_resamples_can_decide_on_get_more_of_them():
    front, *_ = confirmed(replicates=20)
    assert len(front.verdicts.verdicts) == 3
    assert "120 replicates" in front.verdicts.models[0].auroc.method


def test_verdicts_survive_json():
    front, *_ = confirmed(replicates=200)
    assert codec.from_builtins(Front, codec.to_builtins(front)) == front
