"""The choice against fronts small enough to choose by eye, and against its own definition."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_deploy.errors import InfeasibleError, UsageError
from ttl_deploy.evidence.choice import check_feasible, choose, is_tie, is_within_interval, over_limits
from ttl_deploy.records.scores import PICK_RULES, Front, FrontPoint, PairedDifference, Score
from ttl_deploy.records.trials import CutProfile


def point(cut, auroc, *, macs, high=None, params=1_000_000, latency_s=None, seeds=(0,), seed_values=None):
    """Make a point; `high` is the upper bound of its difference to the best, None for the best itself."""
    score = Score(
        metric="auroc",
        split="val",
        value=auroc,
        low=auroc - 0.02,
        high=auroc + 0.02,
        level=0.95,
        images=100,
        patients=50,
        per_class=(auroc,),
        defined=1,
        method="percentile bootstrap over 50 patients, 2000 replicates",
    )
    difference = (
        PairedDifference(reference="best", value=high - 0.01, low=high - 0.02, high=high, level=0.95)
        if high is not None
        else None
    )
    return FrontPoint(
        name=cut,
        cut=cut,
        strategy="full",
        params=params,
        macs=macs,
        layers=5,
        params_share=0.25,
        macs_share=0.5,
        latency_s=latency_s,
        latency_noise_s=None if latency_s is None else 0.0,
        validation=(score,),
        test=(),
        seeds=seeds,
        seed_values=(auroc,) if seed_values is None else seed_values,
        to_best=difference,
        on_front=(),
    )


def front_of(*points):
    best = next(one.cut for one in points if one.to_best is None)
    return Front(best=best, reference=None, target="onnxruntime-cpu", points=points)


FRONT = front_of(
    point("tiny", 0.80, macs=100_000_000, high=-0.05, params=100_000, latency_s=0.001),
    point("small", 0.94, macs=200_000_000, high=0.001, params=3_000_000, latency_s=0.004),
    point("middle", 0.945, macs=300_000_000, high=0.002, params=500_000, latency_s=0.002),
    point("best", 0.95, macs=400_000_000, params=2_000_000, latency_s=0.005),
    point("full", 0.949, macs=1_800_000_000, high=0.01, params=11_000_000, latency_s=None),
)


@pytest.mark.parametrize(
    ("rule", "limits", "expected"),
    [
        ("best", {}, "best"),
        ("smallest-within-interval", {}, "small"),
        ("fastest-within-interval", {}, "middle"),
        ("best", {"max_macs": 399_999_999}, "middle"),
        ("best", {"max_macs": 400_000_000}, "best"),
        ("smallest-within-interval", {"max_params": 2_500_000}, "middle"),
        ("smallest-within-interval", {"max_latency_s": 0.003}, "middle"),
        ("best", {"max_latency_s": 0.004, "max_params": 10_000_000}, "middle"),
        ("smallest-within-interval", {"max_latency_s": 0.0015}, "tiny"),
    ],
)
def test_each_rule_takes_the_cut_one_would_take_by_eye(rule, limits, expected):
    choice = choose(FRONT, rule, **limits)
    assert choice.cut == expected
    assert choice.rule == rule
    assert {name: getattr(choice, name) for name in limits} == limits


def test_the_sentence_tells_cut_best_score_difference_and_cost():
    assert choose(FRONT, "smallest-within-interval").sentence == (
        "small is the smallest of the 5 trained cuts that cannot be told apart from the best, best: "
        "validation AUROC 0.940 [0.920, 0.960]. Its difference to best is -0.009 [-0.019, +0.001] "
        "(95 % interval, paired by patient). It needs 50 % of the full network's MACs and 25 % of its "
        "parameters, and takes 4 ms per image."
    )


def test_the_sentence_says_when_no_cut_within_the_interval_meets_the_limits():
    sentence = choose(FRONT, "smallest-within-interval", max_latency_s=0.0015).sentence
    assert sentence.startswith(
        "None of the cuts with at most 1.5 ms per image (1 of 5 trained) lies within the interval of the best cut "
        "best, so tiny was taken"
    )


def test_the_sentence_says_when_the_best_cut_itself_is_taken():
    front = front_of(point("tiny", 0.8, macs=1, high=-0.1), point("best", 0.95, macs=2))
    choice = choose(front, "smallest-within-interval")
    assert choice.cut == "best"
    assert choice.sentence.startswith("best is the best cut, and no smaller one of the 2 trained cuts lies within")


def test_a_cut_whose_latency_was_not_measured_never_meets_a_latency_limit():
    assert choose(FRONT, "best", max_latency_s=1000.0).cut == "best"
    with pytest.raises(InfeasibleError, match="no latency was measured"):
        choose(front_of(point("only", 0.9, macs=1)), "best", max_latency_s=1000.0)


def test_equal_latencies_are_decided_by_macs():
    front = front_of(
        point("best", 0.95, macs=300, latency_s=0.002),
        point("b", 0.94, macs=100, high=0.0, latency_s=0.002),
        point("c", 0.94, macs=200, high=0.0, latency_s=0.002),
    )
    assert choose(front, "fastest-within-interval").cut == "b"


def test_no_cut_within_the_limits_names_the_nearest_and_by_how_much():
    with pytest.raises(InfeasibleError) as caught:
        choose(FRONT, "best", max_params=80_000)
    assert str(caught.value) == (
        "no cut has at most 80 k parameters: the smallest, tiny, has 100 k parameters (25 % over). "
        "Raise the limit or search shallower cuts"
    )
    assert caught.value.exit_code == 5


def test_the_nearest_of_several_limits_is_the_one_with_the_smallest_worst_excess():
    # tiny is 5 times over on MACs, middle 15 times, small 50 % over on parameters and 10 times on MACs.
    with pytest.raises(InfeasibleError, match=r"the nearest is tiny with 100 M MACs \(5 times as much\)\. "):
        choose(FRONT, "best", max_params=2_000_000, max_macs=20_000_000)


def test_the_seed_is_the_one_with_the_best_validation_auroc():
    front = front_of(point("best", 0.9, macs=1, seeds=(3, 5, 8), seed_values=(0.89, 0.92, 0.90)))
    assert choose(front, "best").seed == 5


def test_a_seed_without_a_score_is_not_taken():
    front = front_of(point("best", 0.9, macs=1, seeds=(3, 5), seed_values=(None, 0.1)))
    assert choose(front, "best").seed == 5


@pytest.mark.parametrize("limit", [{"max_params": 0}, {"max_macs": -5}, {"max_latency_s": float("nan")}])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(UsageError, match="give a number above 0"):
        choose(FRONT, "best", **limit)


fronts = st.lists(
    st.tuples(
        st.integers(50, 99),
        st.integers(1, 9),
        st.integers(1, 9),
        st.one_of(st.none(), st.integers(1, 9)),
        st.integers(-3, 3),
    ),
    min_size=1,
    max_size=6,
)
limits = st.fixed_dictionaries(
    {}, optional={"max_latency_s": st.integers(1, 9), "max_params": st.integers(1, 9), "max_macs": st.integers(1, 9)}
)


@settings(deadline=None)
@given(fronts, limits, st.sampled_from(PICK_RULES))
def test_the_choice_is_optimal_among_those_that_meet_the_limits(rows, given_limits, rule):
    best = max(range(len(rows)), key=lambda i: rows[i][0])
    front = front_of(
        *(
            point(
                f"c{i}",
                auroc / 100,
                macs=macs,
                params=params,
                latency_s=latency,
                high=None if i == best else high / 100,
            )
            for i, (auroc, macs, params, latency, high) in enumerate(rows)
        )
    )
    axes = {"max_latency_s": "latency_s", "max_params": "params", "max_macs": "macs"}
    feasible = [
        one
        for one in front.points
        if all(
            getattr(one, axes[name]) is not None and getattr(one, axes[name]) <= most
            for name, most in given_limits.items()
        )
    ]
    if not feasible:
        with pytest.raises(InfeasibleError):
            choose(front, rule, **given_limits)
        return
    choice = choose(front, rule, **given_limits)
    picked = front.point(choice.cut)
    within = [one for one in feasible if is_within_interval(one)]
    assert picked in feasible
    if rule == "best" or not within:
        assert picked.validation[0].value == max(one.validation[0].value for one in feasible)
    elif rule == "smallest-within-interval":
        assert picked in within
        assert picked.macs == min(one.macs for one in within)
    else:
        assert picked in within
        assert (picked.latency_s or 99) == min(one.latency_s or 99 for one in within)
    assert re.search(rf"\b{choice.cut}\b", choice.sentence)


def profiled(cut, *, params=1000, macs=1000, latency_s=None, noise_s=None):
    return CutProfile(
        cut=cut,
        params=params,
        macs=macs,
        layers=1,
        params_share=0.5,
        macs_share=0.5,
        size_bytes=1,
        latency_s=latency_s,
        latency_noise_s=noise_s,
    )


COSTS = (profiled("a", latency_s=0.004, params=2000), profiled("b", latency_s=0.008), profiled("c"))


def test_cuts_over_a_limit_are_named_with_every_cost_that_is():
    assert over_limits(COSTS) == {}
    assert over_limits(COSTS, max_latency_s=0.004) == {"b": "8 ms per image (2 times as much)", "c": "no latency"}
    assert over_limits(COSTS, max_latency_s=0.001, max_params=1600)["a"] == (
        "4 ms per image (4 times as much) and 2 k parameters (25 % over)"
    )


def test_no_feasible_cut_is_refused_with_the_fastest_figure_and_the_given_remedy():
    check_feasible(COSTS, max_latency_s=0.004)
    with pytest.raises(InfeasibleError) as caught:
        check_feasible(COSTS, max_latency_s=0.001, remedy="Wait.")
    assert str(caught.value) == (
        "no cut answers in at most 1 ms per image: the fastest, a, takes 4 ms per image (4 times as much). Wait."
    )
    with pytest.raises(
        InfeasibleError, match=r"the nearest is b with 8 ms .*; the fastest, a, takes 4 ms per image\. "
    ):
        check_feasible(COSTS, max_latency_s=0.003, max_params=500)


def test_latencies_tie_where_they_differ_by_no_more_than_the_noise_of_either():
    a, b = profiled("a", latency_s=0.010, noise_s=0.001), profiled("b", latency_s=0.012, noise_s=0.002)
    assert is_tie(a, b)
    assert is_tie(b, a)
    assert not is_tie(a, profiled("c", latency_s=0.0121, noise_s=0.002))
    assert not is_tie(a, profiled("d"))
