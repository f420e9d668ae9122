"""What is said of subgroups: how many were looked at, what is small, and what was left out."""

from dataclasses import replace

import numpy as np
import pytest

from ttl_deploy.evidence.columns import find_groupings
from ttl_deploy.evidence.subgroup_words import explain, tell_columns
from ttl_deploy.evidence.subgroups import Cases, Scored, score_columns, score_split
from ttl_deploy.records import codec
from ttl_deploy.records.subgroups import LeftOut, Subgroups

HOSTILE = "a|b\n# <script>alert(1)</script> *x* [y](javascript:z) `c` \\"


def make(rows, *, patients=240, classes=("normal", "ill")):
    """Describe subgroups of drawn predictions; `rows` are the cells of each patient."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, len(classes), patients)
    probabilities = generator.dirichlet(np.ones(len(classes)), patients)
    groupings, left_out = find_groupings(rows)
    cases = Cases(
        labels=labels, patients=np.arange(patients), classes=classes, split="test", replicates=50, permutations=19
    )
    return Subgroups(
        split="test",
        model="layer3__full__s0",
        reference="full__full__s0",
        classes=classes,
        decision="the most probable class",
        level=0.95,
        patients_known=True,
        fewest=10,
        overall=score_split(cases, Scored(probabilities=probabilities)),
        columns=score_columns(cases, groupings, Scored(probabilities=probabilities)),
        left_out=left_out,
        why_split="opened by the search; nothing was run anew",
    )


@pytest.fixture(scope="module")
def found():
    rows = [{"sex": "FM"[n % 2], "site": ["A", HOSTILE, ""][n % 3], "study": f"s{n}"} for n in range(240)]
    return make(rows)


def test_it_is_said_how_many_groups_were_looked_at_and_what_was_left_out(found):
    said = " ".join(explain(found))
    assert "5 groups were looked at" in said
    assert "some look worse, or better, by chance alone. Of 20 intervals about one misses" in said
    assert "study (looks like an identifier: 240 different values in 240 images)" in said
    assert "Scores of layer3__full__s0, beside full__full__s0 on the test split (opened by the search" in said
    assert "fewer than 10 patients with, or without, a class is too small to judge" in said


def test_each_test_of_equality_is_told_with_its_correction(found):
    said = " ".join(explain(found))
    for column in found.columns:
        assert f"{column.column}: p = {column.test.p:.2g}, {column.test.p_holm:.2g} corrected for 2 columns" in said
    assert "A large p does not show that groups are alike" in said


def test_untested_columns_of_one_reason_stand_together():
    found = make([{"sex": "FM"[n % 2], "ward": "AB"[n % 2]} for n in range(240)], classes=("a", "b", "c"))
    said = explain(found)
    assert "Not tested for an AUROC that is the same in all groups: sex, ward (more than two classes)." in said
    assert not any("large p" in sentence for sentence in said)


def test_unknown_patients_are_a_warning(found):
    assert any("every image counts as one" in one for one in explain(replace(found, patients_known=False)))
    assert not any("every image counts as one" in one for one in explain(found))


def test_without_columns_there_is_a_sentence(found):
    none = replace(found, columns=(), left_out=())
    assert tell_columns(none).startswith("The data set has no columns besides path, label, patient and split")
    some = replace(none, left_out=(LeftOut(column="id\x1b", reason="one value only: F"),))
    assert tell_columns(some) == "Columns left out: id\ufffd (one value only: F)."


def test_the_record_survives_json(found):
    assert codec.from_builtins(Subgroups, codec.to_builtins(found)) == found
