"""The round trip over ssh and scp, with stand-ins that run things in another folder on this machine."""

import io
import json
import tarfile
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from ttl_deploy.errors import DataError, GateError, InconclusiveError, TargetUnavailableError, UsageError
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import BenchReport
from ttl_deploy.records.target_results import TargetCheck
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.kit import reading, remote
from ttl_deploy.runtime.kit.remote import Host, fetch_results
from ttl_deploy.runtime.kit.writing import stage_kit
from ttl_deploy_cli.main import app

SHORT = ("--seconds=0.1", "--rounds=2")


def bench_over_ssh(folder, *arguments):
    return CliRunner().invoke(app, ["bench", str(folder), "--ssh", "ward@board", *SHORT, *arguments])


def in_a_run(tiny, tmp_path, **changes):
    """Write an artifact of a run; returns its folder and the run's."""
    run = tmp_path / "run"
    (run / "exports").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    return tiny.write(run / "exports" / "stem", manifest=tiny.manifest(**changes)), run


def left_on(board):
    return [path.name for path in board.root.iterdir() if path.name.startswith("ttl-deploy")]


def write_archive(path, content):
    data = json.dumps(content).encode()
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("results.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def test_one_command_brings_the_results_into_the_run_and_leaves_nothing_there(over_ssh, tiny, tmp_path):
    board = over_ssh.board.with_python().with_trtexec(FAKE_TRTEXEC_VERSION="v110100")
    over_ssh()
    folder, run = in_a_run(tiny, tmp_path, format="trt")
    done = bench_over_ssh(folder, "--batch=1,2")
    assert done.exit_code == 0, done.output
    assert "tensorrt 11.1.0" in done.output
    assert left_on(board) == []
    (kept,) = (run / "bench").glob("*/*.json")
    (checked,) = (run / "bench").glob("*/targets/*.json")
    report, check = codec.load(BenchReport, kept), codec.load(TargetCheck, checked)
    assert {row.batch for row in report.rows} == {1, 2}
    assert {row.artifact_sha256 for row in report.rows} == {check.artifact_sha256}
    assert check.golden.passed
    assert check.golden.max_difference < 1e-5
    assert check.notes == ("Timed by trtexec with --includeDataTransfers --noCudaGraph --iterations=10 --warmUp=500.",)
    for call in (over_ssh.local / "calls").read_text().splitlines():
        assert "-o BatchMode=yes -o ConnectTimeout=" in call
        assert " -- " in call
    assert not (folder / "build_on_target.sh").exists()


def test_outside_a_run_the_results_lie_beside_the_artifact(over_ssh, kit):
    over_ssh.board.with_python().with_trtexec()
    over_ssh()
    done = bench_over_ssh(kit.folder, "--install")
    assert done.exit_code == 0, done.output
    assert "--rounds=2 --install" in (over_ssh.local / "calls").read_text()
    assert len(list((kit.folder.parent / "bench").glob("*/*.json"))) == 1


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("no tensorrt", TargetUnavailableError, "there is no trtexec"),
        ("breaks", GateError, r"kit's script failed on ward@board \(exit code 4\).*Cuda failure"),
    ],
)
def test_what_fails_there_is_told_here_and_nothing_is_kept(over_ssh, kit, state, error, words):
    board = over_ssh.board.with_python()
    if state == "breaks":
        board.with_trtexec(FAKE_TRTEXEC_FAULT="fails-late")
    over_ssh()
    done = bench_over_ssh(kit.folder)
    assert isinstance(done.exception, error)
    with pytest.raises(error, match=words):
        raise done.exception
    assert left_on(board) == []
    assert not (kit.folder.parent / "bench").exists()


def test_without_python_there_it_says_what_to_install(over_ssh, kit):
    script = kit.folder / "build_on_target.sh"
    script.write_text(script.read_text().replace("/usr/bin/python3", "/no/python3"))
    over_ssh()
    with pytest.raises(TargetUnavailableError, match=r"no Python 3\.8 or newer is here: apt-get install python3"):
        fetch_results(kit.folder, Host(name="ward@board"), kit.folder.parent, say=print)
    assert left_on(over_ssh.board) == []


def test_a_host_that_does_not_answer_is_named_with_what_must_work(over_ssh, kit):
    over_ssh()
    with pytest.raises(TargetUnavailableError, match=r"ward@nowhere cannot be reached.*`ssh ward@nowhere true`"):
        fetch_results(kit.folder, Host(name="ward@nowhere"), kit.folder.parent, say=print)


def test_a_host_that_hangs_is_given_up_and_tidied(over_ssh, kit):
    over_ssh()
    script = kit.folder / "build_on_target.sh"
    script.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    with pytest.raises(TargetUnavailableError, match=r"no end after 0\.5 s"):
        fetch_results(kit.folder, Host(name="ward@board", timeout_s=0.5), kit.folder.parent, say=print)
    assert left_on(over_ssh.board) == []


def test_a_login_that_prints_other_things_is_refused_before_anything_is_removed(over_ssh, kit):
    over_ssh()
    (over_ssh.board.bin / "mktemp").unlink()
    (over_ssh.board.bin / "mktemp").write_text("#!/bin/sh\necho /\n")
    (over_ssh.board.bin / "mktemp").chmod(0o755)
    with pytest.raises(TargetUnavailableError, match="its login must print nothing"):
        fetch_results(kit.folder, Host(name="ward@board"), kit.folder.parent, say=print)
    assert "rm -rf" not in (over_ssh.local / "calls").read_text()


def test_results_of_another_file_or_with_other_answers_are_refused(over_ssh, kit, board, tmp_path):
    board.with_python().with_trtexec()
    assert board.run(kit.folder, *SHORT).returncode == 0
    over_ssh()
    (archive,) = board.root.glob("results-*.tar.gz")
    true = codec.to_builtins(reading.read_results(archive))
    assert reading.check_results(reading.read_results(archive), kit).golden.passed
    for changes, error, words in [
        ({"artifact_sha256": "1" * 64}, DataError, r"model file 111111111111, which is not here; here: tiny \("),
        ({"golden_sha256": "1" * 64}, DataError, "other golden images"),
        ({"probabilities": [[0.5, 0.5]] * 5}, GateError, "is not the model"),
        ({"probabilities": [[None, 0.5]] * 5}, GateError, "differ by up to 1 "),
        ({"probabilities": [[0.5, 0.5]] * 4}, DataError, r"\(4, 2\), and \(5, 2\) are needed"),
        ({"probabilities": [[0.5, 0.5], [1.0]]}, DataError, "different lengths"),
        ({"times": []}, DataError, "no times"),
    ]:
        write_archive(over_ssh.local / "other.tar.gz", {**true, **changes})
        results = reading.read_results(over_ssh.local / "other.tar.gz")
        with pytest.raises(error, match=words):
            reading.keep_results(results, reading.check_results(results, kit), tmp_path / "kept")
    write_archive(over_ssh.local / "other.tar.gz", {**true, "artifact_sha256": "1" * 64})
    done = bench_over_ssh(kit.folder)
    assert isinstance(done.exception, DataError)
    assert not (kit.folder.parent / "bench").exists()


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "a b", "host;true", "$(true)", "user@-x", "", "host:/x"])
def test_a_host_that_is_none_is_refused_before_ssh_is_asked(host):
    with pytest.raises(UsageError, match=r"~/\.ssh/config"):
        Host(name=host)


def test_without_ssh_here_it_says_what_to_install(kit, monkeypatch):
    monkeypatch.setattr(remote.shutil, "which", lambda name: None)
    with pytest.raises(TargetUnavailableError, match="OpenSSH"):
        fetch_results(kit.folder, Host(name="board"), kit.folder, say=print)


@pytest.mark.parametrize("option", ["--compare", "--end-to-end", "--mode=throughput", "--seed=1", "--no-pin"])
def test_options_that_the_other_machines_script_lacks_are_refused(kit, option):
    done = bench_over_ssh(kit.folder, option)
    assert isinstance(done.exception, UsageError)
    assert option.partition("=")[0] in str(done.exception)


def test_a_kit_for_a_cpu_target_builds_no_engine(tiny, tmp_path):
    artifact = open_artifact(tiny.write(tmp_path / "cpu"))
    (tmp_path / "staged").mkdir()
    stage_kit(artifact, tmp_path / "staged", target=None)
    kit = json.loads((tmp_path / "staged" / "kit" / "kit.json").read_text())
    assert (kit["target"], kit["request"], kit["modules"]) == ("onnxruntime-cpu", None, [])
    with pytest.raises(UsageError, match="one target, without a precision"):
        stage_kit(artifact, tmp_path / "staged", target="a,b")
    with pytest.raises(UsageError, match="engines are built from onnx or trt, and this is ort"):
        stage_kit(replace(artifact, manifest=tiny.manifest(format="ort")), tmp_path / "staged", target="tensorrt")


@pytest.mark.slow
def test_a_cpu_artifact_makes_the_same_trip(over_ssh, tiny, tmp_path):
    over_ssh.board.with_python()
    over_ssh()
    folder, run = in_a_run(tiny, tmp_path)
    done = bench_over_ssh(folder)
    assert done.exit_code == 0 or isinstance(done.exception, InconclusiveError), done.output  # on a busy machine
    (kept,) = (run / "bench").glob("*/*.json")
    (row,) = codec.load(BenchReport, kept).rows
    assert row.target == "onnxruntime-cpu"
