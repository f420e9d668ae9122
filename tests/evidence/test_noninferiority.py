"""The verdicts: their rules one by one. How often they are wrong is in `test_noninferiority_simulated`."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.evidence import delong, intervals, noninferiority, sample_size

from .simulated import binary, draw
from .test_holm import closed_testing


def compare(study, **options):
    options = {"margin": 0.1, "replicates": 400, "split": "test"} | options
    return noninferiority.compare(study.models, study.labels, study.patients, **options)


@pytest.mark.parametrize(
    ("difference", "patients", "verdict"),
    [(0.0, 600, "non-inferior"), (-0.25, 300, "inferior"), (-0.06, 60, "inconclusive")],
)
def test_each_verdict(difference, patients, verdict):
    study = draw(np.random.default_rng(0), (0.85, 0.85 + difference), patients=patients, per_patient=2)
    (found,) = compare(study).verdicts
    assert found.verdict == verdict
    assert (found.needed is None) == (verdict != "inconclusive")


@given(seed=st.integers(0, 60), difference=st.sampled_from([0.0, -0.04, -0.1, -0.16]))
def test_one_model_s_verdict_never_contradicts_its_interval(seed, difference):
    study = draw(np.random.default_rng(seed), (0.85, 0.85 + difference), patients=120)
    (found,) = compare(study, seed=seed, replicates=200).verdicts
    if found.verdict == "non-inferior":
        assert found.difference.low > -0.1
    if found.verdict == "inferior":
        assert found.difference.high < -0.1


def test_difference_and_p_values_are_those_of_the_shared_resamples():
    study = draw(np.random.default_rng(1), (0.85, 0.8), patients=150, per_patient=2)
    a, b = (intervals.resample(study.models[name], study.labels, study.patients) for name in ("small1", "full"))
    differences = a.replicates["auroc"] - b.replicates["auroc"]
    comparison = compare(study, margin=0.04, replicates=2000)
    (found,) = comparison.verdicts
    assert (found.difference.low, found.difference.high) == tuple(np.quantile(differences, (0.025, 0.975)))
    assert found.standard_error == pytest.approx(differences.std(ddof=1), rel=1e-12)
    assert found.p_non_inferior == ((differences <= -0.04).sum() + 1) / 2001
    assert found.p_inferior == ((differences >= -0.04).sum() + 1) / 2001
    assert [model.auroc.value for model in comparison.models] == [
        intervals.score("auroc", one, study.labels, study.patients, split="test", replicates=2).value
        for one in study.models.values()
    ]


def test_p_values_are_corrected_for_all_models():
    study = draw(np.random.default_rng(2), (0.85, 0.84, 0.8, 0.76), patients=250)
    found = compare(study).verdicts
    assert [one.holm_non_inferior for one in found] == closed_testing([one.p_non_inferior for one in found])
    assert [one.holm_inferior for one in found] == closed_testing([one.p_inferior for one in found])


def test_a_verdict_can_be_lost_to_the_correction():
    study = draw(np.random.default_rng(4), (0.85, 0.8, 0.72, 0.72, 0.72, 0.72), patients=200)
    alone = noninferiority.compare(
        {name: study.models[name] for name in ("full", "small1")},
        study.labels,
        study.patients,
        split="test",
        margin=0.1,
    )
    together = compare(study, replicates=2000)
    assert 0.005 < alone.verdicts[0].p_non_inferior < 0.025
    assert alone.verdicts[0].verdict == "non-inferior"
    assert together.verdicts[0].verdict == "inconclusive"


def claimed(study, margin, models):
    """The models whose verdict is `non-inferior` at a margin."""
    return {one.model for one in compare(study, margin=margin).verdicts if one.verdict == "non-inferior"} & models


@given(seed=st.integers(0, 40), images=st.sampled_from([1, 2]))
@settings(max_examples=12)
def test_the_smallest_margin_is_where_the_verdict_changes(seed, images):
    study = draw(np.random.default_rng(seed), (0.85, 0.85, 0.84, 0.8, 0.7), patients=150, per_patient=images)
    smallest = {one.model: one.smallest_margin for one in compare(study).verdicts}
    for model, margin in smallest.items():
        assert claimed(study, margin + 1e-9, {model}) == {model}
        assert claimed(study, margin - 1e-9, {model}) == set()
    for one in compare(study).verdicts:
        assert (one.verdict == "non-inferior") == (one.smallest_margin < 0.1)


def test_the_smallest_margin_of_one_model_is_the_lower_end_of_its_interval():
    study = draw(np.random.default_rng(1), (0.85, 0.8), patients=300)
    (found,) = compare(study, replicates=3999).verdicts
    assert found.smallest_margin == pytest.approx(-found.difference.low, abs=1e-3)


def test_the_smallest_margin_is_never_smaller_than_what_so_few_patients_can_show():
    labels = np.repeat([1, 0], [60, 200])
    generator = np.random.default_rng(7)
    full = np.clip(0.3 * labels + generator.uniform(size=260), 0, 1.3) / 1.3
    models = {"full": binary(full), "small": binary(full + generator.normal(scale=1e-4, size=260))}
    comparison = noninferiority.compare(models, labels, np.arange(260), split="test")
    (found,) = comparison.verdicts
    assert -found.difference.low < 0.001
    assert found.smallest_margin == comparison.margin_floor
    assert (1 - comparison.margin_floor) ** 60 == pytest.approx(0.025)


def test_a_model_of_the_same_predictions_is_as_good_at_every_margin():
    study = draw(np.random.default_rng(0), (0.85, 0.8), patients=60)
    models = study.models | {"copy": study.models["full"].copy()}
    *_, copy = noninferiority.compare(models, study.labels, study.patients, split="test").verdicts
    assert (copy.verdict, copy.smallest_margin) == ("non-inferior", 0.0)


def test_many_models_take_more_resamples():
    assert noninferiority.enough_replicates(2) == noninferiority.enough_replicates(51) == intervals.REPLICATES
    study = draw(np.random.default_rng(0), (0.85,), patients=40)
    models = {f"m{number}": study.models["full"] for number in range(62)}
    found = noninferiority.compare(models, study.labels, study.patients, split="test", margin=0.3)
    assert {one.verdict for one in found.verdicts} == {"non-inferior"}
    assert "2440 replicates" in found.models[0].auroc.method


def test_delong_stands_beside_only_where_cases_are_independent():
    single = draw(np.random.default_rng(3), (0.85, 0.83), patients=200)
    (found,) = compare(single).verdicts
    value, error = delong.compare(single.labels, single.models["small1"][:, 1], single.models["full"][:, 1])
    assert found.delong.difference.value == pytest.approx(found.difference.value, abs=1e-12)
    assert (value, error) == (found.delong.difference.value, found.delong.standard_error)
    assert found.delong.standard_error == pytest.approx(found.standard_error, rel=0.15)
    assert found.delong.p_non_inferior == pytest.approx(0.5 * math.erfc((0.1 + value) / error / math.sqrt(2)))
    several = draw(np.random.default_rng(3), (0.85, 0.83), patients=100, per_patient=2)
    assert compare(several).verdicts[0].delong is None


def test_seeds_are_averaged():
    study = draw(np.random.default_rng(5), (0.85, 0.8, 0.84), patients=150)
    full, a, b = study.models.values()
    together = noninferiority.compare(
        {"full": full, "small": np.stack([a, b])}, study.labels, study.patients, split="test", margin=0.1
    )
    apart = compare(study, replicates=2000).verdicts
    (found,) = together.verdicts
    assert found.difference.value == pytest.approx(np.mean([one.difference.value for one in apart]), abs=1e-12)
    assert found.delong.difference.value == pytest.approx(found.difference.value, abs=1e-12)


def test_several_classes_are_compared_by_their_mean():
    generator = np.random.default_rng(6)
    labels = generator.integers(0, 4, 400)
    signal = np.eye(5)[labels] * 2  # the fifth class has no images, so it is not defined
    full, small = (np.exp(signal + generator.normal(size=(400, 5))) for _ in range(2))
    models = {name: one / one.sum(axis=1, keepdims=True) for name, one in (("full", full), ("small", small))}
    comparison = noninferiority.compare(models, labels, np.arange(400), split="test", margin=0.05)
    (found,) = comparison.verdicts
    assert found.verdict == "non-inferior"
    assert found.delong is None
    assert comparison.models[0].auroc.defined == 4
    assert comparison.positives == np.bincount(labels).min()


@given(st.floats(0.001, 0.3), st.floats(0.005, 0.2))
def test_below_the_floor_a_flaw_in_a_share_of_the_patients_can_go_unseen(share, alpha):
    floor = sample_size.patients_to_exclude(share, alpha=alpha)
    assert (1 - share) ** floor <= alpha < (1 - share) ** (floor - 1)


def test_too_few_patients_for_the_margin_are_inconclusive_however_small_the_spread():
    labels = np.repeat([1, 0], [60, 200])
    generator = np.random.default_rng(7)
    full = np.clip(0.3 * labels + generator.uniform(size=260), 0, 1.3) / 1.3
    small = full + generator.normal(scale=1e-4, size=260)
    models = {"full": binary(full), "small": binary(small)}
    (found,) = noninferiority.compare(models, labels, np.arange(260), split="test").verdicts
    assert found.holm_non_inferior < 0.001
    assert found.verdict == "inconclusive"
    assert "183 of each class are needed" in found.reason
    assert (found.needed.positives, found.needed.patients) == (183, 793)


def test_what_is_needed_follows_the_formula_and_is_always_more():
    study = draw(np.random.default_rng(8), (0.85, 0.79), patients=120)
    comparison = compare(study)
    (found,) = comparison.verdicts
    assert found.verdict == "inconclusive"
    assert found.needed.assumed_difference == found.difference.value
    distance = 0.1 + found.difference.value
    factor = (found.standard_error * (1.959963984540054 + 0.8416212335729143) / distance) ** 2
    assert factor > 2
    assert found.needed.patients == math.ceil(120 * factor)
    assert found.needed.positives == math.ceil(comparison.positives * factor)


def test_a_difference_at_the_margin_gets_no_number():
    study = draw(np.random.default_rng(9), (0.85, 0.79), patients=120)
    (found,) = compare(study).verdicts
    (at_margin,) = compare(study, margin=-found.difference.value).verdicts
    (near,) = compare(study, margin=-found.difference.value + found.standard_error / 10).verdicts
    for one in (at_margin, near):
        assert (one.verdict, one.needed) == ("inconclusive", None)
        assert "100 times the patients are too few" in one.reason


def test_a_gain_is_planned_with_as_none():
    study = draw(np.random.default_rng(12), (0.8, 0.83), patients=40)
    (found,) = compare(study, margin=0.03).verdicts
    assert found.difference.value > 0
    assert found.needed.assumed_difference == 0


def test_one_class_has_no_verdict():
    study = draw(np.random.default_rng(0), (0.85, 0.85), patients=50, prevalence=0.0)
    (found,) = compare(study).verdicts
    assert (found.verdict, found.p_non_inferior, found.difference) == ("undefined", None, None)
    assert found.reason == "all 50 images are of class 0"


def test_a_handful_of_patients_has_no_verdict():
    study = draw(np.random.default_rng(0), (0.85, 0.85), patients=18, per_patient=20)
    (found,) = compare(study).verdicts
    assert found.verdict == "undefined"
    assert "patients only, fewer than 10" in found.reason
    assert found.smallest_margin is None


def test_two_perfect_models_have_no_verdict_but_equal_ones_are_as_good():
    labels = np.repeat([0, 1], 300)
    generator = np.random.default_rng(0)
    one, other = (binary(0.5 * labels + generator.uniform(0, 0.4, 600)) for _ in range(2))
    models = {"full": one, "other": other, "copy": one.copy()}
    other_found, copy_found = noninferiority.compare(models, labels, np.arange(600), split="test").verdicts
    assert other_found.verdict == "undefined"
    assert "perfect" in other_found.reason
    assert (copy_found.verdict, copy_found.reason) == ("non-inferior", "its predictions are the reference's")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.0}, "margin = 0.0"),
        ({"margin": 0.5}, "margin = 0.5"),
        ({"level": 1.0}, "level = 1.0"),
        ({"level": 0.4}, "level = 0.4"),
        ({"level": 0.999, "replicates": 1000}, "use at least 2000"),
    ],
)
def test_requests_without_sense_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        compare(draw(np.random.default_rng(0), (0.85, 0.85), patients=50), **options)


def test_a_single_model_is_refused():
    with pytest.raises(UsageError, match="at least one to compare"):
        compare(draw(np.random.default_rng(0), (0.85,), patients=50))


def test_models_of_other_classes_are_refused():
    study = draw(np.random.default_rng(0), (0.85,), patients=50)
    models = study.models | {"small": np.full((50, 3), 1 / 3)}
    with pytest.raises(DataError, match="unequal numbers of classes"):
        noninferiority.compare(models, study.labels, study.patients, split="test")
