"""Prediction from files: every image its row, in order, unreadable ones too."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.errors import UsageError
from ttl_deploy.files import escape_cell
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.predict import Prediction, PredictionFailure, find_images, predict, write_predictions


@pytest.fixture
def artifact(artifact_folder):
    return open_artifact(artifact_folder)


@pytest.fixture
def pictures(tmp_path, tiny):
    """Five lossless pictures of the model's own size, one of them in a folder below, and a text file."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    images = tiny.images(5, seed=3)
    names = ["a.png", "b.PNG", "c.bmp", "d.tif", "below/e.png"]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder, dict(zip(names, images, strict=True))


def test_images_of_a_folder_are_predicted_in_order(artifact, pictures, tiny):
    folder, images = pictures
    predictions = list(predict(artifact, [folder], batch=2))
    assert [str(p.path.relative_to(folder)) for p in predictions] == sorted(images)
    for prediction in predictions:
        expected = tiny.expected(images[str(prediction.path.relative_to(folder))][None])[0]
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
        assert prediction.predicted == ("normal", "ill")[int(np.argmax(expected))]


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (1, 8), (2, 3)])
def test_batching_and_threads_change_nothing(artifact, pictures, threads, batch):
    alone = {p.path: p for p in predict(artifact, [pictures[0]], batch=1)}
    for prediction in predict(artifact, [pictures[0]], threads=threads, batch=batch):
        assert prediction.predicted == alone[prediction.path].predicted
        np.testing.assert_allclose(prediction.probabilities, alone[prediction.path].probabilities, atol=1e-6)


def test_an_unreadable_image_costs_its_own_row_only(artifact, pictures):
    folder, _ = pictures
    (folder / "b.PNG").write_text("not an image")
    paths = [folder / "a.png", folder / "b.PNG", folder / "missing.png", folder / "c.bmp"]
    kinds = [type(prediction) for prediction in predict(artifact, paths, batch=3)]
    assert kinds == [Prediction, PredictionFailure, PredictionFailure, Prediction]


def test_a_batch_without_one_readable_image_is_no_problem(artifact, pictures):
    folder, _ = pictures
    (folder / "a.png").write_text("x")
    (prediction,) = predict(artifact, [folder / "a.png"])
    assert isinstance(prediction, PredictionFailure)
    assert "a.png" in prediction.reason


def test_progress_counts_images(artifact, pictures):
    steps = []
    list(predict(artifact, [pictures[0]], batch=2, progress=lambda done, total: steps.append((done, total))))
    assert steps == [(2, 5), (4, 5), (5, 5)]


def test_a_threshold_decides_where_the_manifest_says_so(artifact, pictures):
    strict = replace(artifact, manifest=replace(artifact.manifest, decision="threshold", threshold=0.0))
    assert {p.predicted for p in predict(strict, [pictures[0]])} == {"ill"}


def test_nothing_to_predict_is_a_usage_error(artifact, tmp_path):
    (tmp_path / "empty").mkdir()
    for paths in ([], [tmp_path / "empty"]):
        with pytest.raises(UsageError, match="no images in"):
            predict(artifact, paths)


@pytest.mark.parametrize("batch", [0, 9])
def test_a_batch_the_model_does_not_take_is_refused_at_once(artifact, pictures, batch):
    with pytest.raises(UsageError, match="1 to 8"):
        predict(artifact, [pictures[0]], batch=batch)


def test_files_given_by_name_are_taken_whatever_their_suffix(tmp_path):
    assert find_images([tmp_path / "scan.dat"]) == (tmp_path / "scan.dat",)


def test_the_table_has_a_row_per_image_and_counts_them(artifact, pictures, tmp_path):
    folder, _ = pictures
    (folder / "b.PNG").write_text("not an image")
    out = tmp_path / "predictions.csv"
    counts = write_predictions(out, predict(artifact, [folder]), classes=artifact.manifest.classes)
    assert (counts.predicted, counts.failed) == (4, 1)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "predicted", "p_normal", "p_ill", "status", "error"]
    for row in rows:
        if row["status"] == "ok":
            assert float(row["p_normal"]) + float(row["p_ill"]) == pytest.approx(1, abs=2e-6)
            assert row["error"] == ""
        else:
            assert row["status"] == "error"
            assert (row["predicted"], row["p_normal"], row["path"]) == ("", "", str(folder / "b.PNG"))
            assert "not an image" in row["error"]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_cells_never_start_a_formula(cell, tmp_path):
    failure = PredictionFailure(path=tmp_path, reason=cell)
    write_predictions(tmp_path / "out.csv", [failure], classes=[cell])
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        header, row = list(csv.reader(file))
    assert row[-1] == f"'{cell}" == escape_cell(cell)
    assert header[2] == f"p_{cell}"
    assert escape_cell("plain") == "plain"


def test_a_table_that_cannot_be_finished_leaves_nothing(tmp_path):
    def broken():
        yield PredictionFailure(path=tmp_path, reason="x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(tmp_path / "out.csv", broken(), classes=["a"])
    assert list(tmp_path.iterdir()) == []
