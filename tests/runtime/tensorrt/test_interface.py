"""The stand-ins cannot drift: every name and argument of theirs is one of the real modules'."""

import enum
import importlib.util
import inspect
import re
import sys

import pytest

from .conftest import STAND_IN

trt = pytest.importorskip("tensorrt_rtx")
cuda = pytest.importorskip("cuda.bindings.runtime")
HELPERS = {"enqueue", "live_bytes"}
ALWAYS_THERE = {
    "ILogger": ("log", "WARNING", "ERROR", "INTERNAL_ERROR"),
    "IExecutionContext": ("is_stream_capturable",),
    "IBuilderConfig": ("num_compute_capabilities", "set_compute_capability"),
    "ComputeCapability": ("CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120"),
    "ParserError": ("desc", "code", "node_name", "node_operator"),
    "INetworkDefinition": ("num_outputs", "num_layers", "get_input"),
    "ITensor": ("name", "shape"),
}
"""What the library uses of the real modules, and the stand-in does not have."""


def load(name, path, monkeypatch):
    monkeypatch.syspath_prepend(str(STAND_IN))
    for known in [known for known in sys.modules if known.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, known)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for known in [known for known in sys.modules if known.partition(".")[0] == "cuda"]:
        del sys.modules[known]
    return module


def own_classes(module):
    found = inspect.getmembers(module, inspect.isclass)
    return {name: kind for name, kind in found if kind.__module__ == module.__name__ and not name.startswith("_")}


def arguments(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def arguments_in_words(doc):
    """Read argument names from the first line of a native function's documentation."""
    signature = re.search(r"\((.*?)\)(?: ->|$)", doc.strip().splitlines()[0])
    names = [part.split(":")[0].split("=")[0].split()[-1] for part in signature.group(1).split(",") if part.strip()]
    return [name for name in names if name != "self"]


def test_every_class_member_and_argument_of_the_stand_in_is_tensorrts(monkeypatch):
    fake = load("stand_in_tensorrt", STAND_IN / "tensorrt" / "__init__.py", monkeypatch)
    compared = 0
    for name, kind in own_classes(fake).items():
        real = getattr(trt, name)
        for member in vars(kind):
            if member.startswith("_") or (name, member) == ("ILogger", "Severity"):
                continue
            assert hasattr(real, member), f"TensorRT's {name} has no {member}"
            compared += 1
            function = getattr(kind, member)
            doc = getattr(real, member).__doc__ or ""
            if inspect.isfunction(function) and "Overloaded" not in doc:
                assert arguments(function) == arguments_in_words(doc), f"{name}.{member}"
    assert compared > 40


def test_instance_attributes_of_the_stand_in_are_tensorrts(monkeypatch):
    fake = load("stand_in_tensorrt", STAND_IN / "tensorrt" / "__init__.py", monkeypatch)
    config, runtime = fake.IBuilderConfig(), fake.Runtime(None)
    for given, real, own in (
        (config, trt.IBuilderConfig, {"profiles", "cache", "pools"}),
        (runtime, trt.Runtime, set()),
    ):
        for name in vars(given):
            assert name.startswith("_") or name in own or hasattr(real, name), name


def test_enum_values_used_are_tensorrts_own(monkeypatch):
    fake = load("stand_in_tensorrt", STAND_IN / "tensorrt" / "__init__.py", monkeypatch)
    for name, kind in own_classes(fake).items():
        if issubclass(kind, enum.Enum):
            assert set(kind.__members__) <= set(getattr(trt, name).__members__), name


def test_what_the_library_uses_beyond_the_stand_in_is_there():
    for name, members in ALWAYS_THERE.items():
        for member in members:
            assert hasattr(getattr(trt, name), member), f"{name}.{member}"


def test_every_function_and_argument_of_the_stand_in_is_cudas(monkeypatch):
    fake = load("stand_in_cuda", STAND_IN / "cuda" / "bindings" / "runtime.py", monkeypatch)
    functions = {name: f for name, f in inspect.getmembers(fake, inspect.isfunction) if not name.startswith("_")}
    assert len(functions) > 18
    for name in set(functions) - HELPERS:
        doc = getattr(cuda, name).__doc__
        assert arguments(functions[name]) == arguments_in_words(doc), name
    for name, kind in own_classes(fake).items():
        if issubclass(kind, enum.Enum):
            real = getattr(cuda, name)
            assert {m: int(v) for m, v in kind.__members__.items()} == {
                m: int(getattr(real, m)) for m in kind.__members__
            }, name
    assert {"name", "major", "minor"} <= set(dir(cuda.cudaDeviceProp))
