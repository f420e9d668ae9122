"""The front against brute force, and against the properties that define it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import dominance, intervals
from ttl_deploy.evidence.front import LabelledSplit, add_test_scores, build_front, pareto_members
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.scores import AXES, Front
from ttl_deploy.records.trials import CutProfile, Profile


def by_full(cut):
    return Candidate(cut, "full")


def cost(cut, *, macs, params=None, latency_s=None, noise_s=None):
    return CutProfile(
        cut=cut,
        params=macs if params is None else params,
        macs=macs,
        layers=3,
        params_share=0.5,
        macs_share=0.5,
        size_bytes=4 * macs,
        latency_s=latency_s,
        latency_noise_s=noise_s,
    )


def by_cut(costs):
    return {one.cut: one for one in costs}


def profile_of(*costs):
    return Profile(
        target="onnxruntime-cpu",
        runtime="1.30",
        precision="fp32",
        threads=1,
        batch=1,
        machine="desk",
        cuts=costs,
    )


def predictions_of(values, *, images=41):
    """Make predictions that are right on `value` of every ten images, so that a larger value has a larger AUROC."""
    labels = (np.arange(images) >= 20).astype(int)
    scores = {
        cut: np.where(np.arange(images) % 10 < value, labels, 1 - labels).astype(float) for cut, value in values.items()
    }
    return {by_full(cut): {0: np.stack([1 - score, score], axis=1)} for cut, score in scores.items()}, LabelledSplit(
        split="val", labels=labels, patients=np.arange(images)
    )


def random_run(seed, *, cuts=("a", "b", "full"), seeds=(0, 1), images=80, split="val"):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, images)
    predictions = {
        cut: {s: np.clip(0.5 + 0.2 * (2 * labels - 1) + 0.3 * generator.normal(size=images), 0, 1) for s in seeds}
        for cut in cuts
    }
    stacked = {
        by_full(cut): {s: np.stack([1 - p, p], axis=1) for s, p in of.items()} for cut, of in predictions.items()
    }
    return stacked, LabelledSplit(split=split, labels=labels, patients=generator.integers(0, 30, images))


costs_and_values = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.integers(1, 6),
        st.one_of(st.none(), st.integers(1, 12)),
        st.integers(0, 3),
        st.integers(5, 10),
    ),
    min_size=1,
    max_size=7,
)


def members_of(rows):
    """Run the front's own selection on plain numbers: (macs, params, latency, noise, auroc)."""
    costs = tuple(
        cost(f"c{i}", macs=macs, params=params, latency_s=latency, noise_s=None if latency is None else noise)
        for i, (macs, params, latency, noise, _) in enumerate(rows)
    )
    values = {f"c{i}": row[4] / 10 for i, row in enumerate(rows)}
    return costs, values, {axis: dominance.find_members(axis, by_cut(costs), values) for axis in AXES}


@settings(deadline=None)
@given(costs_and_values)
def test_exact_costs_give_the_usual_pareto_front(rows):
    costs, values, members = members_of(rows)
    for axis in ("macs", "params"):
        dominated = {
            b.cut
            for b in costs
            for a in costs
            if getattr(a, axis) <= getattr(b, axis)
            and values[a.cut] >= values[b.cut]
            and (getattr(a, axis) < getattr(b, axis) or values[a.cut] > values[b.cut])
        }
        assert members[axis] == {one.cut for one in costs} - dominated


@settings(deadline=None)
@given(costs_and_values)
def test_with_noise_no_member_beats_another_and_a_member_beats_every_other_cut(rows):
    costs, values, members = members_of(rows)
    measured = {one.cut: one for one in costs if one.latency_s is not None}
    on = members["latency_s"]
    assert on <= set(measured)

    def beats(a, b):
        tie = max(a.latency_noise_s, b.latency_noise_s)
        not_slower, faster = a.latency_s - b.latency_s <= tie, b.latency_s - a.latency_s > tie
        better, as_good = values[a.cut] > values[b.cut], values[a.cut] >= values[b.cut]
        return (not_slower and better) or (faster and as_good)

    for cut, one in measured.items():
        assert (cut in on) == (not any(beats(measured[member], one) for member in on if member != cut))


@settings(deadline=None)
@given(costs_and_values)
def test_a_cut_with_the_best_auroc_is_on_every_axis_that_was_measured(rows):
    costs, values, members = members_of(rows)
    for axis in AXES:
        measured = [one.cut for one in costs if getattr(one, axis) is not None]
        if measured:
            top = max(values[cut] for cut in measured)
            assert any(values[cut] == top for cut in members[axis])


def test_a_cut_stays_on_the_front_when_only_a_beaten_cut_beats_it():
    # 0.6 ms of noise: b ties with a, c ties with b, but c is faster than a beyond doubt.
    costs = tuple(
        cost(cut, macs=1, latency_s=latency, noise_s=0.6) for cut, latency in (("c", 9.0), ("b", 9.5), ("a", 10.0))
    )
    values = {"c": 0.93, "b": 0.94, "a": 0.95}
    assert dominance.find_members("latency_s", by_cut(costs), values) == {"a", "c"}


def test_a_latency_difference_under_the_noise_floor_is_a_tie():
    values = {"slow": 0.95, "fast": 0.94}
    for noise, expected in ((0.002, {"slow"}), (0.0005, {"slow", "fast"})):
        costs = (
            cost("fast", macs=1, latency_s=0.010, noise_s=0.0001),
            cost("slow", macs=2, latency_s=0.011, noise_s=noise),
        )
        assert dominance.find_members("latency_s", by_cut(costs), values) == expected


def test_points_stand_shallow_to_deep_with_their_marks():
    predictions, validation = predictions_of({"full": 9, "b": 6, "c": 9, "a": 7})
    profile = profile_of(
        cost("a", macs=1, latency_s=0.001, noise_s=0.0),
        cost("b", macs=2, latency_s=0.002, noise_s=0.0),
        cost("c", macs=3),
        cost("full", macs=4, params=2, latency_s=0.004, noise_s=0.0),
    )
    front = build_front(profile, predictions, validation, replicates=50)
    assert [point.cut for point in front.points] == ["a", "b", "c", "full"]
    assert (front.best, front.reference, front.target) == ("c", "full", "onnxruntime-cpu")
    assert {point.cut: point.on_front for point in front.points} == {
        "a": ("macs", "params", "latency_s"),
        "b": (),
        "c": ("macs",),
        "full": ("params", "latency_s"),
    }
    assert pareto_members(front) == ("a", "c", "full")


def test_scores_and_differences_are_those_of_the_intervals():
    predictions, validation = random_run(0)
    front = build_front(profile_of(cost("a", macs=1), cost("b", macs=2), cost("full", macs=3)), predictions, validation)
    stacked = {candidate.cut: np.stack(list(seeds.values())) for candidate, seeds in predictions.items()}
    for point in front.points:
        expected = intervals.scores(stacked[point.cut], validation.labels, validation.patients, split="val")
        assert point.validation == expected
        assert point.test == ()
        assert point.seeds == (0, 1)
        assert point.seed_values == tuple(
            pytest.approx(roc_auc_score(validation.labels, one[:, 1]), abs=1e-12)
            for one in predictions[point.candidate].values()
        )
        if point.cut == front.best:
            assert point.to_best is None
        else:
            assert point.to_best == intervals.paired_difference(
                stacked[point.cut],
                stacked[front.best],
                validation.labels,
                validation.patients,
                reference=front.best,
            )


def test_a_cut_that_was_not_trained_is_left_out_and_so_is_a_missing_reference():
    predictions, validation = random_run(1, cuts=("a",))
    front = build_front(profile_of(cost("a", macs=1), cost("full", macs=3)), predictions, validation, replicates=20)
    assert [point.cut for point in front.points] == ["a"]
    assert (front.best, front.reference) == ("a", None)


def test_a_front_survives_json():
    predictions, validation = random_run(2)
    front = build_front(
        profile_of(cost("a", macs=1), cost("b", macs=2), cost("full", macs=3)), predictions, validation, replicates=20
    )
    assert codec.from_builtins(Front, codec.to_builtins(front)) == front


def test_test_scores_are_added_without_touching_anything_else():
    predictions, validation = random_run(3)
    front = build_front(
        profile_of(cost("a", macs=1), cost("b", macs=2), cost("full", macs=3)), predictions, validation, replicates=20
    )
    opened = {*pareto_members(front), "full"}
    unseen, test = random_run(4, cuts=sorted(opened), split="test")
    added = add_test_scores(front, unseen, test, replicates=100)
    for before, after in zip(front.points, added.points, strict=True):
        assert replace(after, test=()) == before
        assert bool(after.test) == (after.cut in opened)
        if after.test:
            expected = intervals.scores(
                np.stack(list(unseen[after.candidate].values())),
                test.labels,
                test.patients,
                split="test",
                replicates=100,
            )
            assert after.test == expected


def test_the_test_split_is_not_opened_for_a_cut_off_the_front():
    predictions, validation = predictions_of({"a": 9, "b": 6})
    front = build_front(profile_of(cost("a", macs=1), cost("b", macs=2)), predictions, validation, replicates=20)
    assert pareto_members(front) == ("a",)
    with pytest.raises(DataError, match="given for b: the test split is opened for a only"):
        add_test_scores(front, predictions, replace(validation, split="test"))


def test_the_same_input_gives_the_same_front():
    predictions, validation = random_run(5)
    profile = profile_of(cost("a", macs=1), cost("b", macs=2), cost("full", macs=3))
    assert build_front(profile, predictions, validation, replicates=50) == build_front(
        profile, predictions, validation, replicates=50
    )


@settings(max_examples=20, deadline=None)
@given(st.permutations(["a", "b", "full"]))
def test_the_order_of_the_trials_does_not_matter(order):
    predictions, validation = random_run(6)
    profile = profile_of(cost("a", macs=1), cost("b", macs=2), cost("full", macs=3))
    shuffled = {by_full(cut): predictions[by_full(cut)] for cut in order}
    assert build_front(profile, shuffled, validation, replicates=10) == build_front(
        profile, predictions, validation, replicates=10
    )


def test_no_trained_cut_is_refused():
    _, validation = random_run(0)
    with pytest.raises(DataError, match="no trial has finished"):
        build_front(profile_of(cost("a", macs=1)), {}, validation)


def test_a_cut_without_a_profile_is_named():
    predictions, validation = random_run(0)
    with pytest.raises(DataError, match="no profile for b, full"):
        build_front(profile_of(cost("a", macs=1)), predictions, validation)


def test_a_validation_split_of_one_class_is_refused():
    predictions, _ = random_run(0, cuts=("a",), images=10)
    one_class = LabelledSplit(split="val", labels=np.zeros(10, dtype=int), patients=np.arange(10))
    with pytest.raises(DataError, match="the val split has no AUROC"):
        build_front(profile_of(cost("a", macs=1)), predictions, one_class)
