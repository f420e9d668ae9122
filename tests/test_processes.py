"""Children that return, raise, crash, hang, and lose their parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ttl_deploy import processes
from ttl_deploy.errors import GateError, RunInterruptedError, StorageError, UnknownNameError
from ttl_deploy.processes import Crashed, Finished, TimedOut, run_isolated, value_of

FUNCTIONS = """
import ctypes, os, subprocess, sys, time
from ttl_deploy.errors import UnknownNameError, RunInterruptedError

def double(x): return 2 * x
def variable(name): return os.environ.get(name)
def whoami(): return os.getpid()
def chat(): print("on stdout"); return 1
def misname(): raise UnknownNameError("cut", "layre3", ["layer3", "layer4"])
def interrupt(): raise RunInterruptedError("stopped", signal_number=15)
def fail(): raise ValueError("the reason")
def segfault():
    print("about to read address 0", file=sys.stderr, flush=True)
    ctypes.string_at(0)
def leave(): os._exit(7)
def fill(): open("/dev/full", "wb", buffering=0).write(b"x")
def hang(path):
    grandchild = subprocess.Popen(["sleep", "60"])
    with open(path, "w") as file: file.write(f"{os.getpid()} {grandchild.pid}")
    time.sleep(60)
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "functions_of_the_test.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("functions_of_the_test")
    yield module
    del sys.modules["functions_of_the_test"]


def is_running(pid: int) -> bool:
    """Tell whether a process runs; a zombie nobody has reaped yet does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_value_comes_back_from_another_process(functions):
    assert run_isolated(functions.double, 21, timeout_s=30) == Finished(value=42)
    assert run_isolated(functions.whoami, timeout_s=30) != Finished(value=os.getpid())


def test_the_environment_is_added_for_the_child_only(functions):
    outcome = run_isolated(functions.variable, "TTL_TEST", timeout_s=30, environment={"TTL_TEST": "yes"})
    assert outcome == Finished(value="yes")
    assert "TTL_TEST" not in os.environ


def test_what_the_child_prints_does_not_reach_our_stdout(functions, capfd):
    assert run_isolated(functions.chat, timeout_s=30) == Finished(value=1)
    assert capfd.readouterr() == ("", "")


def test_our_own_errors_arrive_as_they_were(functions):
    with pytest.raises(UnknownNameError, match="did you mean layer3"):
        run_isolated(functions.misname, timeout_s=30)
    with pytest.raises(RunInterruptedError, match="stopped") as caught:
        run_isolated(functions.interrupt, timeout_s=30)
    assert caught.value.exit_code == 143


def test_a_foreign_exception_is_a_crash_with_its_traceback(functions):
    outcome = run_isolated(functions.fail, timeout_s=30)
    assert isinstance(outcome, Crashed)
    assert outcome.exit_code == 1
    assert "ValueError: the reason" in outcome.log_tail


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full here")
def test_a_full_disk_is_no_crash_but_a_storage_error(functions):
    with pytest.raises(StorageError, match="No space left on device") as caught:
        run_isolated(functions.fill, timeout_s=30)
    assert caught.value.exit_code == 74


def test_a_segfault_is_named_with_the_last_words(functions):
    outcome = run_isolated(functions.segfault, timeout_s=30)
    assert isinstance(outcome, Crashed)
    assert (outcome.signal_number, outcome.exit_code) == (signal.SIGSEGV, None)
    assert outcome.reason == "was killed by signal 11 (SIGSEGV)"
    assert "about to read address 0" in outcome.log_tail


def test_an_early_exit_is_a_crash_with_its_code(functions):
    outcome = run_isolated(functions.leave, timeout_s=30)
    assert isinstance(outcome, Crashed)
    assert (outcome.signal_number, outcome.exit_code) == (None, 7)


def test_a_hanging_child_is_killed_with_what_it_started(functions, tmp_path):
    pids = tmp_path / "pids"
    outcome = run_isolated(functions.hang, str(pids), timeout_s=3)
    assert isinstance(outcome, TimedOut)
    assert outcome.reason == "gave no answer within 3 s"
    child, grandchild = map(int, pids.read_text().split())
    assert wait_until(lambda: not is_running(child) and not is_running(grandchild))


@pytest.mark.parametrize("through_kernel", [True, False])
def test_a_child_dies_with_its_parent(tmp_path, through_kernel):
    pid_file = tmp_path / "pid"
    script = textwrap.dedent(f"""
        import os, subprocess, sys, time
        child = '''
        import os, time
        from ttl_deploy import processes
        if not {through_kernel}:
            processes._ask_kernel_to_kill_us = lambda: False
        processes.die_with_parent(int(os.environ["PARENT"]))
        open({str(pid_file)!r}, "w").write(str(os.getpid()))
        time.sleep(60)
        '''
        import textwrap
        os.environ["PARENT"] = str(os.getpid())
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(child)])
        time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        assert wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
        child = int(pid_file.read_text())
        assert is_running(child)
    finally:
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not is_running(child))


def test_a_function_the_child_cannot_import_is_refused():
    with pytest.raises(TypeError, match="module-level function"):
        run_isolated(lambda: 1, timeout_s=1)


def test_the_value_of_a_failure_is_the_error_asked_for(functions):
    assert value_of(Finished(value=3), error=GateError, doing="x") == 3
    with pytest.raises(GateError, match=r"cannot build: the child process exited with code 7"):
        value_of(run_isolated(functions.leave, timeout_s=30), error=GateError, doing="cannot build")


def test_no_file_is_left_behind(functions, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(processes.tempfile, "tempdir", str(folder))
    run_isolated(functions.segfault, timeout_s=30)
    assert list(folder.iterdir()) == []
