"""`export --format … --precision …` and `verify`, end to end: published with what ran, or exit code 4 and nothing."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ttl_deploy.files import sha256_file
from ttl_deploy.records import codec
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.artifact import open_artifact

from .conftest import call

onnx = pytest.importorskip("onnx")
Run = Callable[..., subprocess.CompletedProcess[str]]
SEARCH = shlex.split(
    "search --backbone shufflenet_v2_x0_5 --weights none --data 'phantom:texture?patients=140&size=32&seed=3' "
    "--image-size 32 --cuts stage2.3 --policy exhaustive --epochs 2 --batch-size 16 --val-fraction 0.4 "
    "--skip profile,test"
)


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with enough patients in validation for a gate."""
    here = tmp_path_factory.mktemp("precise")
    done = call(SEARCH, cwd=here, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    (folder,) = (here / "runs").iterdir()
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Export the run's choice in 8 bits for ONNX Runtime."""
    arguments: Sequence[str] = ("export", str(run), "--format", "ort", "--precision", "int8", "--max-drop", "0.1")
    done = call(arguments, cwd=run, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--precision", "bf16"), "onnx can be fp32 or int8; for bf16 choose --format openvino"),
        (("--format", "ort", "--precision", "bf16"), "ort can be fp32 or int8"),
        (("--precision", "int4"), "unknown precision 'int4'"),
        (("--format", "onxx"), "did you mean onnx?"),
        (("--precision", "int8", "--max-drop", "0.7"), "--max-drop"),
        (("--precision", "int8", "--max-drop", "0"), "--max-drop"),
        (("--qat-epochs", "2"), "finetuning is for int8"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(
    ttl_deploy: Run, run_folder: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    copy = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("exports"))
    done = ttl_deploy("export", copy, *arguments)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert not (copy / "exports").exists()


def test_too_few_patients_to_judge_8_bits_by_exit_with_4_and_publish_nothing(
    ttl_deploy: Run, run_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("exports"))
    done = ttl_deploy("export", copy, "--format", "ort", "--precision", "int8")
    assert done.returncode == 4, done.stderr
    assert "patients only, fewer than 10" in done.stderr
    assert list(copy.glob("exports/*")) == []


@pytest.mark.slow
def test_8_bits_lie_beside_single_precision_and_say_what_ran(
    ttl_deploy: Run, run: Path, exported: subprocess.CompletedProcess[str]
) -> None:
    (folder,) = (run / "exports").glob("*-ort-int8")
    manifest = open_artifact(folder).manifest
    assert manifest.quantisation is not None
    assert manifest.quantisation.calibration.split == "train"
    assert "really ran int8" in exported.stdout
    assert "quantising to" in exported.stderr
    single = ttl_deploy("export", run)
    assert single.returncode == 0, single.stderr
    names = {path.name for path in RunFolder(run).exports()}
    assert names == {folder.name, folder.name.removesuffix("-ort-int8")}
    assert ttl_deploy("report", run).returncode == 0
    page = (run / "report.html").read_text()
    assert "really ran int8" in page
    assert "Try 1" in page


@pytest.mark.slow
def test_verify_judges_8_bits_by_the_gate_in_the_artifact(
    ttl_deploy: Run, run: Path, exported: subprocess.CompletedProcess[str]
) -> None:
    (folder,) = (run / "exports").glob("*-ort-int8")
    done = ttl_deploy("verify", folder, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["split"], report["passed"], report["precision"]) == ("val", True, "int8")
    assert report["executed"]["precision"] == "int8"
    assert report["parity"]["gate"]["max_drop"] == 0.1
    assert report["parity"]["auroc"]["difference"]["low"] > -0.1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_wrong_normalisation_constant_exits_with_4(
    ttl_deploy: Run, run: Path, tmp_path: Path, exported: subprocess.CompletedProcess[str], precision: str
) -> None:
    (folder,) = (run / "exports").glob("*-ort-int8")
    if precision == "fp32":
        assert ttl_deploy("export", run).returncode == 0
        folder = folder.with_name(folder.name.removesuffix("-ort-int8"))
    copy = shutil.copytree(run, tmp_path / "run")
    broken = copy / "exports" / folder.name
    model = onnx.load(broken / "model.onnx")
    shift = next(tensor for tensor in model.graph.initializer if tensor.name == "shift")
    values = onnx.numpy_helper.to_array(shift).copy()
    values.flat[1] *= 0.5  # as a mean of 0.228 instead of 0.456
    shift.CopyFrom(onnx.numpy_helper.from_array(values, "shift"))
    onnx.save(model, broken / "model.onnx")
    manifest = open_artifact(folder).manifest
    mended = tuple(
        replace(entry, size_bytes=(broken / entry.name).stat().st_size, sha256=sha256_file(broken / entry.name))
        for entry in manifest.files
    )
    codec.save(broken / "manifest.json", replace(manifest, files=mended))
    done = ttl_deploy("verify", broken)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "verdict: FAILED" in done.stdout
    assert "golden images differ" in done.stdout
