"""AUROCs of groups: differences and variances against loops over all pairs, and a test of equality that is right.

The short tests have bounds that chance alone passes; the slow one prints the figures of docs/subgroups.md.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from ttl_deploy.evidence import delong, group_areas

LEVEL = 0.95


def obuchowski(positive, scores, patients):
    """Return AUROC and its variance by loops over all pairs and patients (Obuchowski 1997, section 2)."""
    x, y = scores[positive], scores[~positive]
    pairs = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    area, v10, v01 = pairs.mean(), pairs.mean(axis=1), pairs.mean(axis=0)
    m, n, names = len(x), len(y), np.unique(patients)
    s10 = s01 = s11 = 0.0
    for name in names:
        own10 = (v10[patients[positive] == name] - area).sum()
        own01 = (v01[patients[~positive] == name] - area).sum()
        s10, s01, s11 = s10 + own10**2, s01 + own01**2, s11 + own10 * own01
    i10, i01, i = len(np.unique(patients[positive])), len(np.unique(patients[~positive])), len(names)
    s10, s01, s11 = s10 * i10 / ((i10 - 1) * m), s01 * i01 / ((i01 - 1) * n), s11 * i / (i - 1)
    return area, s10 / m + s01 / n + 2 * s11 / (m * n)


def draw_ties(seed, *, images=60, patients=25):
    """Draw scores with ties, of patients who may have images of both classes."""
    generator = np.random.default_rng(seed)
    positive = generator.random(images) < 0.4
    scores = np.round(generator.normal(size=images) + positive, 1)
    return positive, scores, generator.integers(0, patients, images)


def measure(positive, scores, patients, groups):
    ordered, of_unit = group_areas._sort(positive, scores, patients, groups)
    return group_areas._measure(ordered, of_unit, groups=groups.max() + 1)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_areas_and_variances_are_those_of_loops_over_all_pairs(seed, ties):
    positive, scores, patients = draw_ties(seed)
    scores = scores if ties else scores + np.random.default_rng(seed).random(60) / 100
    groups = patients % 3
    areas = measure(positive, scores, patients, groups)
    for group in range(3):
        own = groups == group
        area, variance = obuchowski(positive[own], scores[own], patients[own])
        assert areas.area[group] == pytest.approx(area, abs=1e-12)
        assert areas.variance[group] == pytest.approx(variance, rel=1e-10)
        assert area == pytest.approx(roc_auc_score(positive[own], scores[own]), abs=1e-12)


def test_with_one_image_per_patient_the_variance_is_delongs():
    positive, scores, _ = draw_ties(3)
    areas = measure(positive, scores, np.arange(60), np.zeros(60, dtype=int))
    _, covariance = delong.covariance(positive.astype(int), scores[None])
    assert areas.variance[0] == pytest.approx(covariance[0, 0], rel=1e-10)


def test_the_difference_to_the_rest_is_turned_round_for_the_rest():
    positive, scores, patients = draw_ties(4, images=200, patients=200)
    inside = patients < 80
    value, low, high = group_areas.compare_with_rest(positive, scores, patients, inside, level=LEVEL)
    own, others = (roc_auc_score(positive[one], scores[one]) for one in (inside, ~inside))
    assert value == pytest.approx(own - others, abs=1e-12)
    turned = group_areas.compare_with_rest(positive, scores, patients, ~inside, level=LEVEL)
    assert turned == pytest.approx((-value, -high, -low), abs=1e-12)
    assert low < value < high
    narrow = group_areas.compare_with_rest(positive, scores, patients, inside, level=0.5)
    assert low < narrow[1] < value < narrow[2] < high


def test_perfect_groups_have_an_interval_that_is_not_nothing():
    positive = np.tile([False, True], 40)
    scores = positive + np.linspace(0, 0.1, 80)
    value, low, high = group_areas.compare_with_rest(positive, scores, np.arange(80), np.arange(80) < 40, level=LEVEL)
    assert value == 0
    assert -0.3 < low < 0 < high < 0.3


def test_equal_scores_in_all_groups_are_no_reason_to_reject():
    positive, groups = np.tile([False, True], 40), np.repeat([0, 1], 40)
    scores = np.tile(np.random.default_rng(0).random(40), 2)
    assert group_areas.p_of_equality(positive, scores, np.arange(80), groups, permutations=99) == 1.0


def test_a_group_in_which_the_model_fails_is_found():
    generator = np.random.default_rng(1)
    positive, groups = np.tile([False, True], 200), np.repeat([0, 1], 200)
    scores = np.where(groups == 0, 3.0, 0.0) * positive + generator.normal(size=400)
    assert group_areas.p_of_equality(positive, scores, np.arange(400), groups, permutations=199) == 1 / 200


def test_patients_are_dealt_within_their_kind():
    kinds = np.array([1, 1, 1, 1, 2, 2, 2, 3])  # with positive images, with negative ones, with both
    patients = np.array([0, 1, 2, 3, 4, 5, 6, 7, 7])
    positive = np.array([1, 1, 1, 1, 0, 0, 0, 1, 0], dtype=bool)
    of_patient = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    ordered, of_unit = group_areas._sort(positive, np.arange(9.0), patients, of_patient[patients])
    assert of_unit.tolist() == of_patient.tolist()
    dealt = np.stack(list(group_areas._deal(ordered, of_unit, permutations=500, seed=0)))
    assert dealt.shape == (500, 8)
    for kind in (1, 2, 3):
        members = kinds == kind
        assert (np.sort(dealt[:, members], axis=1) == np.sort(of_unit[members])).all()
        assert len(np.unique(dealt[:, members], axis=0)) == {1: 4, 2: 3, 3: 1}[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Groups with one true AUROC, but unlike in size, prevalence, level and spread of scores.

    `spreads` are standard deviations of the positives' scores, those of the negatives being 1.
    """

    sizes: tuple[int, ...]
    prevalences: tuple[float, ...]
    levels: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    spreads: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    auroc: float = 0.85
    images: int = 1
    within: float = 0.6

    def draw(self, generator):
        """Return labels, scores, patients and groups of one study."""
        found, first = [], 0
        for group, size in enumerate(self.sizes):
            of_patient = generator.permutation(np.arange(size) < round(self.prevalences[group] * size))
            positive = np.repeat(of_patient, self.images)
            shared = np.repeat(generator.normal(size=size), self.images)
            noise = np.sqrt(self.within) * shared + np.sqrt(1 - self.within) * generator.normal(size=len(shared))
            distance = norm.ppf(self.auroc) * np.sqrt(1 + self.spreads[group] ** 2)
            scores = np.where(positive, distance + self.spreads[group] * noise, noise) + self.levels[group]
            owners = first + np.repeat(np.arange(size), self.images)
            found.append((positive, scores, owners, np.full(len(owners), group)))
            first += size
        return tuple(np.concatenate(one) for one in zip(*found, strict=True))


def repeat(scene, studies, *, permutations=199):
    """Return in which share of studies equality is rejected at 5 %, and the first two groups' interval covers 0."""
    generator = np.random.default_rng(17)
    rejected = covered = 0
    for number in range(studies):
        positive, scores, patients, groups = scene.draw(generator)
        p = group_areas.p_of_equality(positive, scores, patients, groups, permutations=permutations, seed=number)
        two = groups < 2
        _, low, high = group_areas.compare_with_rest(
            positive[two], scores[two], patients[two], groups[two] == 0, level=LEVEL
        )
        rejected += p <= 0.05
        covered += low <= 0 <= high
    return rejected / studies, covered / studies


# Every group has 30 patients or more with, and without, the class: those are tested for equality.
SCENES = {
    "alike": Scene(sizes=(100, 100), prevalences=(0.4, 0.4)),
    "four images per patient": Scene(sizes=(80, 120), prevalences=(0.4, 0.4), levels=(0, 1), images=4),
    "unlike prevalence": Scene(sizes=(150, 200), prevalences=(0.2, 0.7)),
    "unlike level of scores": Scene(sizes=(100, 200), prevalences=(0.4, 0.4), levels=(0, 1.5)),
    "unlike spread of scores": Scene(sizes=(75, 200), prevalences=(0.4, 0.4), spreads=(2.5, 0.5)),
    "unlike in all": Scene(
        sizes=(150, 300, 150), prevalences=(0.2, 0.6, 0.4), levels=(0, 1.5, 0), spreads=(2, 0.5, 1), auroc=0.9
    ),
    "four small groups": Scene(sizes=(75, 75, 75, 75), prevalences=(0.4, 0.4, 0.4, 0.4), auroc=0.9),
    "AUROC 0.97": Scene(sizes=(120, 400), prevalences=(0.25, 0.4), levels=(0, 1), auroc=0.97),
    "AUROC 0.995": Scene(sizes=(75, 200), prevalences=(0.4, 0.4), auroc=0.995),
}
# The first group has 10 patients with the class: the fewest for which a difference is given.
SMALL = {
    "alike": Scene(sizes=(25, 300), prevalences=(0.4, 0.4)),
    "four images per patient": Scene(sizes=(25, 120), prevalences=(0.4, 0.4), images=4),
    "unlike in all": Scene(sizes=(50, 200), prevalences=(0.2, 0.6), levels=(0, 1.5), spreads=(2, 0.5), auroc=0.9),
    "AUROC 0.97": Scene(sizes=(40, 400), prevalences=(0.25, 0.4), levels=(0, 1), auroc=0.97),
}


@pytest.mark.parametrize("name", ["alike", "unlike level of scores", "four images per patient"])
def test_equality_is_rejected_no_more_often_than_promised(name):
    rejected, covered = repeat(SCENES[name], 150, permutations=99)
    assert rejected <= 0.12  # 5 % and four standard errors
    assert covered >= 0.87


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_equality_is_rejected_as_often_as_promised(name):
    rejected, covered = repeat(SCENES[name], 2000)
    print(f"| {name} | {rejected:.1%} | {covered:.1%} |")
    assert 0.035 <= rejected <= 0.065
    assert covered >= 0.935


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_differences_of_small_groups_have_intervals_that_cover(name):
    _, covered = repeat(SMALL[name], 2000, permutations=1)
    print(f"| {name}, 10 patients | | {covered:.1%} |")
    assert covered >= 0.925
