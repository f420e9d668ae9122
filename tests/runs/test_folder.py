"""A run folder belongs to one configuration and one process at a time."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ttl_deploy.errors import DataError, NoRunError, RunBusyError, RunMismatchError, StorageError
from ttl_deploy.records import codec
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.records.folds import Fold
from ttl_deploy.records.trials import SearchSettings, TrainSettings
from ttl_deploy.runs.folder import RunFolder, find_runs, newest_run
from ttl_deploy.runs.older import upgrade_settings

SETTINGS = SearchSettings(backbone="resnet18", data="images")
CHANGED = {
    "backbone": "vgg11",
    "data": "others",
    "weights": "none",
    "normalise": "zero-one",
    "cuts": ("all",),
    "strategies": ("l2-sp", "linear-probe"),
    "policy": "halving",
    "skip": ("probe",),
    "warm_start": True,
    "seeds": (1, 2),
    "decode": DecodeSettings(image_size=64),
    "reading": Reading(label_col="subtype"),
    "fold": Fold(number=1, count=5),
    "val_fraction": 0.2,
    "test_fraction": 0.2,
    "split_seed": 3,
    "limit_train": 10,
    "train_fraction": 0.1,
    "pool": "max",
    "dropout": 0.5,
    "train": TrainSettings(epochs=3),
    "profile_target": "openvino",
    "profile_seconds": 2.0,
    "pick": "best",
    "max_latency_s": 0.005,
    "max_params": 7,
    "max_macs": 9,
    "margin": 0.05,
    "image_sizes": (16,),
    "widths": (0.5,),
    "speedups": (2.0,),
}
OLD_POINT = {
    "cut": "a",
    "params": 1,
    "macs": 1,
    "layers": 1,
    "params_share": 1.0,
    "macs_share": 1.0,
    "latency_s": None,
    "latency_noise_s": None,
    "validation": [],
    "test": [],
    "seeds": [0],
    "seed_values": [0.9],
    "to_best": None,
    "on_front": [],
}
OLD_CHOICE = {
    "cut": "a",
    "seed": 0,
    "rule": "best",
    "max_latency_s": None,
    "max_params": None,
    "max_macs": None,
    "sentence": "a is best.",
}


def claimed(path: Path) -> RunFolder:
    run = RunFolder(path)
    with run.owned():
        run.claim(SETTINGS, "ttl-deploy search …")
        run.ledger.append("data_prepared", "images", {})
    (path / "data").mkdir(exist_ok=True)
    return run


def test_the_settings_come_back(tmp_path: Path) -> None:
    assert claimed(tmp_path / "run").settings() == SETTINGS


def test_the_same_settings_may_resume(tmp_path: Path) -> None:
    run = claimed(tmp_path / "run")
    with run.owned():
        assert run.claim(SETTINGS, "again") is False


@pytest.mark.parametrize("name", [field.name for field in fields(SearchSettings)])
def test_a_changed_setting_is_refused_and_named(tmp_path: Path, name: str) -> None:
    run = claimed(tmp_path / "run")
    with run.owned(), pytest.raises(RunMismatchError, match=name):
        run.claim(replace(SETTINGS, **{name: CHANGED[name]}), "again")


def test_a_run_from_before_loss_sampling_and_train_fraction_loads_and_resumes(tmp_path: Path) -> None:
    run = claimed(tmp_path / "run")
    content = json.loads(run.config.read_text())
    del content["train_fraction"]
    for name in ("loss", "focal_gamma", "sampling"):
        del content["train"][name]
    run.config.write_text(json.dumps(content))
    assert run.settings() == SETTINGS
    with run.owned():
        assert run.claim(SETTINGS, "again") is False


def test_a_run_from_before_several_strategies_loads_and_resumes(tmp_path: Path) -> None:
    run = claimed(tmp_path / "run")
    content = json.loads(run.config.read_text())
    del content["strategies"]
    run.config.write_text(json.dumps({**content, "strategy": "l2-sp"}))
    assert run.settings().strategies == ("l2-sp",)
    with run.owned():
        assert run.claim(replace(SETTINGS, strategies=("l2-sp",)), "again") is False
        with pytest.raises(RunMismatchError, match="strategies: l2-sp → full"):
            run.claim(SETTINGS, "again")


@pytest.mark.parametrize(("old", "new"), [("label", ""), ("subtype", "subtype")])
def test_a_run_from_before_readings_keeps_its_label_column(tmp_path: Path, old: str, new: str) -> None:
    run = claimed(tmp_path / "run")
    content = json.loads(run.config.read_text())
    del content["reading"]
    run.config.write_text(json.dumps({**content, "label_col": old}))
    assert run.settings().reading == Reading(label_col=new)


def test_a_run_from_before_verdicts_has_the_margin_of_compare_and_no_verdict(tmp_path: Path) -> None:
    run = claimed(tmp_path / "run")
    content = json.loads(run.config.read_text())
    del content["margin"]
    run.config.write_text(json.dumps(content))
    run.front.write_text(json.dumps({"best": "a", "reference": None, "target": "t", "points": [OLD_POINT]}))
    assert run.settings().margin == 0.02
    codec.save(tmp_path / "newer.json", replace(SETTINGS, margin=0.05))
    assert upgrade_settings(codec.load(dict, tmp_path / "newer.json"), source="").margin == 0.05
    front = run.read_front()
    assert (front.verdicts, front.points[0].dominated_by) == (None, None)
    with run.owned():
        assert run.claim(SETTINGS, "again") is False
        with pytest.raises(RunMismatchError, match=r"margin: 0\.02 → 0\.05"):
            run.claim(replace(SETTINGS, margin=0.05), "again")


def test_a_front_and_a_choice_from_before_several_strategies_are_of_the_runs_strategy(tmp_path: Path) -> None:
    run = claimed(tmp_path / "run")
    codec.save(run.config, replace(SETTINGS, strategies=("l2-sp",)))
    run.front.write_text(json.dumps({"best": "a", "reference": None, "target": "t", "points": [OLD_POINT]}))
    run.chosen.write_text(json.dumps(OLD_CHOICE))
    (point,) = run.read_front().points
    assert (point.name, point.cut, point.strategy) == ("a", "a", "l2-sp")
    assert run.read_choice().candidate == ("a", "l2-sp")
    run.front.write_text(json.dumps({"best": "a", "points": [{"cut": "a"}]}))
    with pytest.raises(DataError, match=r"front\.json is not a valid Front"):
        run.read_front()


def test_a_run_that_did_nothing_yet_may_begin_anew_with_other_settings(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    changed = replace(SETTINGS, weights="none")
    with run.owned():
        run.claim(SETTINGS, "first")
        run.data.mkdir()
        (run.data / "manifest.csv").write_text("of the first")
        assert run.claim(changed, "second")
    assert run.settings() == changed
    assert not run.data.exists()


@pytest.mark.parametrize("stranger", ["data/scan.png", "thesis.tex"])
def test_a_folder_that_only_looks_like_a_beginning_loses_nothing(tmp_path: Path, stranger: str) -> None:
    run = RunFolder(tmp_path)
    with run.owned():
        run.claim(SETTINGS, "first")
    (tmp_path / "data").mkdir()
    (tmp_path / stranger).write_text("do not lose me")
    with run.owned(), pytest.raises(RunMismatchError):
        run.claim(replace(SETTINGS, weights="none"), "second")
    assert (tmp_path / stranger).read_text() == "do not lose me"
    assert run.settings() == SETTINGS


def test_somebody_elses_config_file_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"theirs": 1}')
    run = RunFolder(tmp_path)
    with run.owned(), pytest.raises(RunMismatchError, match=r"config\.json"):
        run.claim(SETTINGS, "command")
    assert (tmp_path / "config.json").read_text() == '{"theirs": 1}'


def test_a_folder_with_other_things_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not lose me")
    run = RunFolder(tmp_path)
    with run.owned(), pytest.raises(RunMismatchError, match=r"thesis\.tex"):
        run.claim(SETTINGS, "command")


def test_a_second_process_is_told_who_owns_the_run(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom ttl_deploy.errors import RunBusyError\n"
        "from ttl_deploy.runs.folder import RunFolder\n"
        f"try:\n    RunFolder(Path({str(tmp_path)!r})).owned().__enter__()\n"
        "except RunBusyError as error:\n    print(error)\n"
    )
    run = RunFolder(tmp_path)
    with run.owned():
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "in use by process" in said
    assert RunBusyError.exit_code == 75


def test_litter_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    litter = tmp_path / f".front.json.{dead.pid}.tmp"
    litter.write_text("half")
    with RunFolder(tmp_path).owned():
        assert not litter.exists()


def test_the_newest_run_is_found_below_runs_and_here(tmp_path: Path) -> None:
    first = claimed(tmp_path / "runs" / "first")
    second = claimed(tmp_path / "second")
    for newer, older in ((first, second), (second, first)):
        os.utime(newer.ledger.path, (2_000_000_000, 2_000_000_000))
        os.utime(older.ledger.path, (1_000_000_000, 1_000_000_000))
        assert newest_run(tmp_path).path == newer.path
        assert [run.path for run in find_runs(tmp_path)] == [newer.path, older.path]


def test_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoRunError, match="ttl-deploy search"):
        newest_run(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"), RunFolder(tmp_path / "file" / "run").owned():
        pass
