"""The build-on-target kit, end to end: written beside an artifact, run by its script, its results read back."""

import argparse
import ast
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ttl_deploy.files import sha256_file
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.kit import reading
from ttl_deploy.runtime.kit.board import trtexec, ways
from ttl_deploy.runtime.kit.board.refusals import RefusedError
from ttl_deploy.runtime.kit.writing import write_kit
from ttl_deploy.runtime.tensorrt.trtexec import GPU_ONLY, WITH_TRANSFERS

KIT = Path(reading.__file__).parent
SHELLCHECK = Path(sysconfig.get_path("scripts")) / "shellcheck"
SHORT = ("--seconds=0.1", "--rounds=2")


def only_archive(board):
    (archive,) = board.root.glob("results-*.tar.gz")
    return archive


def leftovers(board, kit):
    """Return what a failed run left behind: results, engines, partial files."""
    patterns = ("results-*", ".results-*", "ttl-deploy-kit-*")
    found = [path.name for pattern in patterns for path in board.root.glob(pattern)]
    return found + [path.name for path in kit.folder.iterdir() if "engine" in path.name and path.suffix != ".sh"]


def test_the_script_passes_shellcheck():
    done = subprocess.run(
        [SHELLCHECK, "--enable=all", "--exclude=SC2250", str(KIT / "build_on_target.sh")],  # braces are a taste
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted((KIT / "board").glob("*.py")), ids=lambda path: path.name)
def test_what_runs_on_the_board_is_python_3_8_and_its_standard_library(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_by_trtexec_one_command_builds_compares_measures_and_its_results_are_read_back(kit, board):
    board.with_python().with_trtexec()
    done = board.run(kit.folder, "--batch=1,4", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "has no module tensorrt" in done.stderr
    assert done.stdout.strip() == only_archive(board).name
    build = next(call for call in board.calls if "--onnx=" in call)
    side = "16x16x3"
    assert f"--minShapes=image:1x{side} --optShapes=image:2x{side} --maxShapes=image:4x{side}" in build
    assert "--stronglyTyped --noTF32 --skipInference" in build
    assert "--fp16" not in build
    engine = kit.folder / "model.trtexec.engine"
    results = reading.read_results(only_archive(board))
    assert results.engine.sha256 == sha256_file(engine)
    assert (results.engine.tensorrt, results.engine.gpu) == ("10.13.3", "Orin, compute capability 8.7")
    assert results.artifact_sha256 == kit.model_sha256
    _, expected = kit.golden()
    assert np.abs(np.array(results.probabilities) - expected).max() < 1e-5
    report = reading.report_of(results)
    rows = {(row.batch, row.boundary): row for row in report.rows}
    assert rows[1, GPU_ONLY].median_s == pytest.approx(1.01e-3)
    assert rows[4, WITH_TRANSFERS].median_s == pytest.approx(4.16e-3)
    assert rows[4, GPU_ONLY].throughput == pytest.approx(4 / 4.01e-3)
    assert len(rows) == 4
    assert all(len(row.timings) == 2 for row in report.rows)


def test_tensorrt_8_gets_its_precision_by_flag(tmp_path, tiny, board):
    artifact = open_artifact(tiny.write(tmp_path / "old", manifest=tiny.manifest(format="trt")))
    kit = {"folder": artifact.folder, "model": "model.onnx"}
    kit |= {"batch": [1, 1, 2], "workspace_bytes": 2**30, "builder_level": 3, "precision": "fp16"}
    kit |= {"input": {"name": "image", "height": 16, "width": 16}}
    banner = "&&&& RUNNING TensorRT.trtexec [TensorRT v8502]\n"
    command = trtexec.build_command("trtexec", kit, Path("e"), help_text=f"{banner}  --buildOnly")
    assert command[-3:] == ["--fp16", "--buildOnly", "--memPoolSize=workspace:1024"]
    assert "--stronglyTyped" not in command


@pytest.mark.parametrize(
    ("banner", "version"),
    [("v8502", "8.5.2"), ("v8601", "8.6.1"), ("v100900", "10.9.0"), ("v101303", "10.13.3"), ("v11.1.0", "11.1.0")],
)
def test_trtexecs_banner_tells_the_version(banner, version):
    assert trtexec.read_version(f"&&&& RUNNING TensorRT.trtexec [TensorRT {banner}] [b48]") == version


@pytest.mark.parametrize(
    ("fault", "words", "code"),
    [
        ("builds-nothing", "trtexec built no engine: exit code 1; .*OutOfMemory.*close other programs", 4),
        pytest.param("crash", "cannot run the engine that it built", 4, marks=pytest.mark.slow),
        ("wrong-answers", r"the engine is not the model: .*differ by up to 0.3 \(allowed 0.0001\)", 4),
        pytest.param("nan", "the engine is not the model: .*differ by up to 1", 4, marks=pytest.mark.slow),
        pytest.param("no-times", "trtexec could not time the engine", 4, marks=pytest.mark.slow),
        ("fails-late", "told no times.*Cuda failure", 4),
    ],
)
def test_whatever_fails_on_the_way_is_named_and_nothing_is_left(kit, board, fault, words, code):
    board.with_python().with_trtexec(FAKE_TRTEXEC_FAULT=fault)
    done = board.run(kit.folder, *SHORT)
    assert done.returncode == code
    assert re.search(words, done.stderr), done.stderr
    assert leftovers(board, kit) == []


def test_answers_that_are_no_numbers_count_as_wrong(tmp_path):
    kit = {"output": "probabilities", "expected": [[0.2, 0.8]], "limit": 1e-4, "reference": "torch"}
    path = tmp_path / "answers.json"
    path.write_text('[ { "name" : "probabilities" , "dimensions" : "1x2" , "values" : [ 0.2, -nan ] } ]')
    answers = trtexec.read_answers(path, kit, 1)
    with pytest.raises(RefusedError, match="differ by up to 1 "):
        trtexec.compare(answers, kit)
    path.write_text('[ { "name" : "probabilities" , "dimensions" : "1x2" , "values" : [ inf, -inf ] } ]')
    assert trtexec.read_answers(path, kit, 1) == [[float("inf"), -float("inf")]]
    for wrong in ("[]", "{}", '[{"name": "probabilities", "values": [1]}]', "nan"):
        path.write_text(wrong)
        with pytest.raises(RefusedError, match=r"cannot be read|1 x 2 were expected"):
            trtexec.read_answers(path, kit, 1)


@pytest.mark.parametrize(
    ("module", "remedy"),
    [("tensorrt", "JetPack"), ("tensorrt_rtx", "pip install tensorrt-rtx"), ("openvino", "pip install openvino")],
)
def test_a_missing_runtime_is_named_with_where_it_comes_from(kit, tmp_path, module, remedy):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '[[3, 12], [\"{module}\"]]'\n")
    python.chmod(0o755)
    told = {"folder": kit.folder, "wheel": "", "version": "1", "requires": [], "modules": [module]}
    reason = ways.why_not(str(python), told, argparse.Namespace())
    assert f"has no module {module}: " in reason
    assert remedy in reason


def test_without_python_without_tensorrt_and_with_a_damaged_kit_the_script_says_what_to_do(kit, board):
    done = board.run(kit.folder)
    if Path("/usr/bin/python3").exists():  # the script tries it where the path has none
        assert "there is no trtexec" in done.stderr
    else:
        assert "apt-get install python3" in done.stderr
    assert done.returncode == 6
    board.with_python()
    done = board.run(kit.folder)
    assert done.returncode == 6
    assert "has no module tensorrt" in done.stderr
    assert "apt-get install tensorrt" in done.stderr
    with open(kit.folder / "model.onnx", "ab") as model:
        model.write(b"x")
    done = board.with_trtexec().run(kit.folder)
    assert done.returncode == 4
    assert "model.onnx is missing or damaged: copy the artifact's folder again" in done.stderr
    assert board.calls == []
    (kit.folder / "kit" / "ttl_deploy_board" / "on_target.py").unlink()
    assert board.run(kit.folder).returncode == 4
    assert leftovers(board, kit) == []


def test_an_interruption_leaves_nothing_behind(kit, board):
    board.with_python().with_trtexec(FAKE_TRTEXEC_FAULT="hang")
    command = ["/bin/sh", str(kit.folder / "build_on_target.sh")]
    with subprocess.Popen(command, cwd=board.root, env=board.environment, stderr=subprocess.PIPE, text=True) as process:
        while "building the engine" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert leftovers(board, kit) == []


def test_options_and_places_are_checked_before_minutes_of_work(kit, board):
    board.with_python().with_trtexec()
    (board.root / "there").write_text("mine")
    for arguments, code in [
        (("--batch=0",), 2),
        (("--batch=8",), 2),
        (("--rounds=0",), 2),
        (("--out=there",), 2),
        (("--out=no/such/place.tar.gz",), 74),
        (("--way=ttl-deploy",), 6),
    ]:
        assert board.run(kit.folder, *arguments).returncode == code, arguments
    assert not any("--onnx" in call for call in board.calls)
    assert (board.root / "there").read_text() == "mine"


def test_the_kit_carries_ttl_deploy_as_a_wheel_that_is_the_same_each_time(kit, tmp_path):
    (wheel,) = (kit.folder / "kit").glob("*.whl")
    first = sha256_file(wheel)
    write_kit(kit, tmp_path / "artifact", request=None, target="onnxruntime-cpu")
    assert sha256_file(wheel) == first
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
        (commands,) = [archive.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert "Requires-Dist: onnxruntime" in metadata
    assert "ttl-deploy = ttl_deploy_cli.main:main" in commands
    assert {"ttl_deploy/runtime/kit/measuring.py", "ttl_deploy_cli/main.py"} <= set(names)
    assert not any("__pycache__" in name for name in names)


def test_an_archive_of_something_else_is_no_result(tmp_path):
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(__file__, arcname="other.py")
    other = tmp_path / "results.json"
    other.write_text('{"record": "BenchReport"}')
    for path in (archive, other, Path(__file__), tmp_path / "none"):
        with pytest.raises(reading.DataError, match=r"give the file that build_on_target\.sh wrote"):
            reading.read_results(path)
