"""`ttl-deploy compare`: its three forms agree, it refuses what does not match, and it tells whom it opened."""

import csv
import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from ttl_deploy.evidence import intervals
from ttl_deploy.runs.folder import RunFolder

Run = Callable[..., subprocess.CompletedProcess[str]]
Rows = list[dict[str, str]]
TORCH = ("torch", "torchvision", "scipy", "sklearn")


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, whose ledger may be written to."""
    return shutil.copytree(run_folder, tmp_path / "run")


def trials(run: Path, split: str = "test") -> list[Path]:
    """The full network's predictions and then those of the cuts."""
    found = sorted(run.glob(f"trials/*/predictions_{split}.npz"))
    return sorted(found, key=lambda path: not path.parent.name.startswith("full"))


def read(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_json(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def numbers(comparison: dict[str, object]) -> object:
    """Everything of a comparison but the models' names."""
    text = json.dumps(comparison)
    for number, model in enumerate(comparison["models"]):  # type: ignore[arg-type] # a list
        text = text.replace(json.dumps(model["name"]), f'"{number}"')
    return json.loads(text)


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two tables of predictions of 600 images of 300 patients, and their labels; the second model is no worse."""
    generator = np.random.default_rng(0)
    names = [f"images/{number:03d}.png" for number in range(600)]
    labels = np.repeat(generator.integers(0, 2, 300), 2)
    base = labels + generator.normal(size=600)
    paths = []
    for name in ("full", "small"):
        scores = 1 / (1 + np.exp(-(base + 0.2 * generator.normal(size=600))))
        rows = [
            {"path": f"/data/{path}", "p_well": str(1 - p), "p_ill": str(p), "status": "ok", "error": ""}
            for path, p in zip(names, scores, strict=True)
        ]
        paths.append(write(tmp_path / f"{name}.csv", rows))
    truth = [
        {"path": path, "label": ("well", "ill")[label], "patient_id": f"P{number // 2}"}
        for number, (path, label) in enumerate(zip(names, labels, strict=True))
    ]
    return *paths, write(tmp_path / "labels.csv", truth)


def test_trials_of_a_run_are_compared_without_torch(ttl_deploy: Run, run: Path) -> None:
    full, small, *_ = trials(run)
    found = as_json(ttl_deploy("compare", full, small, "--json", blocked=TORCH))
    samples = [row for row in read(run / "data" / "manifest.csv") if row["split"] == "test"]
    classes = json.loads((run / "data" / "fingerprint.json").read_text())["classes"]
    labels = [classes.index(row["label"]) for row in samples]
    patients = [row["patient_id"] for row in samples]
    a, b = (np.load(path)["probabilities"] for path in (small, full))
    models = [intervals.score("auroc", one, labels, patients, split="test").value for one in (b, a)]
    assert [model["auroc"]["value"] for model in found["models"]] == models  # type: ignore[attr-defined] # JSON
    assert (found["images"], found["patients"], found["split"]) == (len(samples), len(set(patients)), "test")
    assert as_json(ttl_deploy("compare", full.parent, small.parent, "--json")) == found


def test_the_ledger_tells_of_each_use_of_the_test_split_but_not_of_validation(ttl_deploy: Run, run: Path) -> None:
    before = RunFolder(run).ledger.of_event("test_opened")
    cost = as_json(ttl_deploy("front", run, "--json"))["stages"]
    for split, times in (("val", 0), ("test", 1), ("test", 2)):
        full, small, *_ = trials(run, split)
        done = ttl_deploy("compare", full, small)
        assert done.returncode == 0, done.stderr
        opened = RunFolder(run).ledger.of_event("test_opened")[len(before) :]
        assert len(opened) == times
    assert opened[0].content["trials"] == [full.parent.name, small.parent.name]
    assert opened[0].content["command"].startswith("ttl-deploy compare ")
    assert "its test split was used" in done.stderr
    assert as_json(ttl_deploy("front", run, "--json"))["stages"] == cost
    report = ttl_deploy("report", run)
    assert report.returncode == 0, report.stderr
    assert "opened 3 times" in (run / "report.html").read_text(encoding="utf-8")


def test_an_artifact_says_what_its_trial_said(ttl_deploy: Run, run: Path, tmp_path: Path) -> None:
    (artifact,) = (run / "exports").iterdir()
    described = json.loads((artifact / "manifest.json").read_text())
    own = run / "trials" / f"{described['model']['cut']}__{described['strategy']}__s0" / "predictions_test.npz"
    other = next(path for path in trials(run) if path != own)
    from_trial = as_json(ttl_deploy("compare", other, own, "--json"))
    from_artifact = as_json(ttl_deploy("compare", other, artifact, "--json"))
    moved = shutil.copytree(artifact, tmp_path / "moved")
    refused = ttl_deploy("compare", other, moved)
    outside = ttl_deploy("compare", other, moved, "--labels", run / "data" / "manifest.csv", "--json")
    assert numbers(from_artifact) == numbers(from_trial) == numbers(as_json(outside))
    assert (refused.returncode, "--labels" in refused.stderr) == (2, True)


def test_tables_of_predictions_give_what_the_trial_gives(ttl_deploy: Run, run: Path, tmp_path: Path) -> None:
    samples = [row for row in read(run / "data" / "manifest.csv") if row["split"] == "val"]
    classes = json.loads((run / "data" / "fingerprint.json").read_text())["classes"]
    given = trials(run, "val")[:2]
    paths = []
    for path in given:
        rows = [
            {"path": sample["path"]} | {f"p_{c}": repr(float(p)) for c, p in zip(classes, row, strict=True)}
            for sample, row in zip(samples, np.load(path)["probabilities"], strict=True)
        ]
        paths.append(write(tmp_path / f"{path.parent.name}.csv", rows[::-1]))
    labels = ("--labels", run / "data" / "manifest.csv", "--split", "val", "--json")
    from_tables = as_json(ttl_deploy("compare", paths[0], paths[1], *labels))
    mixed = as_json(ttl_deploy("compare", given[0], paths[1], *labels))
    assert numbers(from_tables) == numbers(as_json(ttl_deploy("compare", *given, "--json"))) == numbers(mixed)


def test_the_difference_is_that_of_the_library(ttl_deploy: Run, tables: tuple[Path, Path, Path]) -> None:
    full, small, labels = tables
    found = as_json(ttl_deploy("compare", full, small, "--labels", labels, "--level", 0.9, "--json"))
    truth, patients = [row["label"] == "ill" for row in read(labels)], [row["patient_id"] for row in read(labels)]
    a, b = ([[float(row["p_well"]), float(row["p_ill"])] for row in read(path)] for path in (small, full))
    expected = intervals.paired_difference(a, b, truth, patients, reference="full", level=0.9)
    (verdict,) = found["verdicts"]  # type: ignore[misc] # a list
    assert verdict["difference"] == dataclasses.asdict(expected)


def test_the_table_and_the_gate(ttl_deploy: Run, tables: tuple[Path, Path, Path]) -> None:
    full, small, labels = tables
    options = ("--labels", labels, "--margin", 0.05, "--gate")
    passed = ttl_deploy("compare", full, small, *options)
    assert passed.returncode == 0, passed.stderr
    assert "600 images of 300 patients" in passed.stdout
    assert "small: non-inferior, a loss of 0.05 or more is excluded; smallest margin 0.0" in passed.stdout
    assert "DeLong" not in passed.stdout
    failed = ttl_deploy("compare", full, small, "--labels", labels, "--margin", 0.001, "--gate")
    assert failed.returncode == 4
    assert "positives needed" in failed.stdout
    assert "small (inconclusive)" in failed.stderr
    without = ttl_deploy("compare", full, small, "--labels", labels, "--margin", 0.001)
    assert without.returncode == 0


def test_without_patients_every_image_is_one_and_it_says_so(ttl_deploy: Run, tables: tuple[Path, Path, Path]) -> None:
    full, small, labels = tables
    rows = [{name: row[name] for name in ("path", "label")} for row in read(labels)]
    done = ttl_deploy("compare", full, small, "--labels", write(labels, rows))
    assert done.returncode == 0, done.stderr
    assert "600 images of 600 patients" in done.stdout
    assert "patients are not known" in done.stdout
    assert "DeLong's difference" in done.stdout


def without_first(rows: Rows) -> Rows:
    return rows[1:]


def doubled(rows: Rows) -> Rows:
    return [*rows, rows[3]]


def failed(rows: Rows) -> Rows:
    return [rows[0] | {"p_well": "", "p_ill": "", "status": "error", "error": "no image"}, *rows[1:]]


def not_a_number(rows: Rows) -> Rows:
    return [rows[0] | {"p_ill": "nan"}, *rows[1:]]


def renamed(rows: Rows) -> Rows:
    return [{name.replace("p_ill", "p_sick"): cell for name, cell in row.items()} for row in rows]


def without_probabilities(rows: Rows) -> Rows:
    return [{"path": row["path"]} for row in rows]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_first, ["small.csv has no row for images/000.png"]),
        (doubled, ["two rows for images/003.png"]),
        (failed, ["/data/images/000.png", "no image"]),
        (not_a_number, ["1 of 1200 predictions are not finite"]),
        (renamed, ["'ill'", "'well', 'sick'"]),
        (without_probabilities, ["p_<class>"]),
    ],
)
def test_predictions_that_do_not_match_are_refused(
    ttl_deploy: Run, tables: tuple[Path, Path, Path], change: Callable[[Rows], Rows], words: Iterable[str]
) -> None:
    full, small, labels = tables
    write(small, change(read(small)))
    done = ttl_deploy("compare", full, small, "--labels", labels)
    assert done.returncode == 3, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("label", None, "the label of images/005.png differs"),
        ("patient_id", "somebody", "the patient of images/005.png differs"),
        ("path", "images/other.png", "small has no prediction of images/005.png, which full has"),
    ],
)
def test_tables_with_labels_of_their_own_must_agree(
    ttl_deploy: Run, tables: tuple[Path, Path, Path], column: str, value: str | None, words: str
) -> None:
    full, small, labels = tables
    for path in (full, small):
        write(path, [row | truth for row, truth in zip(read(path), read(labels), strict=True)])
    same = ttl_deploy("compare", full, small)
    assert same.returncode == 0, same.stderr
    rows = read(small)
    rows[5][column] = value or {"ill": "well", "well": "ill"}[rows[5]["label"]]
    write(small, rows)
    done = ttl_deploy("compare", full, small)
    assert (done.returncode, words in done.stderr) == (3, True), done.stderr


def test_what_cannot_be_asked_is_refused(ttl_deploy: Run, run: Path, tables: tuple[Path, Path, Path]) -> None:
    full, small, labels = tables
    trial = trials(run)[0]
    ledger = (run / "ledger.jsonl").read_bytes()
    for arguments, code, words in [
        ((full,), 2, "at least one to compare"),
        ((full, full), 2, "given twice"),
        ((full, labels.parent), 2, "holds no predictions"),
        ((full, small), 3, "no column 'label'"),
        ((trial, trials(run, "val")[1]), 2, "is of the split 'val'"),
        ((trial, trials(run)[1], "--split", "val"), 2, "is of the split 'test'"),
        ((full, small, "--split", "train"), 2, "unknown split"),
        ((trial, trials(run)[1], "--margin", "2"), 2, "margin = 2.0"),
    ]:
        given = arguments if code == 3 else (*arguments, "--labels", labels)
        done = ttl_deploy("compare", *given)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert (run / "ledger.jsonl").read_bytes() == ledger
