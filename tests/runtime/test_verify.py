"""Verification: the same model passes, another one does not, and what could not be checked is said."""

from dataclasses import replace

import numpy as np
import pytest

from ttl_deploy.errors import DataError
from ttl_deploy.files import sha256_bytes
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.parity import compare
from ttl_deploy.runtime.verify import LabelledImages, verify

COUNT = 40


@pytest.fixture
def images(tiny):
    return tiny.images(COUNT, seed=5)


@pytest.fixture
def artifact(tiny, tmp_path, images):
    return open_artifact(tiny.write(tmp_path / "artifact", reference_images=images))


def labelled(images, /, **changes):
    """Label images by their red channel, which the model leans on, with one patient per two images."""
    data = LabelledImages(
        images=images,
        labels=[int(image[..., 0].mean() < 140) for image in images],
        patients=[f"p{i // 2}" for i in range(len(images))],
        sha256s=[sha256_bytes(image.tobytes()) for image in images],
        classes=("normal", "ill"),
        split="test",
    )
    return replace(data, **changes)


def auroc_by_pairs(scores, labels):
    """Count the pairs that are in the right order."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative).sum() + 0.5 * (positive[:, None] == negative).sum()
    return wins / (len(positive) * len(negative))


def value(scores, metric):
    return next(score for score in scores if score.metric == metric).value


def test_the_exported_model_passes_with_its_scores_beside_the_models(artifact, images, tiny):
    data = labelled(images)
    report = verify(artifact, data)
    assert report.passed
    assert report.note == ""
    assert (report.images, report.parity.images, report.parity.decisions_flipped) == (COUNT, COUNT, 0)
    assert report.parity.max_difference < 1e-5
    expected = auroc_by_pairs(tiny.expected(images)[:, 1].astype(float), np.array(data.labels))
    for scores in (report.file_scores, report.model_scores, report.file_scores_with_reference):
        assert value(scores, "auroc") == pytest.approx(expected)
    assert report.artifact_sha256 == artifact.model_sha256
    assert report.target.startswith("onnxruntime-cpu (onnxruntime ")


def test_scores_and_flips_are_those_of_the_manifests_threshold(tiny, tmp_path, images):
    p = tiny.expected(images)[:, 1].astype(float)
    threshold = float(np.float32(np.sort(p)[12:14].mean()))
    manifest = tiny.manifest(decision="threshold", threshold=threshold)
    report = verify(
        open_artifact(tiny.write(tmp_path / "t", manifest=manifest, reference_images=images)), labelled(images)
    )
    called, truth = p >= threshold, np.array(labelled(images).labels) == 1
    assert report.passed
    assert (report.threshold, report.limit) == (threshold, 1e-4)
    assert report.near_threshold == (np.abs(p - threshold) <= 1e-4).sum() < COUNT
    assert value(report.file_scores, "sensitivity") == pytest.approx(called[truth].mean())
    assert value(report.file_scores, "specificity") == pytest.approx((~called)[~truth].mean())
    assert value(report.model_scores, "accuracy") == pytest.approx((called == truth).mean())


def test_batches_give_the_same_report_as_one_array(artifact, images):
    batches = (images[i : i + 3] for i in range(0, COUNT, 3))
    streamed, whole = verify(artifact, labelled(images, images=batches)), verify(artifact, labelled(images))
    blank = {"parity": None, "file_scores": (), "file_scores_with_reference": ()}
    assert replace(streamed, **blank) == replace(whole, **blank)
    for one, other in zip(streamed.file_scores, whole.file_scores, strict=True):
        assert (one.metric, one.images) == (other.metric, other.images)
        assert one.value == pytest.approx(other.value, abs=1e-6)
    assert streamed.parity.max_difference == pytest.approx(whole.parity.max_difference, abs=1e-6)


def test_a_file_that_computes_something_else_fails(tiny, tmp_path, images):
    folder = tiny.write(tmp_path / "other", reference_images=images)
    wrong = tiny.expected(images)[:, ::-1]
    shas = np.array([sha256_bytes(image.tobytes()) for image in images])
    np.savez(folder / "reference.npz", sha256=shas, probabilities=wrong)
    tiny.seal(folder, tiny.manifest())
    report = verify(open_artifact(folder), labelled(images))
    assert not report.passed
    assert report.parity.decisions_flipped > COUNT // 2
    assert report.parity.max_difference == pytest.approx(np.abs(wrong - wrong[:, ::-1]).max(), abs=1e-5)
    assert value(report.model_scores, "auroc") == pytest.approx(1 - value(report.file_scores, "auroc"))


def test_unknown_images_are_scored_and_the_missing_reference_is_said(artifact, tiny):
    report = verify(artifact, labelled(tiny.images(COUNT, seed=99)))
    assert report.parity is None
    assert report.model_scores == report.file_scores_with_reference == ()
    assert value(report.file_scores, "auroc") is not None
    assert report.passed
    assert "No image of these data has a recorded reference" in report.note


def test_wrong_golden_images_fail_even_without_any_reference(tiny, tmp_path):
    folder = tiny.write(tmp_path / "other")
    golden = tiny.images(5, seed=2)
    np.savez(folder / "golden.npz", images=golden, probabilities=tiny.expected(golden)[:, ::-1])
    tiny.seal(folder, tiny.manifest())
    report = verify(open_artifact(folder), labelled(tiny.images(COUNT, seed=99)))
    assert not report.passed
    assert "golden images differ" in report.note


def test_some_references_are_compared_and_the_rest_is_counted(artifact, images, tiny):
    report = verify(artifact, labelled(np.concatenate([images[:25], tiny.images(15, seed=99)])))
    assert report.parity.images == 25
    assert report.file_scores[0].images == COUNT
    assert report.model_scores[0].images == report.file_scores_with_reference[0].images == 25
    assert "15 of 40 images have no recorded reference" in report.note


def test_further_references_can_be_given(artifact, tiny):
    others = tiny.images(COUNT, seed=99)
    known = {sha256_bytes(image.tobytes()): row for image, row in zip(others, tiny.expected(others), strict=True)}
    report = verify(artifact, labelled(others), extra_references=known)
    assert report.parity.images == COUNT
    assert report.passed


def test_all_splits_together_are_allowed_with_a_warning(artifact, images):
    report = verify(artifact, labelled(images, split="all"))
    assert report.split == "all"
    assert report.file_scores[0].split == "train"
    assert "the scores are too good" in report.note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("ill", "normal")}, "the data's classes are"),
        ({"labels": [0, 1]}, "2 labels, 40 patients"),
        ({"images": np.zeros((3, 16, 16, 3), np.uint8)}, "3 images came with 40 labels"),
        ({"labels": [], "patients": [], "sha256s": []}, "no images in the split 'test'"),
    ],
)
def test_data_that_do_not_fit_are_refused(artifact, images, changes, message):
    with pytest.raises(DataError, match=message):
        verify(artifact, labelled(images, **changes))


def test_differences_that_are_not_numbers_count_as_one(tiny):
    given = np.array([[np.nan, 0.5], [0.5, 0.5]], np.float32)
    parity = compare(given, np.full((2, 2), 0.5, np.float32), tiny.manifest(), reference="")
    assert parity.max_difference == 1.0
    assert not parity.passed


def test_a_tiny_difference_that_flips_a_decision_fails_unless_the_images_are_drawn(tiny):
    given = np.array([[0.500001, 0.499999]], np.float32)
    expected = np.array([[0.499999, 0.500001]], np.float32)
    assert not compare(given, expected, tiny.manifest(), reference="").passed
    assert compare(given, expected, tiny.manifest(), reference="", count_flips=False).passed
