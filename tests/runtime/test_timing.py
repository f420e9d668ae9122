"""Percentiles, their intervals and the verdict, against published numbers, brute force and scipy."""

import math
import time

import numpy as np
import pytest

from ttl_deploy.records.benchmarks import Timing
from ttl_deploy.runtime.timing import (
    TimingPlan,
    coefficient_of_variation,
    judge,
    median_of_medians,
    percentile,
    samples_needed,
    time_calls,
)


def timing(samples, number=0):
    return Timing(round=number, load_s=0.1, warmup_s=(9.0,), samples_s=tuple(samples), cpu_samples_s=tuple(samples))


@pytest.mark.parametrize(("percent", "needed"), [(90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_the_samples_needed_are_the_published_ones(percent, needed):
    assert samples_needed(percent) == needed


@pytest.mark.parametrize("percent", [50.0, 90.0])
def test_too_few_samples_give_no_percentile(percent):
    needed = samples_needed(percent)
    too_few = percentile(range(needed - 1), percent)
    assert (too_few.value_s, too_few.low_s, too_few.high_s) == (None, None, None)
    assert percentile(range(needed), percent).value_s is not None


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0])
@pytest.mark.parametrize("n", [662, 1000, 5003])
def test_the_percentile_is_the_nearest_rank(percent, n):
    samples = np.random.default_rng(n).exponential(size=n)
    expected = np.quantile(samples, percent / 100, method="inverted_cdf")
    assert percentile(samples, percent).value_s == expected


@pytest.mark.parametrize(("n", "percent"), [(11, 50.0), (12, 50.0), (64, 90.0), (200, 50.0), (662, 99.0), (900, 99.0)])
def test_the_interval_is_the_narrowest_that_exact_binomial_tails_allow(n, percent):
    p = percent / 100
    found = percentile(range(1, n + 1), percent)  # samples equal their ranks

    def probability(low, high):  # of low <= B <= high
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(low, high + 1))

    low, high = found.low_s, found.high_s
    assert probability(0, low - 1) <= 0.025 < probability(0, low)
    assert probability(high, n) <= 0.025 < probability(high - 1, n)


def test_the_interval_covers_the_true_percentile_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        found = percentile(rng.exponential(size=100), 50.0)
        covered += found.low_s <= math.log(2) <= found.high_s
    assert 930 <= covered <= 985


def test_an_interval_bound_no_sample_supports_is_none():
    found = percentile(range(64), 90.0)
    assert found.high_s is not None
    assert percentile(range(11), 50.0).low_s is not None


def test_calls_are_timed_for_so_many_and_so_long_with_warmup_apart():
    plan = TimingPlan(seconds=0.05, calls=3, warmup_seconds=0.0, warmup_calls=2)
    calls = []

    def call():
        calls.append(time.perf_counter())
        time.sleep(0.01)

    timed = time_calls(call, plan, round_number=4, load_s=0.5)
    assert timed.round == 4
    assert len(timed.warmup_s) == 2
    assert len(timed.samples_s) == len(timed.cpu_samples_s) == len(calls) - 2
    assert len(timed.samples_s) >= 3
    assert all(sample >= 0.01 for sample in timed.samples_s)
    assert sum(timed.cpu_samples_s) < sum(timed.samples_s)  # sleeping costs no CPU time


def test_few_slow_calls_are_made_even_when_time_is_up():
    plan = TimingPlan(seconds=0.0, calls=4, warmup_seconds=0.0, warmup_calls=1)
    assert len(time_calls(lambda: None, plan, round_number=0, load_s=0.0).samples_s) == 4


def test_noise_is_the_distance_between_the_rounds_medians():
    rounds = [timing([1.0, 2.0, 30.0]), timing([2.5, 2.5, 2.5]), timing([1.5, 2.2, 2.2])]
    assert median_of_medians(rounds) == pytest.approx((2.2, 0.5))


def test_variation_is_the_standard_deviation_over_the_mean():
    samples = np.random.default_rng(0).random(50)
    assert coefficient_of_variation(samples) == pytest.approx(np.std(samples) / np.mean(samples))


STEADY = [1.0, 1.01, 0.99, 1.0]


@pytest.mark.parametrize(
    ("rounds", "after", "words"),
    [
        ([STEADY, STEADY], 1.0, None),
        ([STEADY, STEADY], 1.04, None),
        ([STEADY, STEADY], 1.06, ("noisy", "speed changed by 6%")),
        ([STEADY, STEADY], 0.9, ("noisy", "speed changed by 11%")),
        ([STEADY, [1.07, 1.07, 1.08]], 1.0, ("noisy", "rounds differ by 7%")),
        ([[1.0, 1.0, 1.0, 2.0], STEADY], 1.0, ("noisy", "calls vary by")),
        ([STEADY, [1.5, 1.5, 1.51]], 1.0, ("inconclusive", "rounds differ by 40%")),
        ([STEADY, STEADY], 1.4, ("inconclusive", "speed changed by 40%")),
        ([STEADY], 1.0, ("noisy", "one round only")),
    ],
)
def test_the_verdict_names_what_was_unsteady(rounds, after, words):
    timings = [timing(samples, number) for number, samples in enumerate(rounds)]
    verdict = judge(timings, calibration_before_s=1.0, calibration_after_s=after)
    if words is None:
        assert verdict == "stable"
    else:
        assert verdict.startswith(words[0])
        assert words[1] in verdict


def test_warmup_never_enters_the_verdict():
    assert judge([timing(STEADY)] * 2, calibration_before_s=1.0, calibration_after_s=1.0) == "stable"
