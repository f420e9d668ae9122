"""The report of several strategies: a column, a line, a colour and a name for each, for two and for many."""

import csv
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from ttl_deploy.evidence.choice import choose
from ttl_deploy.evidence.front import LabelledSplit, add_test_scores, build_front, pareto_members
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.scores import AXES
from ttl_deploy.records.trials import TrialResult
from ttl_deploy.report.front_plot import draw_front
from ttl_deploy.report.listing import front_rows
from ttl_deploy.report.looks import label_strategy, looks_of
from ttl_deploy.report.page import render_page
from ttl_deploy.report.plots import draw_curves
from ttl_deploy.report.tables import FRONT_COLUMNS, write_front_csv

STRATEGIES = ("full", "linear-probe", "lp-ft?probe=0.3", "l2-sp", "lwft?freeze=features.4&decay=10", "<b>own&amp;")


def predict(story, split, candidates, *, seed):
    """Draw predictions of every candidate and seed; later strategies are a little worse."""
    generator = np.random.default_rng(seed)
    labels, patients = np.tile([0, 1], 60), np.arange(120) // 2
    depth = {cost.cut: i for i, cost in enumerate(story.profile.cuts)}
    predictions = {}
    for cut, strategy in candidates:
        strength = 0.8 + 0.35 * depth[cut] - 0.12 * STRATEGIES.index(strategy)
        positive = {s: 1 / (1 + np.exp(0.5 - strength * labels - generator.normal(size=120))) for s in (0, 1)}
        predictions[Candidate(cut, strategy)] = {s: np.stack([1 - one, one], axis=1) for s, one in positive.items()}
    return predictions, LabelledSplit(split=split, labels=labels, patients=patients)


def spread(story, count):
    """Return the story as a search over `count` strategies would tell it."""
    strategies = STRATEGIES[:count]
    candidates = [(cost.cut, strategy) for cost in story.profile.cuts for strategy in strategies]
    front = build_front(
        story.profile, *predict(story, "val", candidates, seed=1), strategies=strategies, replicates=100
    )
    opened = [front.point(name).candidate for name in dict.fromkeys([*pareto_members(front), front.reference])]
    front = add_test_scores(front, *predict(story, "test", opened, seed=2), replicates=100)
    trials = tuple(
        replace(trial, key=f"{trial.cut}__{i}__s{trial.seed}", strategy=strategy)
        for i, strategy in enumerate(strategies)
        for trial in story.trials
    )
    curves = {
        trial.key: next(c for key, c in story.curves.items() if key.startswith(f"{trial.cut}__"))
        for trial in trials
        if isinstance(trial, TrialResult)
    }
    return replace(
        story,
        settings=replace(story.settings, strategies=strategies),
        front=front,
        choice=choose(front, "smallest-within-interval"),
        trials=trials,
        curves=curves,
    )


@pytest.fixture(scope="module", params=[2, 6])
def many(request, story):
    return spread(story, request.param)
