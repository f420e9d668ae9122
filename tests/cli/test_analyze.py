"""`ttl-deploy analyze` on a finished search: what it writes, what it refuses, and the test split."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ttl_deploy.analysis import study
from ttl_deploy.analysis.study import Wanted
from ttl_deploy.errors import DataError, NoRunError, RunBusyError, UnknownNameError, UsageError
from ttl_deploy.records import codec
from ttl_deploy.records.analysis import Analysis
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy_cli import analyze as command

Run = Callable[..., subprocess.CompletedProcess[str]]
FEW = Wanted(cut="stage2.3", cams=0, cuts=("maxpool",), against=("full",))


@pytest.fixture
def run(run_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of the finished run."""
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(cache))
    return RunFolder(shutil.copytree(run_folder, tmp_path / "run"))


def analyse(run: RunFolder, wanted: Wanted) -> Analysis:
    return study.analyse(run, wanted, device=torch.device("cpu"), progress=lambda stage, done, total: None)


def test_the_command_prints_tables_writes_the_record_and_twice_the_same(run: RunFolder, ttl_deploy: Run) -> None:
    done = ttl_deploy("analyze", run.path, "--cut", "stage2.3", "--lesion-px", 9, "--gradcam", 2)
    assert done.returncode == 0, done.stderr
    assert "SVCCA" in done.stdout
    assert "patients' images" in done.stdout
    tables = done.stdout.partition("full-start:")[0].splitlines()
    assert max(len(line.rstrip()) for line in tables) <= 80
    first = codec.load(Analysis, run.path / "analysis.json")
    assert first.pairs == ("full-start", "cut-start", "cut-full", "full-random", "random-random")
    assert [one.cut for one in first.depths] == ["maxpool", "stage2.3", "stage3.7", "full"]
    assert first.similarity("cut-full", "stage3.7") is None, "the truncated model ends before"
    assert {curve.key for curve in first.curves} >= {first.model, first.reference}
    again = analyse(run, Wanted(cut="stage2.3", cams=2))
    assert again.similarities == first.similarities
    assert again.cams == first.cams


def test_json_is_the_record(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    quick = {"cuts": "maxpool", "images": 256, "against": "full", "gradcam": 0, "gradcam_split": "val"}
    plain = {"strategy": None, "lesion_px": None, "device": "cpu"}
    command.run(run=run.path, cut="stage2.3", **quick, **plain, as_json=True, progress=False)  # type: ignore[arg-type] # by name
    told = capsys.readouterr()
    assert json.loads(told.out) == json.loads((run.path / "analysis.json").read_text(encoding="utf-8"))
    assert not told.err


def test_pictures_show_the_image_and_both_maps_and_the_test_split_stays_closed(run: RunFolder) -> None:
    before = len(run.ledger.of_event("test_opened"))
    (run.path / "analysis").mkdir()
    (run.path / "analysis/gradcam-7.png").write_bytes(b"of an earlier analysis")
    found = analyse(run, Wanted(cut="stage2.3", cams=2, cuts=("maxpool",), against=("random",)))
    assert found.cams is not None
    for one in found.cams.images:
        picture = np.asarray(Image.open(run.path / one.file))
        assert picture.shape == (224, 3 * 224, 3)
        assert one.split == "val"
    named = {run.path / one.file for one in found.cams.images}
    assert set((run.path / "analysis").iterdir()) == named
    assert len(run.ledger.of_event("test_opened")) == before


def test_maps_on_test_images_are_a_use_of_the_test_split(run: RunFolder) -> None:
    before = len(run.ledger.of_event("test_opened"))
    opened = [cut for cut in ("stage2.3", "stage3.7") if list(run.path.glob(f"trials/{cut}__*/predictions_test.npz"))]
    wanted = Wanted(cut=opened[0], cams=1, cam_split="test", cuts=("maxpool",), against=("full",), command="typed")
    found = analyse(run, wanted)
    assert found.cams is not None
    assert {one.split for one in found.cams.images} == {"test"}
    new = run.ledger.of_event("test_opened")[before:]
    assert [one.content["command"] for one in new] == ["typed"]


def test_maps_on_test_images_are_refused_where_the_search_did_not_open_them(run: RunFolder) -> None:
    for path in run.path.glob("trials/stage2.3__*/predictions_test.npz"):
        path.unlink()
    (run.path / "analysis.json").write_text("of an earlier analysis", encoding="utf-8")
    with pytest.raises(UsageError, match=r"was not opened for stage2\.3"):
        analyse(run, Wanted(cut="stage2.3", cams=1, cam_split="test", cuts=("maxpool",), against=("full",)))
    assert (run.path / "analysis.json").exists(), "a refused command deletes nothing"


def test_the_full_network_alone_has_nothing_beside_it(run: RunFolder) -> None:
    found = analyse(run, Wanted(cut="full", cuts=("maxpool",)))
    assert found.reference is None
    assert found.pairs == ("cut-start", "cut-random", "random-random")
    assert found.cams is None
    assert any("full network itself" in note for note in found.notes)
    with pytest.raises(UsageError, match="--against full"):
        analyse(run, Wanted(cut="full", against=("full",)))


def test_where_the_search_chose_the_full_network_the_best_smaller_one_is_looked_at(run: RunFolder) -> None:
    choice = run.read_choice()
    points = {point.cut: point for point in run.read_front().points}
    codec.save(run.chosen, replace(choice, cut="full", strategy=points["full"].strategy))
    best = max((point.validation[0].value or 0.0, cut) for cut, point in points.items() if cut != "full")[1]
    found = analyse(run, Wanted(cams=0, cuts=("maxpool",), against=("full",)))
    assert found.cut == best
    assert any(f"the search chose the full network itself, so this is of {best}" in note for note in found.notes)
    assert found.reference is not None


def test_a_run_that_is_not_finished_is_refused(run: RunFolder) -> None:
    run.chosen.unlink()
    with pytest.raises(NoRunError, match="not finished"):
        analyse(run, FEW)


def test_cuts_that_were_not_trained_or_are_not_there_are_refused(run: RunFolder) -> None:
    with pytest.raises(UnknownNameError, match=r"trained cut 'stage4\.3'"):
        analyse(run, Wanted(cut="stage4.3"))
    with pytest.raises(UnknownNameError, match="unknown cut 'stage9'"):
        analyse(run, Wanted(cut="stage2.3", cuts=("stage9",)))


def test_too_few_images_are_refused(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "draw_positions", lambda cut, images, seed: np.array([0]))
    with pytest.raises(UsageError, match="--images 4 is too few"):
        analyse(run, Wanted(cut="stage3.7", cuts=("stage3.7",), images=4, cams=0, against=("full",)))
    with pytest.raises(DataError, match="validation images are too few"):
        analyse(run, Wanted(cut="stage3.7", cuts=("stage3.7",), cams=0, against=("full",)))
    monkeypatch.setattr(study, "FEWEST_IMAGES", 10_000)
    with pytest.raises(DataError, match="validation images: similarity is measured on 10000 or more"):
        analyse(run, FEW)


def test_a_run_in_use_is_left_alone(run: RunFolder) -> None:
    with run.owned(), pytest.raises(RunBusyError):
        analyse(run, FEW)
    assert not (run.path / "analysis.json").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--against", "inital"], "did you mean initial"),
        (["--gradcam-split", "train"], "unknown split 'train'"),
        (["--lesion-px", "0"], "above 0"),
    ],
)
def test_flags_are_checked_first(run: RunFolder, ttl_deploy: Run, flags: list[str], told: str) -> None:
    done = ttl_deploy("analyze", run.path, *flags, blocked=["torch"])
    assert done.returncode == 2
    assert told in done.stderr
