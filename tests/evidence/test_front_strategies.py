"""A front over cuts and strategies: names, order, the reference, and the choice from it."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import intervals
from ttl_deploy.evidence.choice import choose
from ttl_deploy.evidence.front import LabelledSplit, add_test_scores, build_front, pareto_members
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.scores import Front
from ttl_deploy.records.trials import CutProfile, Profile

MACS = {"a": 1, "b": 2, "full": 4}
IMAGES = 80
TRUTH = LabelledSplit(split="val", labels=np.arange(IMAGES) % 2, patients=np.arange(IMAGES) // 2)
# How many of every twenty images each candidate gets right.
RIGHT = {
    Candidate("a", "full"): 14,
    Candidate("a", "l2-sp"): 15,
    Candidate("b", "full"): 18,
    Candidate("b", "l2-sp"): 19,
    Candidate("full", "full"): 16,
    Candidate("full", "l2-sp"): 17,
}


def make_profile():
    costs = tuple(
        CutProfile(
            cut=cut,
            params=macs,
            macs=macs,
            layers=1,
            params_share=macs / 4,
            macs_share=macs / 4,
            size_bytes=macs,
            latency_s=macs / 1000,
            latency_noise_s=0.0,
        )
        for cut, macs in MACS.items()
    )
    return Profile(
        target="onnxruntime-cpu", runtime="1", precision="fp32", threads=1, batch=1, machine="desk", cuts=costs
    )


def make_predictions(right=RIGHT, seeds=(0,)):
    predictions = {}
    for candidate, count in right.items():
        hit = np.arange(IMAGES) % 20 < count
        positive = np.where(hit, TRUTH.labels, 1 - TRUTH.labels).astype(float)
        predictions[candidate] = {seed: np.stack([1 - positive, positive], axis=1) for seed in seeds}
    return predictions


def make_front(right=RIGHT, strategies=("full", "l2-sp")):
    return build_front(make_profile(), make_predictions(right), TRUTH, strategies=strategies, replicates=50)


def test_candidates_stand_shallow_to_deep_and_then_in_the_order_of_the_strategies():
    assert [point.name for point in make_front().points] == [
        *("a (full)", "a (l2-sp)", "b (full)", "b (l2-sp)", "full (full)", "full (l2-sp)")
    ]
    turned = make_front(strategies=("l2-sp", "full"))
    assert [point.candidate for point in turned.points][:2] == [("a", "l2-sp"), ("a", "full")]
    assert (turned.strategies, turned.cuts) == (("l2-sp", "full"), ("a", "b", "full"))


def test_one_strategy_is_named_nowhere():
    front = make_front({c: n for c, n in RIGHT.items() if c.strategy == "l2-sp"})
    assert [point.name for point in front.points] == ["a", "b", "full"]
    assert (front.best, front.reference) == ("b", "full")
    assert front.point("a").to_best.reference == "b"


def test_the_reference_is_the_full_network_that_did_best_on_validation():
    assert make_front().reference == "full (l2-sp)"
    worse = {**RIGHT, Candidate("full", "l2-sp"): 15}
    assert make_front(worse).reference == "full (full)"
    equal = {**RIGHT, Candidate("full", "l2-sp"): 16}
    assert make_front(equal).reference == "full (full)"
    assert make_front(equal, strategies=("l2-sp", "full")).reference == "full (l2-sp)"
    without = {c: n for c, n in RIGHT.items() if c.cut != "full"}
    assert make_front(without).reference is None


def test_a_teacher_by_a_strategy_that_was_not_asked_for_is_a_candidate_and_may_be_the_reference():
    right = {Candidate("a", "distill"): 18, Candidate("full", "distill"): 16, Candidate("full", "full"): 19}
    front = make_front(right, strategies=("distill",))
    assert [point.name for point in front.points] == ["a (distill)", "full (distill)", "full (full)"]
    assert (front.best, front.reference) == ("full (full)", "full (full)")


def test_all_are_compared_with_the_best_of_all():
    front = make_front()
    predictions = make_predictions()
    assert front.best == "b (l2-sp)"
    assert front.point("b (l2-sp)").to_best is None
    for point in front.points:
        if point.name != front.best:
            assert point.to_best == intervals.paired_difference(
                np.stack(list(predictions[point.candidate].values())),
                np.stack(list(predictions[Candidate("b", "l2-sp")].values())),
                TRUTH.labels,
                TRUTH.patients,
                reference="b (l2-sp)",
                replicates=50,
            )


def test_of_one_cut_only_the_better_strategy_is_on_the_front():
    front = make_front()
    assert pareto_members(front) == ("a (l2-sp)", "b (l2-sp)")
    assert front.point_of("b", "l2-sp").on_front == ("macs", "params", "latency_s")
    with pytest.raises(KeyError):
        front.point_of("b", "scratch")


def test_test_scores_are_for_the_front_and_the_reference_whatever_the_strategy():
    front = make_front()
    test = replace(TRUTH, split="test")
    opened = {c: p for c, p in make_predictions().items() if c.strategy == "l2-sp"}
    added = add_test_scores(front, opened, test, replicates=50)
    assert [point.name for point in added.points if point.test] == ["a (l2-sp)", "b (l2-sp)", "full (l2-sp)"]
    refused = {Candidate("full", "full"): opened[Candidate("full", "l2-sp")]}
    with pytest.raises(DataError, match=r"given for full \(full\): .* opened for a \(l2-sp\), b \(l2-sp\), full"):
        add_test_scores(front, refused, test)


def test_a_stranger_is_not_let_in_by_the_name_of_its_cut():
    front = make_front({c: n for c, n in RIGHT.items() if c.strategy == "full"})
    stranger = {Candidate("b", "l2-sp"): make_predictions()[Candidate("b", "l2-sp")]}
    with pytest.raises(DataError, match=r"given for b \(l2-sp\)"):
        add_test_scores(front, stranger, replace(TRUTH, split="test"))


def test_the_order_in_which_trials_finished_does_not_matter():
    expected = make_front()
    for order in list(permutations(RIGHT))[::97]:
        assert make_front({candidate: RIGHT[candidate] for candidate in order}) == expected


def test_a_front_survives_json_and_its_names_must_differ():
    front = make_front()
    assert codec.from_builtins(Front, codec.to_builtins(front)) == front
    twice = (front.points[0], front.points[0])
    with pytest.raises(ValueError, match=r"must differ: a \(full\), a \(full\)"):
        replace(front, points=twice)


@pytest.mark.parametrize(
    ("rule", "limits", "start"),
    [
        ("best", {}, "b (l2-sp) has the highest validation AUROC of the 6 trained candidates: 0.95"),
        (
            "smallest-within-interval",
            {},
            "b (l2-sp) is the best candidate, and no smaller one of the 6 trained candidates lies within",
        ),
        (
            "fastest-within-interval",
            {"max_macs": 1},
            "None of the candidates with at most 1 MACs (2 of 6 trained) lies within the interval of the best "
            "candidate b (l2-sp), so a (l2-sp) was taken",
        ),
    ],
)
def test_the_choice_names_cut_and_strategy(rule, limits, start):
    choice = choose(make_front(), rule, **limits)
    assert choice.sentence.startswith(start)
    assert f"{choice.cut} ({choice.strategy})" in choice.sentence
    assert choice.candidate in RIGHT


@pytest.mark.parametrize("rule", ["smallest-within-interval", "fastest-within-interval"])
def test_of_strategies_that_cost_the_same_the_better_is_taken(rule):
    right = {**RIGHT, Candidate("a", "full"): 19, Candidate("a", "l2-sp"): 18}
    assert choose(make_front(right), rule).candidate == ("a", "full")
