"""`ttl-deploy export`: how the file decides is refused, stored and told as it was asked for."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ttl_deploy.evidence.calibration import fit_temperature
from ttl_deploy.runtime.artifact import open_artifact

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--operating-point", "sensitivity=1.5"), 2, "give a share above 0 and below 1"),
        (("--operating-point", "yuden"), 2, "did you mean youden"),
        (("--operating-point", "specificity=0.9999"), 5, "calling every image negative"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(
    ttl_deploy: Run, run_folder: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    copy = shutil.copytree(run_folder, tmp_path / "run")
    (trial,) = copy.glob("trials/full__full__s0")
    with np.load(trial / "predictions_val.npz") as stored:
        labels = stored["labels"]
    worst = np.where(labels == 0, 0.9, 0.1).astype(np.float32)  # every negative above every positive
    np.savez(trial / "predictions_val.npz", probabilities=np.column_stack([1 - worst, worst]), labels=labels)
    done = ttl_deploy("export", copy, "--cut", "full", *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_one_class_in_validation_is_bad_data_for_a_threshold(ttl_deploy: Run, run_folder: Path, tmp_path: Path) -> None:
    from ttl_deploy.data.manifest_files import load_manifest, save_manifest

    copy = shutil.copytree(run_folder, tmp_path / "run")
    manifest = load_manifest(copy / "data")
    alike = tuple(_relabelled(sample) for sample in manifest.samples)
    save_manifest(type(manifest)(**{**_fields(manifest), "samples": alike}), copy / "data")
    done = ttl_deploy("export", copy, "--operating-point", "youden")
    assert (done.returncode, "one class" in done.stderr) == (3, True), done.stderr


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__slots__}  # type: ignore[attr-defined] # a record


def _relabelled(sample: object) -> object:
    fields = _fields(sample)
    return type(sample)(**(fields | {"label": 0} if fields["split"] == "val" else fields))


def test_a_shipped_threshold_is_what_verify_and_predict_decide_by(
    ttl_deploy: Run, run_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run_folder, tmp_path / "run")
    done = ttl_deploy("export", copy, "--operating-point", "sensitivity=0.3")
    assert done.returncode == 0, done.stderr
    (folder,) = (copy / "exports").iterdir()
    described = json.loads((folder / "manifest.json").read_text())
    assert (described["decision"], described["operating_point"]["rule"]) == ("threshold", "sensitivity")
    threshold = described["threshold"]
    trial = copy / "trials" / f"{described['model']['cut']}__{described['strategy']}__s{described['seed']}"
    with np.load(trial / "predictions_val.npz") as stored:
        fitted = fit_temperature(stored["probabilities"], stored["labels"])
    assert described["calibration"]["temperature"] == fitted.value

    verified = ttl_deploy("verify", copy)
    assert verified.returncode == 0, verified.stderr
    (path,) = copy.glob("bench/*/verify-*.json")
    report = json.loads(path.read_text())
    assert (report["passed"], report["threshold"]) == (True, threshold)
    for shown in (done.stdout, verified.stdout):
        assert f"{threshold:.4g}" in shown
        assert "sensitivity" in shown

    artifact = open_artifact(folder)
    data = json.loads((copy / "data" / "checks.json").read_text())["root"]
    images = sorted(Path(data).rglob("*.png"))[:12]
    predicted = ttl_deploy("predict", copy, *images, "--out", tmp_path / "p.csv")
    assert predicted.returncode == 0, predicted.stderr
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        p = float(row[f"p_{artifact.manifest.classes[1]}"])
        assert (row["predicted"] == artifact.manifest.classes[1]) == (p >= threshold) or abs(p - threshold) < 1e-6
