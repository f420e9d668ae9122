"""The machine's description, its graphics cards, and that the target's wing needs no torch."""

import platform
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import Machine
from ttl_deploy.records.hardware import Gpu
from ttl_deploy.runtime import machine
from ttl_deploy.runtime.gpus import NO_DRIVER, find_gpus
from ttl_deploy.runtime.jetson import read_jetson
from ttl_deploy.runtime.processor import examine_processor, explain_precision

from .boards import build_orin_nano

TARGETS = ("runtime.targets.onnxruntime_cpu", "runtime.targets.openvino_cpu")


def test_a_machine_is_described_in_full():
    described = machine.describe_machine(load_before=0.5, load_after=1.5)
    assert described.host == platform.node()
    assert described.processor
    assert 1 <= described.cores <= 4096
    assert 10**8 < described.memory_bytes < 10**14
    assert (described.load_before, described.load_after) == (0.5, 1.5)
    assert described.warnings == ()


def test_a_jetsons_state_before_and_after_is_part_of_it(tmp_path):
    before = read_jetson(build_orin_nano(tmp_path / "before", events=(0, 0, 2)))
    root = build_orin_nano(tmp_path / "after", events=(0, 0, 9))
    described = machine.describe_machine(load_before=0.0, load_after=0.0, jetson_before=before, root=root)
    assert described.jetson.power_mode == "25W (1)"
    assert described.jetson_before == before
    loose, throttled = described.warnings
    assert "not locked" in loose
    assert "meanwhile (7 of oc3" in throttled
    assert codec.from_builtins(Machine, codec.to_builtins(described)) == described


def test_versions_are_those_installed():
    found = machine.installed_versions(("onnxruntime", "no-such-package"))
    assert found["onnxruntime"] == version("onnxruntime")
    assert found["python"] == platform.python_version()
    assert found["no-such-package"] == "not installed"


def test_the_processor_has_the_instructions_that_the_kernel_names():
    flags = set(subprocess.run(["cat", "/proc/cpuinfo"], capture_output=True, text=True, check=True).stdout.split())
    found = examine_processor()
    assert set(found.instructions) <= flags
    assert not set(found.lacking) & flags
    summary = machine.summarise_machine()
    assert summary["instructions"] == (", ".join(found.instructions) or "unknown")
    assert summary["processor"] == found.name


CPUINFO = "processor\t: 0\nmodel name\t: A processor\nflags\t\t: fpu {}\n\nprocessor\t: 1\nflags\t\t: amx_int8\n"


@pytest.mark.parametrize(
    ("flags", "by"),
    [
        ("avx2", "slow: no instructions for it here"),
        ("avx2 avx_vnni", "by avx_vnni"),
        ("avx512_vnni amx_bf16 amx_int8", "by avx512_vnni, amx_int8"),
    ],
)
def test_the_processors_instructions_are_named_with_what_they_are_for(tmp_path, monkeypatch, flags, by):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO.format(flags))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    found = examine_processor(tmp_path)
    assert found.name == "A processor"
    assert list(found.instructions) == flags.split()
    assert ("amx_bf16" in found.lacking) == ("amx_bf16" not in flags)
    assert explain_precision("int8", found).by == by
    assert explain_precision("fp32", found).by == ""


def test_where_the_kernel_tells_nothing_no_precision_is_called_slow(tmp_path):
    found = examine_processor(tmp_path)
    assert (found.instructions, found.lacking) == ((), ())
    assert explain_precision("int8", found).by == ""


@pytest.mark.parametrize(
    ("printed", "cards"),
    [
        (
            "NVIDIA H200, 143771, 580.65.06, 9.0\nNVIDIA RTX 4090, 24564, 580.65.06, 8.9\n",
            ("NVIDIA H200", "NVIDIA RTX 4090"),
        ),
        ("Orin (nvgpu), [N/A], 540.4.0, [N/A]\n", ("Orin (nvgpu)",)),
        ("", ()),
        ("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.\n", ()),
    ],
)
def test_cards_are_read_from_nvidia_smi_without_nvml(monkeypatch, printed, cards):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found, note = find_gpus(ask=lambda command: printed, find_command=lambda name: f"/usr/bin/{name}")
    assert tuple(card.name for card in found) == cards
    assert bool(note) == (not cards)
    if len(cards) == 2:
        assert found[0].memory_bytes == 143771 * 2**20
        assert (found[1].driver, found[1].capability) == ("580.65.06", "8.9")


def test_without_a_driver_the_reason_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpus(find_command=lambda name: None) == ((), NO_DRIVER)


def test_cards_are_read_through_nvml(monkeypatch):
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetCudaComputeCapability=lambda handle: (9, 0),
        nvmlDeviceGetName=lambda handle: "NVIDIA H200",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=150_754_820_096),
        nvmlSystemGetDriverVersion=lambda: "580.65.06",
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    card = Gpu(name="NVIDIA H200", memory_bytes=150_754_820_096, driver="580.65.06", capability="9.0")
    assert find_gpus() == ((card,), "")


@pytest.mark.parametrize(
    "module",
    ["processes", "runtime.bench", "runtime.verify", "runtime.predict", "runtime.isolated_session", *TARGETS],
)
def test_the_runtime_works_where_the_training_extra_is_missing(module):
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'onnx', 'onnxscript', 'sklearn', 'plotly'): sys.modules[name] = None\n"
        f"import ttl_deploy.{module}\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
