"""A trait that tells the classes apart is seen, also a crooked one; noise, and a patient's own habits, are not."""

import numpy as np
import pytest

from ttl_deploy.data import confounding
from ttl_deploy.data.traits import TRAITS
from ttl_deploy.evidence import metrics


def describe_files(count, seed=0):
    """Return traits that have nothing to do with anything."""
    generator = np.random.default_rng(seed)
    traits = np.zeros(count, dtype=TRAITS)
    traits["width"], traits["height"] = generator.integers(200, 400, (2, count))
    traits["size_bytes"] = generator.integers(2000, 9000, count)
    traits["format"], traits["mode"] = generator.choice(["PNG", "JPEG"], count), "L"
    traits["border"] = generator.normal(50, 10, count)
    return traits


def find_aurocs(traits, labels, patients=None, classes=2):
    groups = np.arange(len(labels)) if patients is None else patients
    found = confounding.cross_validate(traits, labels, groups, classes=classes)
    return {name: metrics.evaluate("auroc", values, labels).value for name, values in found.items()}


@pytest.fixture
def labels():
    return np.random.default_rng(7).integers(0, 2, 400)


def test_noise_tells_nothing(labels):
    aurocs = find_aurocs(describe_files(400), labels)
    assert "image width" in aurocs
    assert confounding.TOGETHER in aurocs
    assert max(aurocs.values()) < 0.6


def test_a_file_type_that_goes_with_the_class_is_found(labels):
    traits = describe_files(400)
    traits["format"] = np.where(labels == 1, "JPEG", "PNG")
    aurocs = find_aurocs(traits, labels)
    assert aurocs["file type"] == 1
    assert aurocs[confounding.TOGETHER] > 0.95
    assert aurocs["image width"] < 0.6


def test_a_class_between_two_sizes_is_found_where_no_line_divides_them(labels):
    traits = describe_files(400)
    sides = np.random.default_rng(1).choice([200, 400], 400)
    traits["width"] = np.where(labels == 1, 300, sides)
    assert find_aurocs(traits, labels)["image width"] > 0.95
    assert abs(metrics.auroc(labels, traits["width"]) - 0.5) < 0.1


@pytest.mark.parametrize(("count", "wide"), [(24, 6), (24, 12), (24, 18), (400, 12), (400, 200), (400, 388)])
def test_two_sizes_are_told_apart_however_rare_one_is(count, wide):
    labels = (np.arange(count) < wide).astype(int)
    traits = _equal_files(count)
    traits["width"] += labels
    assert find_aurocs(traits, labels) == {"image width": 1, "aspect ratio": 1, confounding.TOGETHER: 1}


def test_traits_that_never_vary_are_left_out(labels):
    assert "colour mode" not in find_aurocs(describe_files(400), labels)
    assert find_aurocs(_equal_files(400), labels) == {}


def _equal_files(count):
    traits = np.zeros(count, dtype=TRAITS)
    traits["width"] = traits["height"] = 100
    return traits


def test_patients_stay_whole_so_that_what_only_names_a_patient_tells_nothing():
    """Forty patients with ten images each, and a mode that is the patient's own: known by heart, never learned."""
    patients = np.repeat(np.arange(40), 10)
    labels = np.random.default_rng(3).integers(0, 2, 40)[patients]
    traits = _equal_files(400)
    traits["mode"] = np.char.add("M", patients.astype("U3"))
    assert find_aurocs(traits, labels, patients)["colour mode"] == 0.5
    assert find_aurocs(traits, labels)["colour mode"] > 0.95  # what ignoring the patients would have said


def test_detail_of_the_picture_is_kept_apart_from_the_rest(labels):
    traits = describe_files(400)
    traits["size_bytes"] = np.where(labels == 1, 9000, 100)
    aurocs = find_aurocs(traits, labels)
    assert aurocs["bytes per pixel"] > 0.95
    assert aurocs[confounding.TOGETHER] < 0.6


def test_a_sample_takes_whole_patients_and_keeps_to_its_limit():
    patients = np.random.default_rng(0).integers(0, 50, 500)
    chosen = confounding.choose_whole(patients, 100)
    assert 50 < len(chosen) <= 100
    assert not set(patients[chosen]) & set(np.delete(patients, chosen))
    assert len(confounding.choose_whole(patients, 10_000)) == 500
