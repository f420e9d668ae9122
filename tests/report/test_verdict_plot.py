"""The figure of the verdicts shows the numbers of the comparison, and puts each on its side of the margin."""

import numpy as np
import pytest

from ttl_deploy.evidence import noninferiority
from ttl_deploy.report.verdict_plot import draw_verdicts


@pytest.fixture(scope="module")
def comparison():
    """A good, a hardly known and a bad model beside a reference, on 600 patients."""
    drawn = np.random.default_rng(3)
    labels = drawn.integers(0, 2, 600)
    scores = 2 * labels + drawn.normal(size=600)
    noises = {"full": 0, "good": 0.05, "<b>unsure</b>": 0.6, "bad": 4}
    models = {}
    for name, noise in noises.items():
        second = 1 / (1 + np.exp(-(scores + noise * drawn.normal(size=600))))
        models[name] = np.stack([1 - second, second], axis=1)
    return noninferiority.compare(models, labels, np.arange(600), split="test", replicates=400)


def traces(plot):
    return {trace["name"]: trace for trace in plot["data"]}


def test_every_model_has_its_difference_interval_and_verdict(comparison):
    plot = draw_verdicts(comparison)
    drawn = {
        (plot["layout"]["yaxis"]["ticktext"][y], name): (x, low, high)
        for name, trace in traces(plot).items()
        if "error_x" in trace
        for x, y, low, high in zip(
            trace["x"], trace["y"], trace["error_x"]["arrayminus"], trace["error_x"]["array"], strict=True
        )
    }
    names = {"<b>unsure</b>": "b>unsure/b>"}
    assert drawn.keys() == {(names.get(one.model, one.model), one.verdict) for one in comparison.verdicts}
    assert {verdict for _, verdict in drawn} >= {"non-inferior", "inferior"}
    for one in comparison.verdicts:
        x, low, high = drawn[names.get(one.model, one.model), one.verdict]
        gap = one.difference
        assert (x, x - low, x + high) == pytest.approx((gap.value, gap.low, gap.high))


def test_the_tick_of_the_smallest_margin_stands_right_of_the_margin_just_for_what_is_non_inferior(comparison):
    plot = draw_verdicts(comparison)
    ticks = dict(zip(traces(plot)["smallest margin"]["y"], traces(plot)["smallest margin"]["x"], strict=True))
    (shade,) = (shape for shape in plot["layout"]["shapes"] if shape["type"] == "rect")
    assert shade["x1"] == -comparison.margin
    assert shade["x0"] < min(ticks.values())
    for at, one in enumerate(comparison.verdicts):
        if at in ticks:
            assert (ticks[at] >= shade["x1"]) == (one.verdict == "non-inferior")


def test_nothing_is_drawn_where_no_difference_is_defined():
    same = {"full": np.full((4, 2), 0.5), "cut": np.full((4, 2), 0.5)}
    undefined = noninferiority.compare(same, [0, 1, 0, 1], np.arange(4), split="test", replicates=100)
    assert undefined.verdicts[0].difference is None
    assert draw_verdicts(undefined) is None
