"""Comparisons: the arithmetic, the clock that is chosen, and by simulation how often they are wrong."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ttl_deploy.records.benchmarks import Contention
from ttl_deploy.runtime.comparison import (
    FASTER,
    SLOWER,
    TIE,
    choose_basis,
    compare_rows,
    compare_with_first,
    decide,
    noise_floor,
)

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
REPEATS = 200
QUIET = Contention(
    elapsed_s=1.0,
    cpu_s=0.99,
    waited_s=0.001,
    involuntary_switches=1,
    steal_share=0.0,
    others_share=0.0,
    kernel_s=1.0,
)
SHARED = replace(QUIET, cpu_s=0.6, waited_s=0.39)


def load_simulation():
    """The simulation is a script's, which is in no package."""
    spec = importlib.util.spec_from_file_location("simulated_timings", BENCHMARKS / "simulated_timings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.simulate_rows


simulate_rows = load_simulation()


def verdicts(**options):
    return [compare_rows(simulate_rows(seed=seed, **options), first=0, second=1).verdict for seed in range(REPEATS)]


def with_contention(row, contention):
    return replace(row, timings=tuple(replace(timing, contention=contention) for timing in row.timings))


def test_ratio_and_interval_are_students_on_the_rounds_log_ratios():
    rows = simulate_rows(seed=3, ratio=1.2)
    found = compare_rows(rows, first=0, second=1)
    medians = [[np.median(timing.samples_s) for timing in row.timings] for row in rows]
    logs = np.log(np.array(medians[1]) / np.array(medians[0]))
    low, high = stats.t.interval(0.95, len(logs) - 1, loc=logs.mean(), scale=stats.sem(logs))
    assert found.ratio == pytest.approx(stats.gmean(np.exp(logs)))
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-3)
    assert found.floor == pytest.approx(math.exp(stats.norm.ppf(0.995) * logs.std(ddof=1) / math.sqrt(2)) - 1)


def test_the_other_way_round_is_the_inverse():
    rows = simulate_rows(seed=3, ratio=1.2)
    there, back = (compare_rows(rows, first=one, second=1 - one) for one in (0, 1))
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low))
    assert (there.verdict, back.verdict) == (SLOWER, FASTER)


@pytest.mark.parametrize(
    ("mean", "half", "floor", "verdict"),
    [
        (0.10, 0.05, 0.02, SLOWER),
        (-0.10, 0.05, 0.02, FASTER),
        (0.10, 0.11, 0.02, TIE),  # the interval holds 1
        (0.10, 0.05, 0.12, TIE),  # below the noise floor
        (0.0, 0.0, 0.0, TIE),
        (0.0, 0.5, 0.3, "inconclusive: a difference of 65% is possible"),
        (0.0, 0.2, 0.3, TIE),  # no difference of a quarter
        (-0.1, 0.2, 0.3, "inconclusive: a difference of 35% is possible"),
        (0.6, 0.2, 1.0, "inconclusive: a difference of 123% is possible"),  # what a wide floor must not hide
        (0.5, 0.3, 0.3, SLOWER),
    ],
)
def test_a_difference_needs_both_the_interval_and_the_floor(mean, half, floor, verdict):
    assert decide(mean, half, floor) == verdict


@pytest.mark.parametrize(
    "machine",
    [
        {},
        {"drift": 0.3},
        {"between": 0.03},
        {"memory": 0.99},
        {"rounds": 10},
        {"between": 0.02, "drift": -0.2, "memory": 0.95},
    ],
    ids=str,
)
def test_a_file_and_its_copy_tie_in_at_least_95_of_100_comparisons(machine):
    ties = sum(verdict == TIE for verdict in verdicts(**machine))
    assert ties >= 0.95 * REPEATS


@pytest.mark.parametrize(("machine", "share"), [({}, 0.95), ({"drift": 0.1}, 0.95), ({"drift": 0.3}, 0.5)], ids=str)
def test_a_tenth_more_time_is_seen(machine, share):
    """A machine that becomes a third slower meanwhile costs power, never truth."""
    assert sum(verdict == SLOWER for verdict in verdicts(ratio=1.1, **machine)) >= share * REPEATS


@pytest.mark.parametrize("machine", [{"between": 0.1}, {"outliers": 0.2}, {"between": 0.05, "outliers": 0.2}], ids=str)
def test_on_a_hopeless_machine_a_copy_is_seldom_called_faster_or_slower(machine):
    assert sum(verdict in (FASTER, SLOWER) for verdict in verdicts(**machine)) <= 0.05 * REPEATS


def verdict_after_added_rounds(seed, **machine):
    """Look after 5 rounds and after every further one, as `bench` does, until it is clear or there were 15."""
    whole = simulate_rows(seed=seed, rounds=15, calls=20, **machine)
    for rounds in range(5, 16):
        rows = [replace(row, timings=row.timings[:rounds]) for row in whole]
        verdict = compare_rows(rows, first=0, second=1).verdict
        if not verdict.startswith("inconclusive"):
            break
    return verdict


def test_adding_rounds_to_an_inconclusive_comparison_makes_ties_and_not_differences():
    machine = {"outliers": 0.4, "worst": 0.6}
    at_once = verdicts(calls=20, **machine)
    assert sum(verdict == TIE for verdict in at_once) < 0.5 * REPEATS
    later = [verdict_after_added_rounds(seed, **machine) for seed in range(REPEATS)]
    assert sum(verdict == TIE for verdict in later) >= 0.9 * REPEATS
    assert sum(verdict in (FASTER, SLOWER) for verdict in later) <= 0.05 * REPEATS


def test_twice_the_time_is_never_a_tie_however_disturbed_the_machine():
    found = [verdict_after_added_rounds(seed, ratio=2.0, between=0.3, outliers=0.5, worst=1.0) for seed in range(50)]
    assert TIE not in found


def test_a_difference_below_the_noise_between_processes_is_not_claimed_however_many_rounds_there_are():
    found = [compare_rows(simulate_rows(seed=seed, ratio=1.02, rounds=100), first=0, second=1) for seed in range(10)]
    assert all(one.low > 1 for one in found)  # the interval alone would claim it
    assert all(one.verdict == TIE for one in found)


def test_what_a_round_shares_is_not_noise():
    assert noise_floor(np.array([0.1, 0.1, 0.1])) == pytest.approx(0, abs=1e-12)
    assert noise_floor(np.array([0.0, 0.2])) > 0.1


@pytest.mark.parametrize(
    ("contention", "threads", "basis", "reason"),
    [
        (QUIET, 1, "wall", "for 0% of the time"),
        (SHARED, 1, "cpu", "for 39% of the time"),
        (SHARED, 2, "wall", "CPU time of several threads"),
        (replace(SHARED, cpu_s=0.1), 1, "wall", "more than one thread's computing"),
        (None, 1, "wall", "nobody counted"),
    ],
)
def test_cpu_time_is_compared_where_others_held_the_core(contention, threads, basis, reason):
    rows = [replace(with_contention(row, contention), threads=threads) for row in simulate_rows(seed=0)]
    found = choose_basis(*rows)
    assert found[0] == basis
    assert reason in found[1]


def test_a_difference_in_cpu_time_is_seen_where_wall_time_is_noise():
    noise = np.random.default_rng(0)
    rows = []
    for row in simulate_rows(seed=0, ratio=2.0):
        timings = [
            replace(timing, samples_s=tuple(np.array(timing.samples_s) * noise.uniform(1, 4)), contention=SHARED)
            for timing in row.timings
        ]
        rows.append(replace(row, timings=tuple(timings)))
    found = compare_rows(rows, first=0, second=1)
    assert (found.basis, found.verdict) == ("cpu", SLOWER)
    assert compare_rows([replace(row, threads=2) for row in rows], first=0, second=1).basis == "wall"


def test_rounds_are_paired_by_their_number():
    one, other = simulate_rows(seed=0, rounds=5)
    reordered = replace(other, timings=other.timings[::-1])
    assert compare_rows([one, reordered], first=0, second=1) == compare_rows([one, other], first=0, second=1)
    missing = replace(other, timings=other.timings[:1])
    assert compare_rows([one, missing], first=0, second=1).verdict.startswith("inconclusive: fewer than two rounds")


def test_throughput_is_compared_by_all_calls_over_their_number():
    rows = []
    for row, elapsed in zip(simulate_rows(seed=0), (1.0, 3.0), strict=True):
        rows.append(replace(with_contention(row, replace(QUIET, elapsed_s=elapsed)), mode="throughput"))
    assert compare_rows(rows, first=0, second=1).ratio == pytest.approx(3.0)


def test_only_rows_of_one_kind_are_compared_each_with_the_first():
    a, b = simulate_rows(seed=0)
    c, d = (replace(row, batch=8) for row in (a, b))
    found = compare_with_first([a, c, b, d, a])
    assert [(one.first, one.second) for one in found] == [(0, 2), (1, 3), (0, 4)]
