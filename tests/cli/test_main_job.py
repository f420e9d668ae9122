"""From a search to a shipped model, as a user types it."""

import csv
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
TORCH_WING = ("torch", "torchvision", "onnx", "safetensors", "sklearn", "scipy", "plotly")


def test_a_search_leaves_what_it_promises(run_folder: Path) -> None:
    wanted = shlex.split(
        "config.json env.json command.txt ledger.jsonl data/manifest.csv data/fingerprint.json data/checks.json "
        "origins.json profile.json results.csv front.csv front.json chosen.json report.html NEXT_STEPS.txt"
    )
    assert [name for name in wanted if not (run_folder / name).is_file()] == []
    keys = {path.name for path in (run_folder / "trials").iterdir()}
    assert keys == {"stage2.3__full__s0", "stage3.7__full__s0", "full__full__s0"}


def test_the_ledger_opens_the_test_split_once_for_the_reference_and_the_front(run_folder: Path) -> None:
    lines = [json.loads(line) for line in (run_folder / "ledger.jsonl").read_text().splitlines()]
    (opening,) = [line for line in lines if line["event"] == "test_opened"]
    front = json.loads((run_folder / "front.json").read_text())
    members = {point["cut"] for point in front["points"] if point["on_front"]} | {"full"}
    assert {key.partition("__")[0] for key in opening["content"]["trials"]} == members
    tested = {path.parent.name for path in run_folder.glob("trials/*/predictions_test.npz")}
    assert tested == set(opening["content"]["trials"])


def test_patients_stay_in_one_split(run_folder: Path) -> None:
    with open(run_folder / "data" / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    splits_of: dict[str, set[str]] = {}
    for row in rows:
        splits_of.setdefault(row["patient_id"], set()).add(row["split"])
    assert len(splits_of) == 30
    assert all(len(splits) == 1 for splits in splits_of.values())


def test_the_stated_score_is_that_of_the_stored_predictions(run_folder: Path) -> None:
    from sklearn.metrics import roc_auc_score

    front = json.loads((run_folder / "front.json").read_text())
    for point in front["points"]:
        with np.load(run_folder / "trials" / f"{point['cut']}__full__s0" / "predictions_val.npz") as stored:
            expected = roc_auc_score(stored["labels"], stored["probabilities"][:, 1])
        (auroc,) = [score for score in point["validation"] if score["metric"] == "auroc"]
        assert auroc["value"] == pytest.approx(expected, abs=1e-9)


def test_typing_the_command_again_does_nothing_twice(
    ttl_deploy: Run, search_arguments: list[str], finished: Path, run_folder: Path
) -> None:
    before = (run_folder / "ledger.jsonl").read_bytes()
    weights = {path: path.stat().st_mtime_ns for path in run_folder.glob("trials/*/best.safetensors")}
    done = ttl_deploy(*search_arguments, cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    assert (run_folder / "ledger.jsonl").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in run_folder.glob("trials/*/best.safetensors")} == weights


def test_another_configuration_in_the_same_folder_is_refused_by_name(
    ttl_deploy: Run, search_arguments: list[str], run_folder: Path
) -> None:
    done = ttl_deploy(*search_arguments, "--lr", "0.01", "-o", run_folder)
    assert done.returncode == 2
    assert "train.lr: 0.0005 → 0.01" in done.stderr


def test_front_verify_predict_bench_and_help_need_no_torch(ttl_deploy: Run, finished: Path, run_folder: Path) -> None:
    image = next(path for path in sorted(_data_root(run_folder).rglob("*.png")))
    for arguments in (
        ("--help",),
        ("front",),
        ("verify", "--data", "phantom:texture?patients=30&size=32&seed=1"),
        ("predict", run_folder, image, "--out", finished / "preds.csv"),
        ("doctor",),
    ):
        done = ttl_deploy(*arguments, cwd=finished, blocked=TORCH_WING)
        assert done.returncode == 0, (arguments, done.stderr)
    done = ttl_deploy("bench", "--seconds", "0.2", "--rounds", "2", cwd=finished, blocked=TORCH_WING)
    assert done.returncode in (0, 7), done.stderr
    assert "images/s" in done.stdout


def _data_root(run_folder: Path) -> Path:
    from ttl_deploy.data.manifest_files import load_manifest

    return Path(load_manifest(run_folder / "data").root)


def test_search_without_torch_names_the_extra(ttl_deploy: Run, tmp_path: Path) -> None:
    done = ttl_deploy("search", "--backbone", "resnet18", "--data", tmp_path, blocked=TORCH_WING)
    assert done.returncode == 6
    assert "ttl-deploy[train]" in done.stderr


def test_verify_finds_no_flipped_decision(ttl_deploy: Run, finished: Path) -> None:
    done = ttl_deploy("verify", "--json", cwd=finished)
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["passed"]
    assert report["parity"]["images"] == report["images"]
    assert report["parity"]["max_difference"] < 1e-4
    assert report["parity"]["decisions_flipped"] == 0
    assert report["file_scores"][0]["value"] == pytest.approx(report["model_scores"][0]["value"], abs=1e-6)


def test_the_artifact_carries_what_the_search_said_of_its_cut(run_folder: Path) -> None:
    front = json.loads((run_folder / "front.json").read_text())
    (folder,) = (run_folder / "exports").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    card = (folder / "model_card.md").read_text()
    if manifest["model"]["cut"] == "full":
        assert manifest["comparison"] is None
        assert "This is the full network." in card
        return
    told = manifest["comparison"]["verdicts"]
    assert told == [one for one in front["verdicts"]["verdicts"] if one["model"] == manifest["model"]["cut"]]
    beside = "to" if told[0]["verdict"] in ("non-inferior", "inferior") else "against"
    assert f"**{told[0]['verdict']}** {beside} full" in card


def test_a_changed_model_file_is_refused(ttl_deploy: Run, run_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(next((run_folder / "exports").iterdir()), tmp_path / "artifact")
    content = bytearray((copy / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx").write_bytes(bytes(content))
    done = ttl_deploy("bench", copy)
    assert done.returncode == 4
    assert "model.onnx" in done.stderr


def test_predictions_are_those_of_the_trained_model(ttl_deploy: Run, run_folder: Path, tmp_path: Path) -> None:
    from ttl_deploy.data.manifest_files import load_manifest

    manifest = load_manifest(run_folder / "data")
    chosen = json.loads((run_folder / "chosen.json").read_text())
    val = [manifest.samples[position] for position in manifest.of_split("val")]
    files = [Path(manifest.root) / sample.path for sample in val]
    done = ttl_deploy("predict", run_folder, *files, "--out", tmp_path / "preds.csv")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "preds.csv", newline="") as file:
        given = [float(row["p_finding"]) for row in csv.DictReader(file)]
    trial = run_folder / "trials" / f"{chosen['cut']}__full__s{chosen['seed']}"
    described = json.loads((next((run_folder / "exports").iterdir()) / "manifest.json").read_text())
    with np.load(trial / "predictions_val.npz") as stored:
        powers = stored["probabilities"].astype(float) ** (1 / described["calibration"]["temperature"])
    np.testing.assert_allclose(given, powers[:, 1] / powers.sum(axis=1), atol=1e-4)


def test_choosing_again_by_a_limit_is_stored(ttl_deploy: Run, run_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run_folder, tmp_path / "run")
    done = ttl_deploy("front", copy, "--pick", "best", "--max-params", "10k", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["choice"]["cut"] == "stage2.3"
    assert json.loads((copy / "chosen.json").read_text())["cut"] == "stage2.3"
    impossible = ttl_deploy("front", copy, "--max-params", "5")
    assert impossible.returncode == 5
    assert "stage2.3" in impossible.stderr


def test_help_loads_neither_torch_nor_numpy(ttl_deploy: Run) -> None:
    done = ttl_deploy("--help", blocked=("torch", "numpy", "rich", "pydantic", "PIL", "onnxruntime", "jinja2"))
    assert done.returncode == 0, done.stderr
    assert "search" in done.stdout


def test_every_command_explains_itself(ttl_deploy: Run) -> None:
    for command in ("search", "front", "export", "verify", "predict", "bench", "report", "cuts", "doctor"):
        done = ttl_deploy(command, "--help")
        assert done.returncode == 0, done.stderr


def test_cuts_are_printed_as_records(ttl_deploy: Run) -> None:
    done = ttl_deploy("cuts", "--backbone", "resnet18", "--classes", "3", "--image-size", "64", "--json")
    cuts = json.loads(done.stdout)
    assert cuts[-1]["name"] == "full"
    assert cuts[-1]["params_share"] == 1
    assert {"layer1.1", "layer4.0"} <= {cut["name"] for cut in cuts}


@pytest.mark.parametrize("trials_done", [0, 2])
def test_a_run_that_is_under_way_can_be_looked_at(
    ttl_deploy: Run, run_folder: Path, tmp_path: Path, trials_done: int
) -> None:
    finished_only = shutil.ignore_patterns("front.*", "chosen.json", "exports")
    copy = shutil.copytree(run_folder, tmp_path / "run", ignore=finished_only)
    (copy / "ledger.jsonl").write_text("".join((copy / "ledger.jsonl").read_text().splitlines(keepends=True)[:2]))
    for trial in sorted((copy / "trials").iterdir())[trials_done:]:
        shutil.rmtree(trial)
    front = ttl_deploy("front", copy)
    report = ttl_deploy("report", copy)
    assert report.returncode == 0, report.stderr
    assert (copy / "report.html").exists()
    if trials_done:
        assert front.returncode == 0, front.stderr
        assert f"front of {trials_done} cuts" in front.stdout
        assert ttl_deploy("export", copy).returncode == 2
    else:
        assert front.returncode == 3
        assert "no trial has finished" in front.stderr
