"""The page stays small enough to mail, and is made of JSON that a browser reads."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ttl_deploy.records.trials import EpochRecord
from ttl_deploy.report.model_curves import Predicted, trace_models
from ttl_deploy.report.page import dump_plot, render_page

MOST_BYTES = 6_000_000
"""Of which plotly is 4.8 million."""


def enlarge(story, *, cuts, seeds, epochs):
    """Repeat a run's cuts under other names, with so many trainings of so many epochs each."""
    names = [f"features.denseblock{i // 16}.denselayer{i % 16}" for i in range(cuts - 1)] + ["full"]
    points, costs = story.front.points, story.profile.cuts
    trial = story.results[0]
    trials = [
        replace(trial, key=f"{name}__full__s{seed}", cut=name, seed=seed) for name in names for seed in range(seeds)
    ]
    curve = tuple(
        EpochRecord(
            epoch=epoch, train_loss=0.7123456 / epoch, val_loss=0.8, val_auroc=1 - 0.3123456789 / epoch, lr=1e-4,
            seconds=20.0, data_wait_share=0.03,
        )
        for epoch in range(1, epochs + 1)
    )  # fmt: skip # a table of fields
    renamed = [replace(points[i % (len(points) - 1)], cut=name, name=name) for i, name in enumerate(names[:-1])]
    profiled = [replace(costs[i % (len(costs) - 1)], cut=name) for i, name in enumerate(names[:-1])]
    front = replace(story.front, points=(*renamed, points[-1]), best="full", verdicts=None)
    return replace(
        story,
        front=front,
        choice=replace(story.choice, cut=names[3]),
        profile=replace(story.profile, cuts=(*profiled, costs[-1])),
        trials=tuple(trials),
        curves={one.key: curve for one in trials},
    )


def test_sixty_cuts_by_three_seeds_of_thirty_epochs_fit_in_a_mail(story):
    large = enlarge(story, cuts=60, seeds=3, epochs=30)
    page = render_page(large)
    assert page.count("denselayer") > 1000
    assert len(page.encode()) < MOST_BYTES


def test_fourteen_findings_on_five_thousand_images_fit_in_a_mail(story):
    generator = np.random.default_rng(0)
    labels = (generator.random((5000, 14)) < 0.1).astype(int)
    models = [
        Predicted(role=role, key=role, probabilities=generator.random((5000, 14)), temperature=1.5)
        for role in ("chosen", "reference")
    ]
    names = [f"finding {i}" for i in range(14)]
    found = trace_models(models, labels, np.arange(5000) // 3, classes=names, split="test", replicates=10)
    page = render_page(replace(story, model_curves=found))
    assert all(name in page for name in names)
    assert len(page.encode()) < MOST_BYTES


def test_of_very_many_images_fewer_resamples_are_drawn_and_that_is_said():
    generator = np.random.default_rng(0)
    images = 50_000
    model = Predicted(role="chosen", key="k", probabilities=np.full((images, 6), 0.5))
    labels, patients = generator.integers(0, 2, (images, 6)), np.zeros(images, dtype=int)
    found = trace_models([model], labels, patients, classes=list("abcdef"), split="test")
    assert found.replicates == 200


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (0.123456789, 0.123457),
        ((1, 2.0), [1, 2.0]),
        (float("nan"), None),
        (np.float64("inf"), None),
        ({"a</script>&'": "<!--"}, {"a</script>&'": "<!--"}),
        (True, True),
        (123456789, 123456789),
    ],
)
def test_figures_are_json_that_ends_no_script(given, read):
    text = str(dump_plot({"x": given}))
    assert json.loads(text) == {"x": read}
    assert not set("<>&'") & set(text)
