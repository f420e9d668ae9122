"""The command `doctor`: its table, its record, and what it does where even NumPy is broken."""

import json
import re
from pathlib import Path

import pytest

from ttl_deploy.records import codec
from ttl_deploy.records.diagnosis import Diagnosis

from .conftest import Done, call


@pytest.fixture(scope="module")
def printed() -> Done:
    return call(("doctor",), cwd=Path.cwd())


def test_a_pipe_gets_eighty_columns_without_colour(printed: Done) -> None:
    assert printed.returncode == 0, printed.stderr
    assert "\x1b" not in printed.stdout
    assert max(len(line) for line in printed.stdout.splitlines()) <= 80
    assert printed.stderr == ""


def test_every_subject_has_its_block(printed: Done) -> None:
    titles = [line for line in printed.stdout.splitlines() if line and not line.startswith(" ")]
    assert titles == ["machine", "packages", "targets", "extras", "cache", "problems"]
    assert re.search(r"^  onnxruntime-cpu +ready: onnxruntime", printed.stdout, flags=re.MULTILINE)


def test_a_broken_numpy_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('libgfortran.so.5: cannot open shared object file')\n")
    done = call(("doctor", "--json"), cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 6
    assert "Traceback" not in done.stdout + done.stderr
    found = codec.from_builtins(Diagnosis, json.loads(done.stdout))
    assert "numpy, which everything needs, does not load" in found.problems[0].what
    assert "libgfortran.so.5" in found.problems[0].what
    assert found.problems[0].remedy == "pip install --force-reinstall numpy"
