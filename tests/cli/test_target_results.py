"""`report --add`: results of a kit that was run elsewhere, taken into the run and shown on its page."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.runtime.kit.conftest import Board
from ttl_deploy.records.engines import EngineRequest
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.kit.writing import write_kit


@pytest.fixture
def measured(run_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a finished run, and the archive of its model's kit, run on a board with trtexec."""
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    (export,) = (run / "exports").iterdir()
    kit = tmp_path / "kit"
    shutil.copytree(export, kit)
    write_kit(open_artifact(kit), kit, request=EngineRequest(flavour="trt"), target="tensorrt")
    board = Board(tmp_path / "board").with_python().with_trtexec()
    done = board.run(kit, "--seconds=0.1", "--rounds=2", f"--out={tmp_path / 'results.tar.gz'}")
    assert done.returncode == 0, done.stderr
    return run, tmp_path / "results.tar.gz"


def test_results_of_the_runs_own_model_are_kept_and_shown_and_others_are_refused(
    ttl_deploy: Run, measured: tuple[Path, Path]
) -> None:
    run, archive = measured
    done = ttl_deploy("report", run, "--add", archive)
    assert done.returncode == 0, done.stderr
    assert "tensorrt 10.13.3 in fp32, through trtexec; 12 golden images" in done.stderr
    page = (run / "report.html").read_text()
    assert "answers as recorded" in page
    assert "on Orin, compute capability 8.7" in page
    assert "tensorrt (trtexec)" in page
    kept = sorted(path.relative_to(run) for path in (run / "bench").rglob("*trtexec.json"))
    assert len(kept) == 2

    with tarfile.open(archive) as content:
        member = content.extractfile("results.json")
        assert member is not None
        results = json.load(member)
    other = archive.with_name("results.json")
    other.write_text(json.dumps({**results, "artifact_sha256": "1" * 64}))
    done = ttl_deploy("report", run, "--add", other)
    assert done.returncode == 3
    assert "which is not here" in done.stderr
    assert sorted(path.relative_to(run) for path in (run / "bench").rglob("*trtexec.json")) == kept
