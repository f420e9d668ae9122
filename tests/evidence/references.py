"""Every metric computed another way, mostly by scikit-learn: one class at a time, images copied instead of weighted."""

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)


def calibration_error(truth, scores, bins=15):
    """Return the expected calibration error by looping over the bins; 1 belongs to the last."""
    error = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (scores >= low) & ((scores < high) | (number == bins - 1))
        if inside.any():
            error += inside.mean() * abs(scores[inside].mean() - truth[inside].mean())
    return error


def of_class(metric, truth, scores, decided, task="binary"):
    """Return one metric of a single class, its truth `(N,)` of 0 and 1; None where it is undefined."""
    both = 0 < truth.sum() < len(truth)
    if not len(truth):
        return None
    if metric in ("sensitivity", "f1") or (metric in ("balanced_accuracy", "accuracy") and task == "multiclass"):
        score = f1_score if metric == "f1" else recall_score
        return score(truth, decided) if truth.any() else None
    if metric == "specificity":
        return recall_score(1 - truth, ~decided) if (truth == 0).any() else None
    if metric == "brier":
        return brier_score_loss(truth, scores, pos_label=1)
    if metric == "calibration_error":
        return calibration_error(truth, scores)
    if metric == "accuracy":
        return accuracy_score(truth, decided)
    if not both:
        return None
    if metric == "balanced_accuracy":
        return (recall_score(truth, decided) + recall_score(1 - truth, ~decided)) / 2
    if metric == "auroc":
        return roc_auc_score(truth, scores)
    if metric == "auprc":
        return average_precision_score(truth, scores)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    if metric == "sensitivity_at_specificity":
        return true[1 - false >= 0.9 - 1e-9].max()
    return (1 - false)[true >= 0.9 - 1e-9].max()


def of_task(metric, probabilities, labels, *, threshold=None):
    """Return value and per-class values of predictions `(N, C)`, labels `(N,)` or `(N, C)` with -1 for unknown."""
    classes = probabilities.shape[1]
    if labels.ndim == 2:
        columns = [(labels[:, k], probabilities[:, k], probabilities[:, k] >= 0.5) for k in range(classes)]
        return _mean(metric, [tuple(part[column[0] >= 0] for part in column) for column in columns], "multilabel")
    probabilities, labels = probabilities[labels >= 0], labels[labels >= 0]
    chosen = probabilities.argmax(axis=1) if threshold is None else (probabilities[:, 1] >= threshold).astype(int)
    if metric == "kappa":
        return cohen_kappa_score(labels, chosen, weights="quadratic", labels=range(classes)), ()
    scored = [1] if classes == 2 else range(classes)
    task = "binary" if classes == 2 else "multiclass"
    value, per_class = _mean(
        metric, [((labels == k).astype(int), probabilities[:, k], chosen == k) for k in scored], task
    )
    if metric == "accuracy":
        recalls = [of_class("sensitivity", (labels == k).astype(int), chosen, chosen == k) for k in scored]
        return (accuracy_score(labels, chosen) if len(labels) else None), tuple(recalls)
    return value, per_class


def _mean(metric, columns, task):
    found = tuple(of_class(metric, *column, task=task) for column in columns)
    known = [one for one in found if one is not None]
    return (float(np.mean(known)) if known else None), found
