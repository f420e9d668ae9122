"""Engines built by the real TensorRT for RTX without a GPU, and what is refused before and after."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType

from tests.contracts import small_networks
from ttl_deploy.errors import ArtifactError, GateError, TargetUnavailableError, UsageError
from ttl_deploy.records.engines import BatchRange, EngineOptions, EngineRequest
from ttl_deploy.runtime.tensorrt import flavours
from ttl_deploy.runtime.tensorrt.builder import build
from ttl_deploy.runtime.tensorrt.engines import make_engine
from ttl_deploy.runtime.tensorrt.messages import explain
from ttl_deploy.runtime.tensorrt.trust import engine_path, manifest_path, read_manifest

SIDE = small_networks.SIDE


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return small_networks.conv_files(tmp_path_factory.mktemp("convolutional"))


def rtx(**options):
    pytest.importorskip("tensorrt_rtx")
    return EngineRequest(flavour="rtx", options=EngineOptions(**options))


def header_of(engine):
    """Return what the stand-in noted of its settings."""
    return json.loads(engine.read_bytes().split(b"\n")[1])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_for_rtx_builds_without_a_gpu_and_the_manifest_says_all(files, tmp_path, precision):
    request = rtx(batch=BatchRange(smallest=1, usual=4, largest=8))
    manifest = make_engine(files[precision], tmp_path, request)
    engine = engine_path(tmp_path, "rtx")
    assert read_manifest(engine) == manifest
    assert manifest.engine.size_bytes == engine.stat().st_size > 100_000
    assert manifest.model.sha256 != manifest.engine.sha256
    assert (manifest.precision, manifest.gpu, manifest.golden) == (precision, None, None)
    assert manifest.tensorrt == flavours.version_of(flavours.load_flavour("rtx"))
    assert manifest.built_for == "ahead of time for SM 8.0 and later"
    assert manifest.layers > 20
    assert not manifest.warnings


def test_engines_for_named_gpus_differ_from_those_for_all(files, tmp_path):
    one = make_engine(files["fp32"], tmp_path / "one", rtx(compute_capabilities=("8.0",)))
    two = make_engine(files["fp32"], tmp_path / "two", rtx(compute_capabilities=("8.6", "12.0")))
    assert one.engine.sha256 != two.engine.sha256
    assert two.built_for == "ahead of time for SM 8.6, SM 12.0"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"hardware": "ampere-plus"}, UsageError, "--hardware-compatible ampere-plus: TensorRT for RTX .* has no such"),
        ({"compute_capabilities": ("9.0",)}, UsageError, r"--compute-capability 9\.0: .* knows 7\.5, 8\.0, 8\.6"),
        ({"compute_capabilities": ("current",)}, TargetUnavailableError, "cudaGetDeviceCount failed|no CUDA binding"),
        ({"compute_capabilities": ("7.5",)}, GateError, "builds no fp32 layers for Turing"),
    ],
)
def test_options_that_the_flavour_does_not_have_are_refused_by_name(files, tmp_path, options, error, words):
    if flavours.is_installed("rtx") and options.get("compute_capabilities") == ("current",):
        _skip_with_a_gpu()
    with pytest.raises(error, match=words):
        build(files["fp32"], tmp_path / "engine", rtx(**options))
    assert not (tmp_path / "engine").exists()


def _skip_with_a_gpu():
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a GPU here")


def test_a_timing_cache_is_refused_where_nothing_is_timed(files, tmp_path):
    request = EngineRequest(flavour=rtx().flavour, timing_cache=str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"--timing-cache: TensorRT for RTX measures nothing"):
        build(files["fp32"], tmp_path / "engine", request)


def test_version_compatible_engines_carry_no_host_code(files, tmp_path, stand_in):
    made = make_engine(files["fp32"], tmp_path / "rtx", rtx(version_compatible=True))
    assert made.engine.size_bytes < 2_000_000  # a lean runtime alone has more
    make_engine(files["fp32"], tmp_path, EngineRequest(flavour="trt", options=EngineOptions(version_compatible=True)))
    assert header_of(engine_path(tmp_path, "trt"))["flags"] == ["EXCLUDE_LEAN_RUNTIME", "VERSION_COMPATIBLE"]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            {"activation_type": QuantType.QUInt8},
            "biases are quantised to 32-bit integers",
        ),
        (
            {"activation_type": QuantType.QUInt8, "extra_options": {"QuantizeBias": False}},
            "TensorRT takes signed and symmetric ones: export --format trt --precision int8",
        ),
    ],
)
def test_quantised_files_for_other_runtimes_are_refused_with_cause_and_remedy(files, tmp_path, recipe, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = small_networks._quantise(
            files["fp32"], tmp_path / "u8.onnx", op_types_to_quantize=["Conv", "Gemm"], **recipe
        )
    with pytest.raises(GateError, match=words) as caught:
        make_engine(path, tmp_path / "engines", rtx())
    assert "nothing was published" in str(caught.value)
    assert list((tmp_path / "engines").iterdir()) == []


def network(nodes, side, classes=2):
    helper, kinds = onnx.helper, onnx.TensorProto
    given = helper.make_tensor_value_info("image", kinds.UINT8, ["batch", side, side, 3])
    answer = helper.make_tensor_value_info("answer", kinds.FLOAT, ["batch", classes])
    constants = [
        onnx.numpy_helper.from_array(np.ones((3, classes), np.float32), "weight"),
        onnx.numpy_helper.from_array(np.array([1, 2]), "axes"),
    ]
    graph = helper.make_graph(nodes, "made", [given], [answer], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_an_operator_that_tensorrt_does_not_have_is_named(tmp_path):
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["image"], ["floats"], to=onnx.TensorProto.FLOAT),
        node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        node("Det", ["planes"], ["answer"]),
    ]
    onnx.save(network(nodes, 3, classes=3), tmp_path / "model.onnx")
    with pytest.raises(GateError, match=r"Det, UNSUPPORTED_NODE.*TensorRT has no such operator"):
        make_engine(tmp_path / "model.onnx", tmp_path, rtx())


@pytest.mark.parametrize("content", [b"garbage", b"", b"\x08\x0a" * 40])
def test_garbage_never_reaches_the_parser_which_would_take_it(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        make_engine(tmp_path / "model.onnx", tmp_path / "engines", rtx())
    assert list((tmp_path / "engines").iterdir()) == []


def test_a_file_that_onnx_runtime_refuses_is_not_built(tmp_path):
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["image"], ["floats"], to=onnx.TensorProto.FLOAT),
        node("MatMul", ["floats", "axes"], ["answer"]),  # floats times whole numbers
    ]
    onnx.save(network(nodes, SIDE), tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot open"):
        make_engine(tmp_path / "model.onnx", tmp_path, rtx())


def test_options_reach_the_builder(files, tmp_path, stand_in):
    cache = tmp_path / "timing.cache"
    options = EngineOptions(
        batch=BatchRange(smallest=2, usual=4, largest=8),
        workspace_bytes=2**30,
        builder_level=5,
        hardware="same-compute-capability",
    )
    manifest = make_engine(
        files["fp32"], tmp_path, EngineRequest(flavour="trt", options=options, timing_cache=str(cache))
    )
    header = header_of(engine_path(tmp_path, "trt"))
    assert header["sizes"] == [[2, SIDE, SIDE, 3], [4, SIDE, SIDE, 3], [8, SIDE, SIDE, 3]]
    assert (header["workspace"], header["level"]) == (2**30, 5)
    assert header["hardware"] == "SAME_COMPUTE_CAPABILITY"
    assert header["flags"] == []  # fp32 means fp32: no TF32
    assert header["detailed"]
    assert cache.read_bytes() == b"timed: conv 1"
    assert manifest.gpu.compute_capability == "9.0"
    assert manifest.warnings == ("a warning of the stand-in",)


def test_a_timing_cache_of_another_gpu_is_refused(files, tmp_path, stand_in):
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"other GPU")
    with pytest.raises(UsageError, match="was made on another GPU"):
        make_engine(files["fp32"], tmp_path, EngineRequest(flavour="trt", timing_cache=str(cache)))
    assert cache.read_bytes() == b"other GPU"
    with pytest.raises(UsageError, match=r"--compute-capability: TensorRT .* has no such thing"):
        make_engine(
            files["fp32"],
            tmp_path,
            EngineRequest(flavour="trt", options=EngineOptions(compute_capabilities=("8.6",))),
        )


def test_a_build_that_hangs_or_fails_leaves_nothing(files, tmp_path, stand_in, monkeypatch):
    for fault, words in (("hang", "gave no answer within 3 s"), ("builds-nothing", "give less with --workspace")):
        monkeypatch.setenv("STAND_IN_FAULT", fault)
        with pytest.raises(GateError, match=words):
            make_engine(files["fp32"], tmp_path / "e", EngineRequest(flavour="trt"), timeout_s=3)
    assert list((tmp_path / "e").iterdir()) == []


def test_missing_packages_are_named_with_how_to_get_them(files, tmp_path, monkeypatch):
    monkeypatch.setattr(flavours, "find_spec", lambda name: None)
    for flavour, words in (("trt", "NVIDIA's own package index"), ("rtx", r"ttl-deploy\[rtx\]")):
        with pytest.raises(TargetUnavailableError, match=words):
            make_engine(files["fp32"], tmp_path, EngineRequest(flavour=flavour))


def test_a_package_without_its_libraries_says_so(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvonnxparser.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TargetUnavailableError, match=r"does not load \(libnvonnxparser.*nvcr\.io/nvidia/tensorrt"):
        flavours.load_flavour("trt")


def test_a_tensorrt_that_is_too_old_is_refused(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text(
        "__version__ = '8.5.2'\nclass NetworkDefinitionCreationFlag: EXPLICIT_BATCH = 0"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("tensorrt", None)
    with pytest.raises(TargetUnavailableError, match=r"TensorRT 8 builds no strongly typed.*trtexec"):
        flavours.load_flavour("trt")
    del sys.modules["tensorrt"]  # for good: the patch would put it back


def test_causes_are_told_once_and_unknown_words_are_kept():
    assert explain([]) == "it gave no reason"
    assert explain(["odd", "odd", " "]) == "odd"
    assert explain([f"m{i}" for i in range(7)]).endswith("and 2 more")
    assert "the GPU has too little memory" in explain(["Error: out of memory", "x"])


def test_an_engines_manifest_is_the_last_thing_written(files, tmp_path, stand_in, monkeypatch):
    from ttl_deploy.runtime.tensorrt import engines

    def fail(path, record):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines.codec, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        make_engine(files["fp32"], tmp_path / "e", EngineRequest(flavour="trt"))
    assert not manifest_path(engine_path(tmp_path / "e", "trt")).exists()
