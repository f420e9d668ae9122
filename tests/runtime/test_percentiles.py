"""Percentiles and their intervals, against published numbers, brute force and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from ttl_deploy.records.benchmarks import Timing
from ttl_deploy.runtime.percentiles import (
    coefficient_of_variation,
    interval_over_processes,
    median_of_medians,
    percentile,
    samples_needed,
    student_quantile,
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


def test_noise_is_the_distance_between_the_rounds_medians():
    rounds = [timing([1.0, 2.0, 30.0]), timing([2.5, 2.5, 2.5]), timing([1.5, 2.2, 2.2])]
    assert median_of_medians(rounds) == pytest.approx((2.2, 0.5))


def test_variation_is_the_standard_deviation_over_the_mean():
    samples = np.random.default_rng(0).random(50)
    assert coefficient_of_variation(samples) == pytest.approx(np.std(samples) / np.mean(samples))


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 30, 200])
def test_the_student_quantile_is_scipys(degrees):
    assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-4)


def test_the_interval_over_processes_is_students_on_logarithms():
    medians = [1.0, 1.1, 0.95, 1.02, 1.3]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(np.log(medians)), scale=stats.sem(np.log(medians)))
    assert interval_over_processes(medians) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-4)


def test_one_process_has_no_interval():
    with pytest.raises(ValueError, match="at least 2"):
        interval_over_processes([1.0])
