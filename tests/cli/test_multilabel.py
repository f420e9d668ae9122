"""Films with several findings each, some uncertain or not mentioned, laid out as CheXpert is."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

Run = Callable[..., subprocess.CompletedProcess[str]]
OBSERVATIONS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
DRAWN = ("Cardiomegaly", "Edema", "Fracture")
MARKS = {"1.0": "1", "0.0": "0", "-1.0": "?", "": "0"}


def draw_film(rng, present):
    film = rng.normal(110, 10, (32, 32))
    film[18:28, 10:22] += 70 * present[0]
    film[4:16, 2:12] -= 60 * present[1]
    film[4:12, 20:28] += 70 * present[2]
    return Image.fromarray(np.clip(film, 0, 255).astype(np.uint8))


def state(rng, present):
    """Say of a finding what is true, or that it is uncertain, or, where it is absent, nothing."""
    drawn = rng.random()
    if drawn < 0.1:
        return "-1.0"
    return "1.0" if present else ("" if drawn < 0.6 else "0.0")


def lay_out(root, *, train, valid, seed):
    """Make the set, and return every image's stated findings by the end of its path."""
    rng, told = np.random.default_rng(seed), {}
    for split, patients in (("train", train), ("valid", valid)):
        rows = []
        for _ in range(patients):
            folder = f"{split}/patient{len(told) + 1:05d}/study1"
            present = rng.random(3) < 0.4
            stated = {name: state(rng, here) for name, here in zip(DRAWN, present, strict=True)}
            (root / folder).mkdir(parents=True)
            draw_film(rng, present).save(root / folder / "view1_frontal.jpg", quality=95)
            told[f"{folder}/view1_frontal.jpg"] = stated
            path = f"{root.name}/{folder}/view1_frontal.jpg"
            marks = [stated.get(name, "") for name in OBSERVATIONS]
            rows.append([path, "Female", "60", "Frontal", "AP", *marks])
        with open(root / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS], *rows])
    return told


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "CheXpert-v1.0-small"
    root.mkdir()
    return root, lay_out(root, train=110, valid=40, seed=3)


@pytest.fixture(scope="module")
def searched(told, tmp_path_factory, cache):
    from tests.cli.conftest import call

    run = tmp_path_factory.mktemp("multilabel") / "run"
    done = call(
        ["search", "--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--data", str(told[0]), "-o", str(run),
         "--label", ",".join(DRAWN), "--cuts", "stage2.3", "--image-size", "32", "--epochs", "3", "--lr", "2e-3",
         "--batch-size", "16", "--workers", "1", "--skip", "profile,joint", "--no-progress"],
        cwd=run.parent, TTL_DEPLOY_CACHE=str(cache),
    )  # fmt: skip # the command as it is typed
    assert done.returncode == 0, done.stderr
    return run, done


def read_manifest(run: Path) -> list[dict[str, str]]:
    with open(run / "data" / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_label_is_what_the_table_says_by_the_stated_policies(told, searched) -> None:
    rows = read_manifest(searched[0])
    stated = told[1]
    known = {path for path, findings in stated.items() if any(mark != "-1.0" for mark in findings.values())}
    assert {row["path"] for row in rows} == known
    for row in rows:
        assert row["label"] == "".join(MARKS[stated[row["path"]][name]] for name in DRAWN)
        assert row["patient_id"] == row["path"].split("/")[1]
        assert (row["split"] == "val") == row["path"].startswith("valid/")
    uncertain = sum(mark == "-1.0" for findings in stated.values() for mark in findings.values())
    assert f"{uncertain} uncertain findings are masked" in searched[1].stderr
    assert "blank findings count as absent" in searched[1].stderr


def test_scores_are_those_of_the_known_labels_only(searched) -> None:
    run, _ = searched
    front = json.loads((run / "front.json").read_text())
    for point in front["points"]:
        with np.load(run / "trials" / f"{point['cut']}__full__s0" / "predictions_val.npz") as stored:
            labels, probabilities = stored["labels"], stored["probabilities"]
        expected = [
            roc_auc_score(labels[labels[:, k] >= 0, k], probabilities[labels[:, k] >= 0, k]) for k in range(len(DRAWN))
        ]
        (auroc,) = [score for score in point["validation"] if score["metric"] == "auroc"]
        assert auroc["per_class"] == pytest.approx(expected, abs=1e-9)
        assert auroc["value"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert max(point["seed_values"][0] for point in front["points"]) > 0.9  # the findings are drawn to be seen


def test_the_shipped_file_answers_every_finding_by_itself(told, searched, ttl_deploy: Run, tmp_path) -> None:
    run, _ = searched
    exported = ttl_deploy("export", run, "--format", "onnx", "--cut", "full")
    assert exported.returncode == 0, exported.stderr
    folder = run / "exports" / "full"
    assert onnx.load(folder / "model.onnx").graph.node[-1].op_type == "Sigmoid"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["decision"], manifest["classes"]) == ("each", list(DRAWN))
    assert ttl_deploy("verify", folder, "--data", told[0], "--label", ",".join(DRAWN)).returncode == 0

    films = sorted(told[0].glob("valid/*/*/*.jpg"))
    predicted = ttl_deploy("predict", folder, *films, "--out", tmp_path / "p.csv")
    assert predicted.returncode == 0, predicted.stderr
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in films])
    (expected,) = session.run(None, {"image": pixels})
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    given = np.array([[float(row[f"p_{name}"]) for name in DRAWN] for row in rows])
    np.testing.assert_allclose(given, expected, atol=1e-6)
    for row, values in zip(rows, expected, strict=True):
        assert row["predicted"] == "|".join(name for name, p in zip(DRAWN, values, strict=True) if p >= 0.5)


def test_one_finding_makes_an_ordinary_task_of_two_classes(told, ttl_deploy: Run, tmp_path) -> None:
    seen = ttl_deploy("inspect", told[0], "--label", "Edema", "--uncertain", "ones", "--json", "--no-progress")
    assert seen.returncode == 0, seen.stderr
    found = json.loads(seen.stdout)
    assert found["classes"] == ["not Edema", "Edema"]
    positive = sum(findings["Edema"] in ("1.0", "-1.0") for findings in told[1].values())
    assert sum(split["per_class"][1] for split in found["splits"]) == positive


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--label", "Oedema"], 2, "Oedema"),
        (["--label", "Edema,Fracture", "--uncertain", "maybe"], 2, "uncertain"),
        ([], 3, "has no training images"),  # eleven observations stand for nobody
    ],
)
def test_what_makes_no_task_is_refused_before_anything_is_decoded(told, ttl_deploy: Run, options, code, words) -> None:
    done = ttl_deploy("inspect", told[0], *options, "--no-progress")
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
