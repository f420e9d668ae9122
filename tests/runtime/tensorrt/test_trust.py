"""An engine is executable code: nothing that differs from its manifest, or comes from elsewhere, is ever loaded."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.contracts.small_networks import conv_files
from ttl_deploy import plugins
from ttl_deploy.errors import ArtifactError
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import FileEntry
from ttl_deploy.records.engines import EngineManifest, EngineOptions, EngineRequest, GpuIdentity
from ttl_deploy.runtime.tensorrt import trust
from ttl_deploy.runtime.tensorrt.engines import make_engine
from ttl_deploy.runtime.tensorrt.trust import Here, engine_path, find_differences, manifest_path, read_engine

from .conftest import stand_ins

HERE = Here(
    flavour="trt",
    tensorrt="11.4.0.106",
    gpu=GpuIdentity(name="Stand-in GPU", compute_capability="9.0", driver="580.1"),
    system="Linux",
    architecture="x86_64",
)


@pytest.fixture(scope="module")
def built_once(tmp_path_factory):
    """A folder with an ONNX file and its engine."""
    folder = tmp_path_factory.mktemp("built")
    model = conv_files(folder)["fp32"].rename(folder / "model.onnx")
    with stand_ins(folder / "cache"):
        make_engine(model, folder, EngineRequest(flavour="trt"))
    return folder


@pytest.fixture
def built(stand_in, built_once, tmp_path):
    """A copy to damage."""
    return shutil.copytree(built_once, tmp_path / "artifact")


def open_engine(folder):
    return plugins.load("targets", "tensorrt")().open(folder / "model.onnx", threads=1)


@pytest.fixture
def never_loaded(monkeypatch):
    def load(*arguments):
        raise AssertionError("the engine was given to TensorRT")

    monkeypatch.setattr("ttl_deploy.runtime.tensorrt.session.deserialise", load)


def change(folder, **changes):
    path = manifest_path(engine_path(folder, "trt"))
    codec.save(path, replace(codec.load(EngineManifest, path), **changes))


def test_an_untouched_engine_is_loaded_with_host_code_forbidden(built):
    assert open_engine(built).precision == "fp32"  # the stand-in refuses any other setting


def test_an_engine_without_a_manifest_is_refused(built, never_loaded):
    manifest_path(engine_path(built, "trt")).unlink()
    with pytest.raises(
        ArtifactError, match=r"not loaded without one: build it again: ttl-deploy build .* --flavour trt"
    ):
        open_engine(built)


def test_a_thousand_flipped_bits_are_refused_one_by_one(built, never_loaded):
    engine = engine_path(built, "trt")
    good, rng = engine.read_bytes(), np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, 8 * len(good), 1000):
        damaged = bytearray(good)
        damaged[position // 8] ^= 1 << (position % 8)
        engine.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="SHA-256 differs"):
            read_engine(engine, HERE)
        refused += 1
    assert refused == 1000


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda engine: engine.write_bytes(engine.read_bytes()[:-1]), "its manifest says"),
        (lambda engine: engine.write_bytes(b""), "its manifest says"),
        (lambda engine: engine.unlink(), "is missing"),
        (lambda engine: manifest_path(engine).write_text("{}"), "not a valid EngineManifest"),
        (lambda engine: manifest_path(engine).write_text("no json"), "cannot read"),
        (
            lambda engine: engine.rename(engine.with_name("x")) and engine.symlink_to("x"),
            "not a regular",
        ),
        (
            lambda engine: (engine.parent / "model.onnx").write_bytes((engine.parent / "int8.onnx").read_bytes()),
            "another model.onnx",
        ),
    ],
)
def test_what_is_damaged_or_mixed_up_is_refused(built, never_loaded, damage, words):
    damage(engine_path(built, "trt"))
    with pytest.raises(ArtifactError, match=words):
        open_engine(built)


def test_the_manifest_of_another_engine_is_refused(built, never_loaded):
    change(built, engine=FileEntry(name="other.trt.engine", size_bytes=1, sha256="0" * 64))
    with pytest.raises(ArtifactError, match=r"the manifest of 'other\.trt\.engine'"):
        open_engine(built)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tensorrt": "10.3.0.26"}, "TensorRT version: built with 10.3.0.26, here is 11.4.0.106"),
        ({"flavour": "rtx"}, "flavour: built with rtx, here is trt"),
        ({"system": "Windows"}, "operating system: built with Windows, here is Linux"),
        ({"architecture": "aarch64"}, "processor architecture: built with aarch64, here is"),
        (
            {"gpu": GpuIdentity(name="Stand-in GPU", compute_capability="8.7", driver="CUDA 13.0")},
            "compute capability: built with 8.7, here is 9.0",
        ),
        (
            {"gpu": GpuIdentity(name="Stand-in GPU", compute_capability="9.0", driver="535.1")},
            "driver: built with 535.1, here is",
        ),
        (
            {"gpu": GpuIdentity(name="Orin", compute_capability="9.0", driver="CUDA 13.0")},
            "GPU: built with Orin, here is Stand-in GPU",
        ),
    ],
)
def test_an_engine_from_elsewhere_is_refused_by_name_with_the_command_that_builds_it(
    built, never_loaded, changes, words
):
    change(built, **changes)
    with pytest.raises(ArtifactError, match=words) as caught:
        open_engine(built)
    assert f"Build it here: ttl-deploy build {built} --flavour trt" in str(caught.value)
    assert caught.value.exit_code == 4


def manifest_for(**changes):
    entry = FileEntry(name="model.trt.engine", size_bytes=1, sha256="0" * 64)
    made = EngineManifest(
        engine=entry,
        model=entry,
        flavour="trt",
        tensorrt=HERE.tensorrt,
        precision="fp32",
        options=EngineOptions(),
        gpu=HERE.gpu,
        system="Linux",
        architecture="x86_64",
        layers=3,
        build_s=1.0,
        created="",
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("hardware", "then", "differs"),
    [
        ("none", ("Other", "9.0"), True),
        ("same-compute-capability", ("Other", "9.0"), False),
        ("same-compute-capability", ("Other", "8.6"), True),
        ("ampere-plus", ("Other", "8.6"), False),
    ],
)
def test_a_hardware_compatible_engine_goes_as_far_as_it_was_made_for(hardware, then, differs):
    gpu = GpuIdentity(name=then[0], compute_capability=then[1], driver="580.1")
    manifest = manifest_for(gpu=gpu, options=EngineOptions(hardware=hardware))
    assert bool(find_differences(manifest, HERE)) == differs


@pytest.mark.parametrize(
    ("built_for", "here", "fits"),
    [((), "8.6", True), ((), "9.0", True), ((), "7.5", False), (("8.6", "8.9"), "8.9", True), (("8.6",), "9.0", False)],
)
def test_an_engine_built_ahead_of_time_runs_on_the_gpus_it_names_whatever_the_driver(built_for, here, fits):
    manifest = manifest_for(gpu=None, options=EngineOptions(compute_capabilities=built_for))
    gpu = GpuIdentity(name="Any", compute_capability=here, driver="other")
    found = find_differences(manifest, replace(HERE, gpu=gpu))
    assert (not found) == fits
    assert fits or "built ahead of time for SM 8" in found[0]


def test_the_bytes_that_were_hashed_are_the_bytes_that_are_loaded(built, monkeypatch):
    given = []

    def swap_and_load(engine, path):
        path.write_bytes(b"swapped")
        given.append(engine.content)
        return trust.deserialise(engine, path)

    monkeypatch.setattr("ttl_deploy.runtime.tensorrt.session.deserialise", swap_and_load)
    assert open_engine(built).precision == "fp32"
    assert given[0].startswith(b"stand-in engine")
