"""Verdicts on the command line: what `front` says is what `compare` says, and what it says where there are none."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ttl_deploy.data.manifest_files import save_manifest
from ttl_deploy.evidence.choice import choose
from ttl_deploy.records import codec
from ttl_deploy.records.data import Manifest, Sample, Split
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import CutProfile, Profile, SearchSettings, Trial, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings

Run = Callable[..., subprocess.CompletedProcess[str]]
NOISE = {"a": 2.0, "b": 0.62, "full": 0.6}
"""How much stands between the cuts' scores and the truth."""
PATIENTS: dict[Split, int] = {"train": 4, "val": 100, "test": 400}


def make_manifest() -> Manifest:
    samples = tuple(
        Sample(path=f"{split}{i}", label=i // 2 % 2, patient_id=f"{split}{i // 2}", split=split, sha256=f"{split}{i}")
        for split, patients in PATIENTS.items()
        for i in range(2 * patients)
    )
    return Manifest(name="n", root="/r", reader="t", classes=("well", "ill"), samples=samples, patients_known=True)


def lay_trial(run: RunFolder, cut: str, manifest: Manifest) -> None:
    """Lay a finished trial with its predictions of both splits; all cuts share most of their noise."""
    settings = run.settings()
    spec = ModelSpec(backbone="resnet18", cut=cut, classes=2, image_size=32)
    trial = Trial(model=spec, weights="none", strategy="full", seed=0, train=settings.train)
    run.trial(trial.key).mkdir(parents=True)
    codec.save(run.trial(trial.key) / "trial.json", trial)
    for split in ("val", "test"):
        labels = np.array([one.label for one in manifest.samples if one.split == split])
        shared = np.random.default_rng(len(split)).normal(size=len(labels))
        own = np.random.default_rng(len(cut)).normal(size=len(labels))
        positive = 1 / (1 + np.exp(-(labels + NOISE[cut] * shared + 0.05 * own)))
        probabilities = np.stack([1 - positive, positive], axis=1).astype(np.float32)
        np.savez(run.trial(trial.key) / f"predictions_{split}.npz", probabilities=probabilities, labels=labels)
    result = TrialResult(
        key=trial.key,
        cut=cut,
        strategy="full",
        seed=0,
        best_epoch=1,
        epochs_run=1,
        val_auroc=0.9,
        params=10,
        weights_sha256="0" * 64,
        weights_note="",
        precision="fp32",
        device="cpu",
        seconds=1.0,
    )
    run.ledger.append("trial_finished", trial.key, msgspec.to_builtins(result))


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished search laid out by hand: three cuts, one seed, a margin of 0.03."""
    run = RunFolder(tmp_path_factory.mktemp("laid") / "run")
    run.path.mkdir()
    codec.save(run.config, SearchSettings(backbone="resnet18", data="d", policy="exhaustive", margin=0.03))
    run.command.write_text("ttl-deploy search --backbone resnet18 --data d --margin 0.03\n")
    manifest = make_manifest()
    save_manifest(manifest, run.data)
    costs = tuple(
        CutProfile(
            cut=cut,
            params=number,
            macs=number,
            layers=1,
            params_share=number / 3,
            macs_share=number / 3,
            size_bytes=1,
            latency_s=None,
            latency_noise_s=None,
        )
        for number, cut in enumerate(NOISE, start=1)
    )
    profile = Profile(target="t", runtime="", precision="fp32", threads=1, batch=1, machine="", cuts=costs)
    codec.save(run.profile, profile)
    for cut in NOISE:
        lay_trial(run, cut, manifest)
    known = findings.outcomes(run)
    front = findings.front_with_test(run, findings.validation_front(run, known), known)
    codec.save(run.front, front)
    codec.save(run.chosen, choose(front, "best", max_macs=2))
    return run


def test_compare_says_of_the_same_trials_what_the_front_says(ttl_deploy: Run, laid: RunFolder) -> None:
    stored = json.loads(laid.front.read_text())["verdicts"]
    trials = [laid.trial(f"{model['name']}__full__s0") for model in stored["models"]]
    assert [trial.name for trial in trials] == ["full__full__s0", "a__full__s0", "b__full__s0"]
    done = ttl_deploy("compare", *trials, "--margin", "0.03", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.replace("__full__s0", ""))
    assert {name: said[name] for name in stored} == stored
    assert [found["verdict"] for found in stored["verdicts"]] == ["inferior", "non-inferior"]


def test_front_prints_a_verdict_per_candidate_and_one_on_the_choice(ttl_deploy: Run, laid: RunFolder) -> None:
    done = ttl_deploy("front", laid.path, blocked=("torch", "scipy", "sklearn"))
    assert done.returncode == 0, done.stderr
    found = {one.model: one for one in laid.read_front().verdicts.verdicts}  # type: ignore[union-attr] # laid above
    assert f"a: inferior, {found['a'].reason}" in done.stdout
    assert f"b: non-inferior, {found['b'].reason}" in done.stdout
    assert laid.read_choice().cut == "b"
    assert "b is as good as full within 0.03: non-inferior on the test split" in done.stdout
    assert "not shown" not in done.stdout
    as_json = json.loads(ttl_deploy("front", laid.path, "--json").stdout)
    assert as_json["front"]["verdicts"]["margin"] == 0.03


def test_a_run_from_before_verdicts_opens_and_says_why_it_has_none(
    ttl_deploy: Run, laid: RunFolder, tmp_path: Path
) -> None:
    content = json.loads(laid.front.read_text())
    del content["verdicts"]
    for point in content["points"]:
        del point["dominated_by"]
        for score in (*point["validation"], *point["test"]):
            del score["per_seed"], score["delong"]
    older = RunFolder(tmp_path / "older")
    older.path.mkdir()
    for entry in laid.path.iterdir():
        (older.path / entry.name).symlink_to(entry)
    for path, text in ((older.front, json.dumps(content)), (older.config, json.dumps(without_margin(laid)))):
        path.unlink()
        path.write_text(text)
    done = ttl_deploy("front", older.path)
    assert done.returncode == 0, done.stderr
    assert "No verdicts: an older version made this run; `ttl-deploy compare` tests its trials." in done.stdout
    assert "Whether b is as good as the full network is not known" in done.stdout
    assert done.stdout.startswith("The chosen b is not shown to be as good as the full network: an older version made")
    assert "~" not in done.stdout
    assert older.settings() == replace(laid.settings(), margin=0.02)


def without_margin(run: RunFolder) -> dict[str, object]:
    content: dict[str, object] = json.loads(run.config.read_text())
    del content["margin"]
    return content


def test_patients_that_are_not_known_are_read_as_such(tmp_path: Path) -> None:
    for known in (True, False):
        save_manifest(replace(make_manifest(), patients_known=known), tmp_path / str(known))
        assert findings.labelled_split(tmp_path / str(known), "test").patients_known == known


@pytest.mark.parametrize("margin", ["0", "0.5", "-0.1", "nan"])
def test_a_margin_out_of_range_is_refused_before_anything_is_made(ttl_deploy: Run, tmp_path: Path, margin: str) -> None:
    done = ttl_deploy("search", "--backbone", "resnet18", "--data", "phantom", "--margin", margin, "-o", "run")
    assert (done.returncode, "give a difference in AUROC above 0 and below 0.5" in done.stderr) == (2, True)
    assert not (tmp_path / "run").exists()
