"""An artifact's engine: built beside the ONNX file, compared with the golden answers, verified, used from the shell."""

import subprocess
import sys

import pytest

from ttl_deploy.errors import ArtifactError, GateError, TargetUnavailableError, UsageError
from ttl_deploy.files import sha256_bytes
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import BenchReport
from ttl_deploy.records.engines import EngineManifest, EngineOptions, EngineRequest
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.bench import BenchPlan, bench
from ttl_deploy.runtime.inference import open_safely
from ttl_deploy.runtime.measurement import CALL, END_TO_END
from ttl_deploy.runtime.tensorrt.engines import build_beside, for_this_machine
from ttl_deploy.runtime.tensorrt.session import ON_GPU, WITH_TRANSFERS
from ttl_deploy.runtime.tensorrt.trust import engine_path, manifest_path
from ttl_deploy.runtime.verify import LabelledImages, verify

TRT = EngineRequest(flavour="trt")


@pytest.fixture
def artifact(tmp_path, tiny):
    """A whole artifact of the format trt."""
    return open_artifact(tiny.write(tmp_path / "artifact", manifest=tiny.manifest(format="trt")))


@pytest.fixture
def labelled(tiny):
    images = tiny.images(6, seed=1)
    return LabelledImages(
        images=images,
        labels=[int(label) for label in tiny.expected(images).argmax(axis=1)],
        patients=[f"p{i}" for i in range(6)],
        sha256s=[sha256_bytes(image.tobytes()) for image in images],
        classes=("normal", "ill"),
        split="test",
    )


def engines_in(folder):
    return sorted(path.name for path in folder.glob("model.*.*"))


def test_an_engine_is_built_beside_its_model_compared_and_verified(stand_in, artifact, labelled):
    said = []
    manifest = build_beside(artifact, TRT, say=said.append)
    assert codec.load(EngineManifest, manifest_path(engine_path(artifact.folder, "trt"))) == manifest
    assert manifest.golden.passed
    assert manifest.golden.images == 5
    assert manifest.model.sha256 == artifact.model_sha256
    assert said == ["building an engine by TensorRT", "comparing the engine with the golden answers"]
    report = verify(open_artifact(artifact.folder), labelled, target="tensorrt")
    assert report.passed, report.note
    assert report.parity.images == 6
    assert report.executed.runtime == "tensorrt 11.4.0.106"


def test_the_cpu_answers_where_no_target_is_named_and_says_so(artifact, labelled):
    assert artifact.default_target == "onnxruntime-cpu"
    assert artifact.target_note.startswith("running the ONNX graph on the CPU (onnxruntime-cpu); --target tensorrt")
    assert verify(artifact, labelled).executed.runtime.startswith("onnxruntime ")


def test_an_engine_that_answers_otherwise_is_not_published(stand_in, artifact, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAULT", "wrong-answers")
    with pytest.raises(GateError, match=r"the engine is not the model.*it was not published"):
        build_beside(artifact, TRT)
    assert engines_in(artifact.folder) == []


def test_a_failed_build_leaves_the_engine_that_was_there(stand_in, artifact, monkeypatch):
    build_beside(artifact, TRT)
    before = engine_path(artifact.folder, "trt").read_bytes()
    monkeypatch.setenv("STAND_IN_FAULT", "builds-nothing")
    with pytest.raises(GateError, match="OutOfMemory"):
        build_beside(artifact, TRT)
    assert engine_path(artifact.folder, "trt").read_bytes() == before


def test_an_engine_is_refused_after_its_model_was_exported_anew(stand_in, artifact, tiny):
    build_beside(artifact, TRT)
    for name in ("model.onnx", "reference.npz", "golden.npz", "manifest.json"):
        (artifact.folder / name).unlink()
    changed = tiny.write(artifact.folder.with_name("new"), manifest=tiny.manifest(format="trt", seed=1))
    for path in changed.iterdir():
        path.rename(artifact.folder / path.name)
    images, _ = open_artifact(artifact.folder).golden()
    with pytest.raises(ArtifactError, match=r"was built from another model\.onnx"):
        open_safely("tensorrt", artifact.folder / "model.onnx", threads=1).run(images)


def test_other_formats_have_no_engines(tmp_path, tiny):
    folder = tiny.write(tmp_path / "ort", manifest=tiny.manifest(format="ort"))
    with pytest.raises(UsageError, match="engines are built from trt or onnx"):
        build_beside(open_artifact(folder), TRT)


def test_tensorrt_needs_a_gpu_to_build(stand_in, artifact, monkeypatch):
    monkeypatch.setenv("STAND_IN_GPU", "none")
    with pytest.raises(TargetUnavailableError, match="finds no GPU here"):
        build_beside(artifact, TRT)


def test_tensorrt_for_rtx_builds_for_the_gpu_that_is_here_or_else_for_all(stand_in, monkeypatch):
    rtx = EngineRequest(flavour="rtx")
    assert for_this_machine(rtx).options.compute_capabilities == ("current",)
    named = EngineRequest(flavour="rtx", options=EngineOptions(compute_capabilities=("8.6",)))
    assert for_this_machine(named) == named
    assert for_this_machine(TRT) == TRT
    monkeypatch.setenv("STAND_IN_GPU", "none")
    assert for_this_machine(rtx) == rtx


def test_an_engine_is_benchmarked_with_its_time_on_the_gpu_apart_and_with_the_time_from_the_file_on(stand_in, artifact):
    build_beside(artifact, TRT)
    plan = BenchPlan(
        targets=("tensorrt-cuda-graph",),
        end_to_end=True,
        seconds=0.05,
        runs=12,
        rounds=1,
        warmup_limit_s=0.1,
        pinned=False,
    )
    report = bench([artifact], plan)
    assert not report.failures
    call, from_files = report.rows
    assert (call.boundary, from_files.boundary) == (CALL, END_TO_END)
    assert [stretch.boundary for stretch in call.stretches] == [ON_GPU, WITH_TRANSFERS]
    for stretch in call.stretches:
        assert stretch.calls == len(call.timings[0].samples_s) >= 12
        assert stretch.calls == len(call.timings[0].stretches_s[stretch.boundary])
        assert stretch.median_s > 0
    assert from_files.stretches == ()
    assert codec.from_builtins(BenchReport, codec.to_builtins(report), source="") == report


def build_from_the_shell(folder, *options, blocked=("torch", "torchvision", "onnx")):
    """Run `ttl-deploy build` in a process without torch and onnx, as on a machine that only runs models."""
    code = (
        "import sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        f"sys.argv = {['ttl-deploy', 'build', str(folder), *options]!r}\n"
        "from ttl_deploy_cli.main import main\nmain()\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_command_builds_without_torch_and_says_what_was_not_checked(artifact, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    done = build_from_the_shell(artifact.folder, "--flavour", "rtx", "--batch", "1,2,4")
    assert done.returncode == 0, done.stderr
    assert engines_in(artifact.folder) == ["model.rtx.engine", "model.rtx.json"]
    assert "ahead of time for SM 8.0 and later" in done.stdout
    assert "not run: there was no GPU where it was built" in done.stdout
    manifest = codec.load(EngineManifest, artifact.folder / "model.rtx.json")
    assert manifest.options.batch.largest == 4


def test_the_command_ends_with_the_codes_of_its_refusals(artifact, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    for options, code, words in (
        (("--flavour", "rtx", "--batch", "3,2,1"), 2, "MIN,OPT,MAX"),
        (("--flavour", "trt"), 6, "container nvcr.io/nvidia/tensorrt"),
    ):
        done = build_from_the_shell(artifact.folder, *options)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    (artifact.folder / "model.onnx").write_bytes(b"damaged")
    assert build_from_the_shell(artifact.folder, "--flavour", "rtx").returncode == 4
    assert engines_in(artifact.folder) == []
