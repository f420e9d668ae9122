"""From what a source says to labels: policies, chosen labels, class maps."""

import pytest

from ttl_deploy.data.labelling import label_rows
from ttl_deploy.data.labels import classes_of, name_label, unknown_of
from ttl_deploy.errors import DataError, UnknownNameError, UsageError
from ttl_deploy.plugins import RawSample
from ttl_deploy.records.data import Reading

STATED = (
    {"edema": "present", "effusion": "absent", "fracture": "blank"},
    {"edema": "uncertain", "effusion": "present", "fracture": "blank"},
    {"edema": "absent", "effusion": "uncertain", "fracture": "present"},
    {"edema": "blank", "effusion": "blank", "fracture": "blank"},
)


def findings(stated=STATED):
    return [RawSample(path=f"{number}.png", label=label) for number, label in enumerate(stated)]


def classes(*names):
    return [RawSample(path=f"{number}.png", label=name) for number, name in enumerate(names)]


def test_uncertain_findings_are_masked_and_blank_ones_absent_unless_told_otherwise():
    found = label_rows(findings(), Reading(), source="s")
    assert found.multilabel
    assert found.classes == ("edema", "effusion", "fracture")
    assert found.labels == ((1, 0, 0), (-1, 1, 0), (0, -1, 1), (0, 0, 0))
    assert [warning.message for warning in found.warnings] == [
        "2 uncertain findings are masked: they count for nothing (--uncertain ignore)",
        "5 blank findings count as absent (--blank zeros)",
    ]


@pytest.mark.parametrize(("policy", "mark"), [("ones", 1), ("zeros", 0), ("ignore", -1)])
def test_a_policy_decides_on_uncertain_findings_and_on_nothing_else(policy, mark):
    found = label_rows(findings(), Reading(uncertain=policy), source="s")
    assert found.labels == ((1, 0, 0), (mark, 1, 0), (0, mark, 1), (0, 0, 0))


def test_ignored_blanks_are_masked_and_an_image_of_which_nothing_is_known_is_left_out():
    found = label_rows(findings(), Reading(blank="ignore"), source="s")
    assert [row.path for row in found.rows] == ["0.png", "1.png", "2.png"]
    assert found.labels == ((1, 0, -1), (-1, 1, -1), (0, -1, 1))
    assert found.warnings[-1].message == "1 images are left out as nothing is known of any of their findings"


def test_one_chosen_finding_makes_two_classes_of_the_images_of_which_it_is_known():
    found = label_rows(findings(), Reading(labels=("edema",)), source="s")
    assert (found.multilabel, found.classes) == (False, ("not edema", "edema"))
    assert [(row.path, label) for row, label in zip(found.rows, found.labels, strict=True)] == [
        ("0.png", 1), ("2.png", 0), ("3.png", 0)
    ]  # fmt: skip # one line of pairs
    assert found.warnings[-1].message == "1 images are left out as 'edema' is not known for them"


def test_several_chosen_findings_stay_in_the_order_they_were_asked_for():
    found = label_rows(findings(), Reading(labels=("fracture", "edema"), uncertain="ones"), source="s")
    assert found.classes == ("fracture", "edema")
    assert found.labels == ((0, 1), (0, 1), (1, 0), (0, 0))


def test_of_grouped_findings_the_strongest_statement_counts():
    reading = Reading(classes={"edema": "lung", "effusion": "lung", "fracture": "bone"})
    found = label_rows(findings(), reading, source="s")
    assert found.classes == ("lung", "bone")
    assert found.labels == ((1, 0), (1, 0), (-1, 1), (0, 0))


def test_an_empty_new_name_leaves_a_finding_out():
    found = label_rows(findings(), Reading(classes={"fracture": ""}, uncertain="zeros"), source="s")
    assert found.classes == ("edema", "effusion")


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (Reading(labels=("oedema",)), "oedema"),
        (Reading(classes={"oedema": "x"}), "oedema"),
    ],
)
def test_names_that_the_source_does_not_have_are_refused(reading, words):
    with pytest.raises(UnknownNameError, match=words):
        label_rows(findings(), reading, source="s")
    with pytest.raises(UnknownNameError, match=words):
        label_rows(classes("edema", "none"), reading, source="s")


def test_a_finding_that_is_always_absent_is_no_task():
    with pytest.raises(DataError, match="present, or absent, in all known images"):
        label_rows(findings(STATED[:2]), Reading(labels=("fracture",)), source="s")


def test_one_of_several_classes_is_told_from_all_others():
    found = label_rows(classes("mel", "nv", "bcc", "mel"), Reading(labels=("mel",)), source="s")
    assert (found.classes, found.labels) == (("not mel", "mel"), (1, 0, 0, 1))


def test_some_of_several_classes_leave_the_images_of_the_others_out():
    found = label_rows(classes("mel", "nv", "bcc", "mel"), Reading(labels=("nv", "mel")), source="s")
    assert [row.path for row in found.rows] == ["0.png", "1.png", "3.png"]
    assert (found.classes, found.labels) == (("nv", "mel"), (1, 0, 1))
    assert found.warnings[0].message == "1 images are left out by --label"


def test_classes_are_renamed_grouped_and_left_out_by_a_map():
    reading = Reading(classes={"bacteria": "pneumonia", "virus": "pneumonia", "unclear": ""})
    found = label_rows(classes("bacteria", "normal", "virus", "unclear"), reading, source="s")
    assert (found.classes, found.labels) == (("normal", "pneumonia"), (1, 0, 1))
    assert found.warnings[0].message == "1 images are left out by the class map"


def test_grades_stay_in_the_order_of_their_numbers():
    assert label_rows(classes("10", "2", "0"), Reading(), source="s").classes == ("0", "2", "10")


def test_a_source_with_both_kinds_of_labels_is_refused():
    with pytest.raises(DataError, match="use one kind of label"):
        label_rows([*classes("edema"), *findings()], Reading(), source="s")
    with pytest.raises(UsageError, match="an empty label"):
        label_rows(classes("edema", "normal"), Reading(labels=("", "normal")), source="s")


def test_labels_are_named_with_what_is_not_known():
    assert name_label((1, -1, 0), ("a", "b", "c")) == "a, b?"
    assert name_label((0, 0), ("a", "b")) == "none"
    assert name_label(1, ("a", "b")) == "b"
    assert (classes_of((1, -1, 0, 1)), unknown_of((1, -1, 0, 1))) == ((0, 3), (1,))
    assert (classes_of(2), unknown_of(2)) == ((2,), ())
