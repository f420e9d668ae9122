"""The whole command `bench A B --target x,y` beside runtimes that crash and hang: the others are measured all the same.

Crashes are real ones: a read of address 0, an uncaught C++ exception, memory that the system refuses, pages that a
file has lost, and OpenVINO's compiler on a file that it cannot bear.
"""

import contextlib
import io
import json
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.contracts.small_networks import SIDE, noise, quantised_dense_block
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import BenchReport
from ttl_deploy.runtime import bench as bench_module
from ttl_deploy_cli.main import main

GOOD, OPENVINO = "onnxruntime-cpu", "openvino-cpu"
FAST = ("--seconds", "0.05", "--runs", "10", "--rounds", "2", "--limit", "2", "--json")
PATIENCE_S = 2.0
CRASHES = {
    "open-segfault": "signal 11 (SIGSEGV)",
    "run-segfault": "signal 11 (SIGSEGV)",
    "fiftieth-segfault": "signal 11 (SIGSEGV)",
    "build-abort": "signal 6 (SIGABRT)",
    "run-bad-alloc": "terminate called after throwing an instance of 'std::bad_alloc'",
    "open-memory-limit": "Unable to allocate 64.0 GiB",
    "run-memory-limit-cpp": "signal 6 (SIGABRT)",
    "run-bus": "signal 7 (SIGBUS)",
    "run-free-twice": "signal 6 (SIGABRT); its last words: free(): double free detected",
    "run-illegal": "signal 4 (SIGILL)",
    "open-killed": "signal 9 (SIGKILL)",
    "open-exit": "exited with code 3",
    "fiftieth-quiet-exit": "exited with code 0",
    "run-raise": "RuntimeError: the plug-in is of another version",
}
HANGS = dict.fromkeys(
    ("build-hang", "open-native-hang", "run-busy-hang", "fiftieth-hang", "run-stopped"), "gave no answer within 2 s"
)
REAL = {OPENVINO: "signal 11 (SIGSEGV)"}
FAULTS = CRASHES | HANGS | REAL


@dataclass(frozen=True)
class Outcome:
    """What one run of the command left."""

    exit_code: int
    report: BenchReport
    stderr: str


@pytest.fixture(scope="module")
def faulty_targets(tmp_path_factory):
    """Install a target for every fault as a third party would, and wait for those that hang for two seconds only."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).parent / "faulty_target.py", folder / "a_faulty_target.py")
    facts = folder / "a_faulty_target-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: a-faulty-target\nVersion: 1.0\n")
    points = [f"{name} = a_faulty_target:{name.replace('-', '_')}" for name in CRASHES | HANGS]
    (facts / "entry_points.txt").write_text("\n".join(["[ttl_deploy.targets]", *points, ""]))
    real = bench_module.run_isolated

    def run(function, *arguments, timeout_s, **options):
        hangs = function is bench_module.measure and arguments[0].target in HANGS
        return real(function, *arguments, timeout_s=PATIENCE_S if hangs else timeout_s, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(bench_module, "run_isolated", run)
        yield


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("plain") / "plain", manifest=tiny.manifest(name="plain"))


@pytest.fixture(scope="module")
def quantised(tiny, tmp_path_factory):
    """An artifact whose every layer is quantised, concatenations included."""
    folder = tmp_path_factory.mktemp("quantised")
    manifest = tiny.manifest(name="quantised", precision="int8", classes=("normal", "ill", "unclear"))
    manifest = replace(manifest, input=replace(manifest.input, height=SIDE, width=SIDE))
    model = onnx.load(quantised_dense_block(folder))
    onnx.helper.set_model_props(model, {"ttl_deploy": codec.to_json(manifest)})
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "golden.npz", images=noise(2), probabilities=np.full((2, 3), 1 / 3, np.float32))
    np.savez(folder / "reference.npz", sha256=np.array(["0" * 64]), probabilities=np.full((1, 3), 1 / 3, np.float32))
    tiny.seal(folder, manifest)
    return folder


def run_command(*arguments):
    """Run `ttl-deploy bench` in this process; its own children crash and hang."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ttl-deploy", "bench", *map(str, arguments)])
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    assert out.getvalue(), err.getvalue()
    return Outcome(int(ended.value.code), codec.from_builtins(BenchReport, json.loads(out.getvalue())), err.getvalue())


@pytest.fixture(scope="module")
def outcome(faulty_targets, quantised, tmp_path_factory):
    """What remains of one candidate that is sound among twenty that are not."""
    pytest.importorskip("openvino")
    targets = ",".join([*CRASHES, GOOD, *HANGS, OPENVINO])
    return run_command(quantised, "--target", targets, "-o", tmp_path_factory.mktemp("out"), *FAST)


def test_there_are_twenty_faults():
    assert len(FAULTS) == 20


def test_the_sound_candidate_is_measured_to_the_end_and_the_exit_code_tells_of_the_others(outcome):
    (row,) = (row for row in outcome.report.rows if row.target == GOOD)
    assert [timing.round for timing in row.timings] == [0, 1]
    assert len(outcome.report.failures) + len(outcome.report.rows) == 21
    assert outcome.exit_code == 6


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_reported_with_its_reason(outcome, fault):
    """OpenVINO 2026.4.1 segfaults; a later version may be cured, and must then have a row."""
    failures = {one.target: one.reason for one in outcome.report.failures}
    if fault == OPENVINO and fault not in failures:
        assert OPENVINO in {row.target for row in outcome.report.rows}
        return
    assert FAULTS[fault] in failures[fault]
    assert f"quantised on {fault}, batch 1: the process" in outcome.stderr


@pytest.mark.slow  # twenty whole benchmarks: three minutes
@pytest.mark.parametrize("fault", FAULTS)
def test_two_files_on_a_sound_target_and_one_that_breaks(faulty_targets, plain, quantised, tmp_path, fault):
    done = run_command(plain, quantised, "--target", f"{GOOD},{fault}", "--compare", "-o", tmp_path, *FAST)
    rows = {(row.artifact, row.target): place for place, row in enumerate(done.report.rows)}
    first, second = rows["plain", GOOD], rows["quantised", GOOD]
    assert (first, second) in {(one.first, one.second) for one in done.report.comparisons}
    assert all(len(done.report.rows[place].timings) >= 2 for place in (first, second))
    reasons = [one.reason for one in done.report.failures]
    assert {one.target for one in done.report.failures} <= {fault}
    if fault == OPENVINO:  # the plain file is no trouble to it
        assert all(FAULTS[fault] in reason for reason in reasons)
        assert (done.exit_code == 6) == bool(reasons)
        return
    assert len(reasons) == 2
    assert all(FAULTS[fault] in reason for reason in reasons)
    assert done.exit_code == 6
    (stored,) = tmp_path.glob("*.json")
    assert codec.load(BenchReport, stored) == done.report
