"""The model card never says more of a cut than the comparison with the full network did."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from ttl_deploy.evidence import noninferiority
from ttl_deploy.export.model_card import render_model_card
from ttl_deploy.records.artifacts import Parity
from ttl_deploy.records.models import FULL

PARITY = Parity(images=1, max_difference=0, mean_difference=0, decisions_flipped=0, limit=1e-4, reference="torch")


def beside_the_full_network(manifest):
    card = render_model_card(manifest, PARITY)
    return card.split("## Beside the full network\n\n")[1].split("\n\n##")[0]


def compare(noise):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 600)
    scores = 1 / (1 + np.exp(-(2 * labels - 1 + generator.normal(size=600))))
    small = np.clip(scores + noise * generator.normal(size=600), 0, 1)
    models = {name: np.stack([1 - one, one], axis=1) for name, one in (("full", scores), ("layer_2", small))}
    return noninferiority.compare(models, labels, np.arange(600), split="test", replicates=400)


@pytest.mark.parametrize(("noise", "verdict"), [(0.01, "non-inferior"), (0.6, "inferior")])
def test_the_verdict_stands_on_the_card_with_its_difference(shipped_manifest, noise, verdict):
    comparison = compare(noise)
    said = beside_the_full_network(replace(shipped_manifest, comparison=comparison))
    (found,) = comparison.verdicts
    assert found.verdict == verdict
    assert said.startswith(f"On the test split (600 patients), at a margin of 0.02 in AUROC: **{verdict}** to full; ")
    assert f"Difference {found.difference.value:+.3f} [" in said


def test_an_undefined_verdict_has_no_difference(shipped_manifest):
    models = {"full": np.full((4, 2), 0.5), "layer2": np.full((4, 2), 0.5)}
    comparison = noninferiority.compare(models, [0, 1, 0, 1], np.arange(4), split="test", replicates=100)
    said = beside_the_full_network(replace(shipped_manifest, comparison=comparison))
    assert "**undefined** against full; too small" in said
    assert "Difference" not in said


def test_what_was_not_tested_is_said_to_be_not_tested(shipped_manifest):
    assert beside_the_full_network(shipped_manifest).startswith("It was not tested")
    full = replace(shipped_manifest, model=replace(shipped_manifest.model, cut=FULL))
    assert beside_the_full_network(full) == "This is the full network."
