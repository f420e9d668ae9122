"""Prediction from files: every image its row, in order, unreadable ones too."""

import csv
import threading
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.data import open_cache, prepare
from ttl_deploy.errors import UsageError
from ttl_deploy.files import escape_cell
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.image_files import count_images, find_images
from ttl_deploy.runtime.predict import Prediction, PredictionFailure, predict, write_predictions


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
    assert list(find_images([tmp_path / "scan.dat"])) == [tmp_path / "scan.dat"]
    assert count_images([tmp_path / "scan.dat"]) == 1


def test_folders_are_walked_in_the_order_of_their_paths_parts(tmp_path):
    names = ["b.png", "B.JPG", "a/z.png", "a.png", "a b/1.tif", "a/b/c.webp", "a-/2.bmp", "é/3.jpeg", "10.png", "9.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "linked.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    found = list(find_images([tmp_path]))
    assert found == sorted((tmp_path / name for name in (*names, "linked.png")), key=lambda path: path.parts)
    assert count_images([tmp_path]) == len(found)


def test_a_folder_that_cannot_be_read_is_a_usage_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        count_images([tmp_path])


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


class Recorder:
    """A session that keeps nothing but what it is told to look at."""

    runtime, precision = "recorder 1", "fp32"

    def __init__(self, look=lambda images: None):
        self.look = look

    def run(self, images):
        self.look(images)
        return np.tile(np.array([[0.25, 0.75]], np.float32), (len(images), 1))


@pytest.fixture
def many_files(tmp_path):
    """Return a function that makes so many (empty) image files, fifty to a folder."""

    def make(count):
        root = tmp_path / f"many-{count}"
        for number in range(count):
            folder = root / f"{number // 50:04d}"
            if number % 50 == 0:
                folder.mkdir(parents=True)
            (folder / f"{number:06d}.png").touch()
        return root

    return make


def highest_number_of_images(artifact, root, monkeypatch, *, batch, threads):
    """Predict with a decoder that counts its images while they live; return the highest count, and how many came."""
    lock, alive, highest, made = threading.Lock(), 0, 0, 0

    def bury():
        nonlocal alive
        with lock:
            alive -= 1

    def decode(path, settings):
        nonlocal alive, highest, made
        image = np.zeros((16, 16, 3), np.uint8)
        with lock:
            alive, made = alive + 1, made + 1
            highest = max(highest, alive)
        weakref.finalize(image, bury)
        return image

    monkeypatch.setattr("ttl_deploy.runtime.predict.decode", decode)
    monkeypatch.setattr("ttl_deploy.runtime.predict.open_safely", lambda *args, **options: Recorder())
    count = sum(1 for _ in predict(artifact, [root], batch=batch, threads=threads))
    assert count == made
    return highest, made


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (8, 1), (4, 3)])
def test_few_images_are_in_memory_however_many_there_are(artifact, many_files, monkeypatch, batch, threads):
    limit = 4 * batch + threads + 1
    for count in (200, 2000):
        highest, made = highest_number_of_images(artifact, many_files(count), monkeypatch, batch=batch, threads=threads)
        assert made == count
        assert batch < highest <= limit


def test_memory_does_not_grow_with_the_folder(artifact, many_files, monkeypatch, tmp_path):
    image = np.zeros((128, 128, 3), np.uint8)
    monkeypatch.setattr("ttl_deploy.runtime.predict.decode", lambda path, settings: image.copy())
    monkeypatch.setattr("ttl_deploy.runtime.predict.open_safely", lambda *args, **options: Recorder())
    peaks, folders = [], {count: many_files(count) for count in (100, 1500)}
    for count in (100, 100, 1500):  # the first fills caches
        tracemalloc.start()
        counts = write_predictions(tmp_path / "out.csv", predict(artifact, [folders[count]]), classes=("normal", "ill"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert counts.predicted == count
    _, few, many = peaks
    assert many < few + 10 * image.nbytes
    assert many < 1500 * image.nbytes / 10


def test_decoding_runs_ahead_of_the_model(artifact, pictures, monkeypatch):
    """While the model is in its first batch, the images of the next are decoded: else this waits for ever."""
    second = threading.Event()

    def look(images):
        assert second.wait(60)

    def decode(path, settings):
        if path.name == "c.bmp":
            second.set()
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr("ttl_deploy.runtime.predict.decode", decode)
    monkeypatch.setattr("ttl_deploy.runtime.predict.open_safely", lambda *args, **options: Recorder(look))
    assert len(list(predict(artifact, [pictures[0]], batch=2))) == 5


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_predicted_pixels_are_those_of_training_to_the_last_bit(artifact, tmp_path, monkeypatch, fit):
    """Files of all modes and odd sizes, through the folder reader and the cache, and through predict."""
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    write_odd_images(folder)
    settings = DecodeSettings(image_size=16, fit=fit)
    manifest = prepare(str(folder))
    cached = open_cache(manifest, settings).pixels(range(len(manifest.samples)))
    paths = [Path(manifest.root) / sample.path for sample in manifest.samples]
    given = []
    monkeypatch.setattr(
        "ttl_deploy.runtime.predict.open_safely",
        lambda *args, **options: Recorder(lambda images: given.extend(images.copy())),
    )
    fitted = replace(artifact, manifest=replace(artifact.manifest, decode=settings))
    assert all(isinstance(answer, Prediction) for answer in predict(fitted, paths, batch=3))
    assert len(given) == len(paths) == 16
    np.testing.assert_array_equal(np.stack(given), cached)


def write_odd_images(folder):
    """Write two folders of eight: greyscale of 8, 12 and 16 bits, palette, transparent, rotated by EXIF, lossy."""
    rng = np.random.default_rng(0)
    for label in ("ill", "normal"):
        (folder / label).mkdir(parents=True)
        grey = rng.integers(0, 256, (37, 53), dtype=np.uint8)
        colour = Image.fromarray(rng.integers(0, 256, (41, 29, 3), dtype=np.uint8))
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.fromarray(grey).save(folder / label / "grey.png")
        Image.fromarray(grey.astype(np.uint16) * 16).save(folder / label / "twelve.png")
        Image.fromarray(grey.astype(np.uint16) * 257).save(folder / label / "sixteen.tif")
        colour.quantize(17).save(folder / label / "palette.png")
        colour.convert("RGBA").rotate(10).save(folder / label / "transparent.png")
        colour.save(folder / label / "rotated.jpg", exif=turned)
        colour.convert("CMYK").save(folder / label / "cmyk.jpg")
        colour.resize((9, 7)).save(folder / label / "tiny.bmp")


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_precision_that_cannot_run_is_refused_at_once(artifact, pictures, precision):
    with pytest.raises(UsageError, match=r"int8 was asked for|cannot run bf16"):
        predict(artifact, [pictures[0]], precision=precision)


def test_an_int8_artifact_runs_where_the_runtime_takes_it_in_fp32_and_that_is_told(artifact, pictures):
    said = replace(artifact, manifest=replace(artifact.manifest, precision="int8"))
    stream = predict(said, [pictures[0]], target="onnxruntime-cpu")
    assert (len(list(stream)), stream.precision) == (5, "fp32")


def test_a_bf16_artifact_is_run_in_bf16_or_not_at_all(artifact, pictures):
    said = replace(artifact, manifest=replace(artifact.manifest, precision="bf16"))
    with pytest.raises(UsageError, match="onnxruntime-cpu cannot run bf16 on this machine"):
        predict(said, [pictures[0]], target="onnxruntime-cpu")


def test_another_target_says_the_same(artifact, pictures):
    pytest.importorskip("openvino")
    stream = predict(artifact, [pictures[0]], target="openvino-cpu", batch=2)
    assert (stream.images, stream.precision, stream.runtime.split()[0]) == (5, "fp32", "openvino")
    for given, expected in zip(stream, predict(artifact, [pictures[0]]), strict=True):
        assert (given.path, given.predicted) == (expected.path, expected.predicted)
        np.testing.assert_allclose(given.probabilities, expected.probabilities, atol=1e-5)
