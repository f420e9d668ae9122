"""The kit where Python has all that ttl-deploy needs: it runs from the kit's own wheel."""

import pytest

from tests.runtime.kit.conftest import STAND_IN
from ttl_deploy.files import sha256_file
from ttl_deploy.runtime.kit import reading


def test_ttl_deploy_itself_builds_compares_and_measures_from_the_kits_wheel(kit, board):
    board.with_python(PYTHONPATH=str(STAND_IN)).with_trtexec()
    done = board.run(kit.folder, "--seconds=0.02", "--rounds=2")
    assert done.returncode == 0, done.stderr
    assert "ttl-deploy itself does the work" in done.stderr
    assert "-py3-none-any.whl/ttl_deploy\n" in done.stderr
    assert board.calls == []
    (archive,) = board.root.glob("results-*.tar.gz")
    results = reading.read_results(archive)
    assert (results.way, results.runtime) == ("ttl-deploy", "tensorrt 11.4.0.106")
    assert results.engine.sha256 == sha256_file(kit.folder / "model.trt.engine")
    (row,) = reading.report_of(results).rows
    assert (row.target, row.artifact_sha256, len(row.timings)) == ("tensorrt", kit.model_sha256, 2)
    assert [stretch.name for stretch in row.stretches] == ["GPU", "GPU with transfers"]
    assert reading.check_results(results, kit).golden.passed


@pytest.mark.slow
def test_an_engine_with_wrong_answers_ends_with_4_and_leaves_no_results(kit, board):
    board.with_python(PYTHONPATH=str(STAND_IN), STAND_IN_FAULT="wrong-answers")
    done = board.run(kit.folder)
    assert done.returncode == 4
    assert "the engine is not the model" in done.stderr
    assert not list(board.root.glob("*results-*"))
    assert not list(kit.folder.glob("*.engine"))
