"""Memory of this process: not what a parent had before it."""

import subprocess
import sys

import numpy as np

from ttl_deploy.runtime.memory import peak_bytes, resident_bytes

STATUS = "Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1500 kB\n"


def test_sizes_are_read_in_kibibytes(tmp_path):
    (tmp_path / "status").write_text(STATUS)
    assert (resident_bytes(tmp_path / "status"), peak_bytes(tmp_path / "status")) == (1500 * 1024, 2000 * 1024)


def test_without_such_a_table_the_system_call_must_do(tmp_path):
    assert peak_bytes(tmp_path / "none") > 1e6


def test_the_peak_stays_after_the_memory_is_given_back():
    before = peak_bytes()
    block = np.ones(40_000_000, dtype=np.uint8) * 2
    held = resident_bytes()
    del block
    assert peak_bytes() >= held
    assert peak_bytes() >= before


def test_a_small_child_of_a_large_parent_is_small():
    block = np.ones(300_000_000, dtype=np.uint8)
    code = "from ttl_deploy.runtime.memory import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < len(block)
