"""Scores over folds against means and resamples made by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ttl_deploy.evidence import folds, intervals, noninferiority


def draw(seed, *, patients=40, quality=1.0):
    """Draw binary predictions of two images per patient, worse for less quality."""
    rng = np.random.default_rng(seed)
    units = np.repeat(np.arange(patients), 2)
    labels = rng.integers(0, 2, patients)[units]
    scores = 1 / (1 + np.exp(-(quality * (2 * labels - 1) + rng.normal(size=len(units)))))
    return np.stack([1 - scores, scores], axis=1), labels, np.char.add(f"fold{seed}-", units.astype(str))


def resample(drawn, seed):
    return intervals.resample(*drawn, replicates=400, seed=seed, only=("auroc",))


def test_the_auroc_is_the_mean_over_folds_not_that_of_all_images_together():
    drawn = [draw(seed, quality=quality) for seed, quality in ((1, 0.4), (2, 1.2), (3, 2.0))]
    shifted = [(np.stack([1 - p[:, 1] ** power, p[:, 1] ** power], axis=1), labels, patients)
               for (p, labels, patients), power in zip(drawn, (1, 8, 0.2), strict=True)]  # fmt: skip # one fold a line
    for some in (drawn, shifted):  # no fold's ranking changes, but all together would
        pooled = folds.pool([resample(one, seed) for seed, one in enumerate(some, start=1)])
        expected = np.mean([roc_auc_score(labels, p[:, 1]) for p, labels, _ in drawn])
        assert pooled.evaluations["auroc"].value == pytest.approx(expected, abs=1e-12)
        assert (pooled.images, pooled.patients) == (240, 120)
    together = roc_auc_score(
        np.concatenate([one[1] for one in shifted]), np.concatenate([one[0][:, 1] for one in shifted])
    )
    assert abs(together - expected) > 0.02


def test_the_interval_is_that_of_means_of_independent_resamples():
    drawn = [draw(seed) for seed in (1, 2, 3)]
    each = [resample(one, seed) for seed, one in enumerate(drawn, start=1)]
    pooled = folds.pool(each)
    spread = np.std(pooled.replicates["auroc"])
    by_hand = np.sqrt(sum(np.var(one.replicates["auroc"]) for one in each)) / 3
    assert spread == pytest.approx(by_hand, rel=0.15)  # they would add up to more, were they the same resamples
    score = intervals.score_resampled(pooled, "auroc", split="test")
    np.testing.assert_allclose((score.low, score.high), np.quantile(pooled.replicates["auroc"], (0.025, 0.975)))


def test_a_fold_without_a_class_leaves_the_whole_undefined_and_is_named():
    good, (p, labels, patients) = draw(1), draw(2)
    pooled = folds.pool([resample(good, 1), resample((p, np.zeros_like(labels), patients), 2)])
    assert pooled.evaluations["auroc"].value is None
    assert pooled.evaluations["auroc"].reason.startswith("in fold 2: ")


def test_a_comparison_over_folds_is_paired_and_makes_no_test_that_ranks_all_images_together():
    drawn = [draw(seed, patients=60) for seed in (1, 2, 3)]
    single = [(p[::2], labels[::2], patients[::2]) for p, labels, patients in drawn]  # one image per patient
    worse = [
        (np.where(np.arange(len(p))[:, None] % 9 == 0, 0.5, p), labels, patients) for p, labels, patients in single
    ]
    names = {"full": single, "cut": worse}
    labels, patients = (np.concatenate([one[part] for one in single]) for part in (1, 2))
    given = {name: np.concatenate([one[0] for one in some]) for name, some in names.items()}
    pooled = {name: folds.pool([resample(one, i) for i, one in enumerate(some)]) for name, some in names.items()}
    compare = noninferiority.compare_resampled
    found = compare(given, pooled, labels, patients, split="test", margin=0.1, in_folds=True)
    (verdict,) = found.verdicts
    assert verdict.difference is not None
    means = {name: np.mean([roc_auc_score(one[1], one[0][:, 1]) for one in some]) for name, some in names.items()}
    assert verdict.difference.value == pytest.approx(means["cut"] - means["full"], abs=1e-12)
    assert verdict.delong is None
    alone = compare(given, pooled, labels, patients, split="test", margin=0.1)
    assert alone.verdicts[0].delong is not None
