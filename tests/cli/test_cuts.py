"""`ttl-deploy cuts --latency` and `--plot`, as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ttl_deploy.errors import TtlDeployError, UnknownNameError, UsageError
from ttl_deploy.records import codec
from ttl_deploy.records.trials import Profile
from ttl_deploy_cli.main import app
from ttl_deploy_cli.progress import _LinePerStage


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process, in an empty folder with an empty cache."""
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments)
        if isinstance(result.exception, TtlDeployError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


def timed(*more: str) -> list[str]:
    return ["cuts", "--backbone", "squeezenet1_1", "--image-size", "32", "--cuts", "features.2", *more]


def test_latencies_stand_beside_costs_and_a_second_call_prints_the_same(call: Callable[..., Result]) -> None:
    first = call(*timed("--latency", "--seconds", "0.03"))
    second = call(*timed("--latency", "--seconds", "0.03"))
    assert "timing 2 cuts on onnxruntime-cpu (6)" in first.stderr
    assert "timing" not in second.stderr
    assert "2 of 2 latencies come from the cache, measured 20" in second.stderr
    assert second.stdout == first.stdout
    row = next(line.split() for line in first.stdout.splitlines() if line.startswith(" features.2"))
    assert float(row[5]) > 0  # milliseconds
    assert row[7].endswith("%")
    assert "Noise is the spread between them" in first.stdout


def test_json_holds_cuts_and_profile_with_the_full_network_beside_them(call: Callable[..., Result]) -> None:
    found = json.loads(call(*timed("--latency", "--seconds", "0.03", "--no-progress", "--json")).stdout)
    profile = codec.from_builtins(Profile, found["profile"])
    assert [cut["name"] for cut in found["cuts"]] == [cut.cut for cut in profile.cuts] == ["features.2", "full"]
    assert profile.threads == 1
    assert all(cut.latency_s is not None and cut.measured for cut in profile.cuts)
    assert profile.cuts[0].receptive_field == found["cuts"][0]["receptive_field"]


def test_a_picture_needs_no_latency_and_is_written_whole(call: Callable[..., Result], tmp_path: Path) -> None:
    result = call("cuts", "--backbone", "squeezenet1_1", "--plot", "depth.svg")
    assert "wrote depth.svg" in result.stderr
    assert (tmp_path / "depth.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    assert not (tmp_path / "cache").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["depth.svg"]


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        (["--target", "gpu9000"], UnknownNameError, "unknown target 'gpu9000'"),
        (["--seconds", "0"], UsageError, "give more than 0"),
        (["--plot", "depth.gif"], UsageError, r"must end in \.svg, \.png, \.pdf"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_takes_time(
    call: Callable[..., Result], tmp_path: Path, option: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(*timed("--latency"), *option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interrupted_measurement_says_how_to_go_on_and_keeps_what_it_has(tmp_path: Path) -> None:
    command = ["ttl-deploy", *timed("--latency", "--seconds", "0.3", "--cuts", "all")]
    code = f"import sys; sys.argv = {command!r}; from ttl_deploy_cli.main import main; main()"
    environment = os.environ | {"TTL_DEPLOY_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("profiles/*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command (without --measure-again) goes on from there" in said
    assert "Traceback" not in said
    for kept in tmp_path.glob("profiles/*.json"):
        assert len(json.loads(kept.read_text())["entry"]["timings"]) == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_time_left_is_told_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = _LinePerStage(clock=lambda: now)
    for done in range(41):
        lines.step("timing", done, 40)
        now += 3.0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "timing (40)"
    assert said[1] == "timing: 4 of 40, about 1 min 48 s left"
    assert len(said) == 10
