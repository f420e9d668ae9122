"""A runtime that crashes, hangs or lies takes its own process and its own session, and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ttl_deploy import plugins
from ttl_deploy.errors import ArtifactError, TargetUnavailableError, UnknownNameError, UsageError
from ttl_deploy.runtime.inference import open_safely
from ttl_deploy.runtime.isolated_session import IsolatedSession

IMAGES = np.zeros((3, 8, 8, 3), np.uint8)
DIED = {
    "segfault": "signal 11 (SIGSEGV)",
    "abort": "signal 6 (SIGABRT)",
    "illegal": "signal 4 (SIGILL)",
    "killed": "signal 9 (SIGKILL)",
    "exit": "exited with code 3",
    "quiet-exit": "exited with code 0",
    "hang": "gave no answer within",
    "native-hang": "gave no answer within",
    "raise": "RuntimeError: the plug-in is of another version",
    "hang-up": "exited with code",
    "odd-raise": "_UnpicklableError: odd",
}
LIED = {
    "nan": "NaN or infinity for 3 of 3 images",
    "infinity": "NaN or infinity for 3 of 3 images",
    "too-few": r"gave an array (2, 2) for 3 images",
    "flat": r"gave an array (6,) for 3 images",
    "nothing": r"gave an array () for 3 images",
}
CASES = (
    *(("open", fault) for fault in ("segfault", "abort", "illegal", "exit", "hang", "native-hang", "raise", "hang-up")),
    *(("run", fault) for fault in ("segfault", "abort", "killed", "quiet-exit", "hang", "native-hang", "odd-raise")),
    *(("run", fault) for fault in LIED),
)


@pytest.fixture(scope="module")
def third_party(tmp_path_factory):
    """Install a target as a third party would: a module and the entry point that names it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).parent / "faulty_target.py", folder / "a_faulty_target.py")
    facts = folder / "a_faulty_target-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: a-faulty-target\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[ttl_deploy.targets]\nfaulty = a_faulty_target:FaultyTarget\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def open_faulty(third_party):
    def open_it(told, **timeouts):
        model = third_party / "model.txt"
        model.write_text(told)
        return open_safely("faulty", model, threads=1, **timeouts)

    return open_it


@pytest.fixture(scope="module")
def bystander(open_faulty):
    """A session that was opened before all that goes wrong, and must live through it."""
    return open_faulty("well")


def break_it(open_faulty, moment, fault):
    hangs = "hang" in fault and fault != "hang-up"
    seconds = {f"{'open' if moment == 'open' else 'call'}_timeout_s": 1.0} if hangs else {}
    open_faulty(f"{moment} {fault}", **seconds).run(IMAGES)


def test_there_are_twenty_cases():
    assert len(set(CASES)) == 20


@pytest.mark.parametrize(("moment", "fault"), CASES)
def test_a_fault_is_named_and_harms_nobody_else(open_faulty, bystander, moment, fault):
    expected = ArtifactError if fault in LIED else TargetUnavailableError
    with pytest.raises(expected) as caught:
        break_it(open_faulty, moment, fault)
    said = str(caught.value)
    assert (DIED | LIED)[fault] in said
    assert "faulty" in said
    assert "model.txt" in said
    assert "onnxruntime-cpu" in said
    np.testing.assert_array_equal(bystander.run(IMAGES), np.full((3, 2), 0.5, np.float32))


def test_a_hang_is_noticed_when_its_time_is_over_and_its_process_killed(open_faulty):
    session = open_faulty("run native-hang", call_timeout_s=1.0)
    started = time.monotonic()
    with pytest.raises(TargetUnavailableError, match="within 1 s"):
        session.run(IMAGES)
    assert 1.0 <= time.monotonic() - started < 30
    assert not session.close.alive


def test_errors_of_ours_come_through_as_they_are_and_end_nothing(open_faulty):
    session = open_faulty("run refuse")
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"^model\.txt is of another version$"):
            session.run(IMAGES)
    with pytest.raises(ArtifactError, match=r"^model\.txt is of another version$"):
        open_faulty("open refuse")


def test_a_session_that_died_says_so_when_it_is_asked_again(open_faulty):
    session = open_faulty("run abort")
    for words in ("SIGABRT", "has ended. Open the model again"):
        with pytest.raises(TargetUnavailableError, match=words):
            session.run(IMAGES)


def test_a_forgotten_session_leaves_no_process_behind(open_faulty):
    session = open_faulty("well")
    child = session._child
    assert child.poll() is None
    del session
    assert child.poll() in (
        0,
        -signal.SIGKILL,
    )  # its line was closed, on which it ends by itself, and then it was killed


def test_the_child_of_a_killed_process_ends(third_party):
    code = (
        f"import sys; sys.path.insert(0, {str(third_party)!r})\n"
        "from pathlib import Path; from ttl_deploy.runtime.inference import open_safely\n"
        f"path = Path({str(third_party)!r}) / 'model.txt'; path.write_text('well')\n"
        "session = open_safely('faulty', path, threads=1); print(session._child.pid, flush=True); input()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and _state(child) != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists() or _state(child) == "Z"


def _state(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_the_reference_is_opened_in_this_process_and_others_are_not(tiny, artifact_folder):
    model = artifact_folder / "model.onnx"
    here = open_safely("onnxruntime-cpu", model, threads=1)
    assert not isinstance(here, IsolatedSession)
    pytest.importorskip("openvino")
    there = open_safely("openvino-cpu", model, threads=1)
    assert isinstance(there, IsolatedSession)
    assert (there.precision, there.layers) == (here.precision, here.layers) == ("fp32", {"fp32": 1})
    images = tiny.images(3)
    np.testing.assert_allclose(there.run(images), here.run(images), atol=1e-5)


def test_wrong_names_and_precisions_are_refused_as_by_the_target_itself(artifact_folder):
    with pytest.raises(UnknownNameError, match="did you mean openvino-cpu"):
        open_safely("openvin-cpu", artifact_folder / "model.onnx", threads=1)
    with pytest.raises(UsageError, match="onnxruntime-cpu cannot run bf16 on this machine: it can run fp32, int8"):
        open_safely("onnxruntime-cpu", artifact_folder / "model.onnx", threads=1, precision="bf16")
    assert "openvino-cpu" in plugins.names("targets")
