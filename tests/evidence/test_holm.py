"""Holm's correction against closed testing, and its smallest margins against a search by trial."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_deploy.evidence import holm


def closed_testing(p_values):
    """Reject by closed testing with Bonferroni: the p-value of a model is the largest over all sets it is in."""
    numbers = range(len(p_values))
    sets = [chosen for size in numbers for chosen in itertools.combinations(numbers, size + 1)]
    return [
        max(min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets if number in chosen)
        for number in numbers
    ]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_it_equals_closed_testing(p_values):
    assert holm.correct(p_values) == pytest.approx(closed_testing(p_values), abs=1e-15)


def test_a_worked_example():
    assert holm.correct([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))


def rejected(differences, margin, alpha):
    """Whether "worse by the margin or more" is rejected for each, by its p-value and closed testing."""
    p_values = [(1 + (one <= -margin).sum()) / (1 + len(one)) if len(one) else 1.0 for one in differences]
    return [corrected <= alpha for corrected in closed_testing(p_values)]


samples = st.lists(st.integers(-6, 6), min_size=19, max_size=59)


@settings(max_examples=60)
@given(st.lists(st.one_of(samples, st.just([])), min_size=1, max_size=4), st.sampled_from([0.025, 0.05, 0.25]))
def test_a_margin_above_the_smallest_is_rejected_and_one_below_is_not(rows, alpha):
    differences = [np.array(row, dtype=float) / 10 for row in rows]
    found = holm.smallest_margins(differences, alpha=alpha)
    tried = [0.05 + step / 10 for step in range(8)]  # between the differences that occur
    for margin in tried:
        assert rejected(differences, margin, alpha) == [smallest < margin for smallest in found]
    assert min(found) >= 0


def test_too_few_resamples_allow_no_margin():
    assert holm.smallest_margins([np.zeros(10)], alpha=0.025) == (np.inf,)
