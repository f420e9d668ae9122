"""One picture under two patients, or with two labels, is reported, also where an image has several labels."""

from ttl_deploy.data.quirks import find_quirks
from ttl_deploy.records.data import Sample

CLASSES = ("effusion", "pneumonia", "edema")


def sample(path, sha256, label, patient):
    return Sample(path=path, label=label, patient_id=patient, split="train", sha256=sha256)


def messages(samples):
    return {warning.kind: warning.message for warning in find_quirks(samples, CLASSES, patients_known=True)}


def test_copies_under_two_patients_and_with_other_findings_are_named():
    found = messages(
        [
            sample("a.png", "1", (1, 0, 0), "anna"),
            sample("b.png", "1", (1, 0, -1), "bert"),
            sample("c.png", "2", (0, 1, 0), "anna"),
            sample("d.png", "2", (0, 1, 0), "anna"),
            sample("e.png", "3", (0, 0, 1), "carl"),
        ]
    )
    expected = "2 groups of byte-identical files (1 of them under different patients); such as a.png and b.png"
    assert found["identical-images"].startswith(expected)
    assert found["conflicting-labels"] == (
        "1 groups of byte-identical files have different labels; such as a.png (effusion) and b.png (effusion, edema?)"
    )


def test_distinct_images_are_no_copies():
    found = messages([sample(f"{i}.png", str(i), (1, 1, 1), "anna") for i in range(3)])
    assert not {"identical-images", "conflicting-labels"} & set(found)
