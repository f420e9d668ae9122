"""Files appear whole or not at all, whatever happens to the writer."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttl_deploy.errors import StorageError
from ttl_deploy.files import append_line, escape_cell, process_is_alive, publish_bytes, publish_text, unescape_cell

SAVE_FOR_EVER = """
import sys
from pathlib import Path
from ttl_deploy.files import publish_bytes
number = 0
while True:
    number += 1
    publish_bytes(Path(sys.argv[1]), bytes([number % 256]) * 3_000_000)
"""


def test_a_writer_that_is_killed_leaves_an_old_or_a_new_file_never_half_of_one(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for kill in range(12):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(path)])
        while not path.exists():
            time.sleep(0.005)
        time.sleep(0.003 * kill)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 3_000_000
        assert content == content[:1] * len(content)


def test_a_full_disk_is_a_storage_error_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    publish_text(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*front\.json"):
            publish_bytes(path, b"x" * 5000)
        with pytest.raises(StorageError):
            append_line(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text().startswith("old")
    assert [entry.name for entry in tmp_path.iterdir()] == ["front.json"]


def test_an_error_while_writing_leaves_no_litter(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise RuntimeError("halfway")

    from ttl_deploy.files import publish

    with pytest.raises(RuntimeError, match="halfway"):
        publish(tmp_path / "x", fail)
    assert list(tmp_path.iterdir()) == []


def test_processes_are_told_alive_from_dead() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert process_is_alive(os.getpid())
    assert not process_is_alive(dead.pid)


@given(st.text(max_size=12))
def test_an_escaped_cell_is_no_formula_and_comes_back(text: str) -> None:
    assert escape_cell(text)[:1] not in {"=", "+", "-", "@", "\t", "\r"}
    assert unescape_cell(escape_cell(text)) == text
