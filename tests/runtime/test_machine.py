"""The machine's description, and that the target's wing needs no torch."""

import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from ttl_deploy import plugins
from ttl_deploy.errors import MissingExtraError
from ttl_deploy.processes import Crashed, TimedOut
from ttl_deploy.runtime import machine

TARGETS = ("runtime.targets.onnxruntime_cpu", "runtime.targets.openvino_cpu")


def test_a_machine_is_described_in_full():
    described = machine.describe_machine(load_before=0.5, load_after=1.5)
    assert described.host == platform.node()
    assert described.processor
    assert 1 <= described.cores <= 4096
    assert 10**8 < described.memory_bytes < 10**14
    assert (described.load_before, described.load_after) == (0.5, 1.5)


def test_versions_are_those_installed():
    found = machine.installed_versions(("onnxruntime", "no-such-package"))
    assert found["onnxruntime"] == version("onnxruntime")
    assert found["python"] == platform.python_version()
    assert found["no-such-package"] == "not installed"


def test_an_examination_says_which_targets_can_run_in_which_precision():
    found = machine.examine()
    assert found["targets"]["onnxruntime-cpu"].startswith(f"ready: onnxruntime {version('onnxruntime')}; fp32, int8 (")
    assert set(found["targets"]) == set(plugins.names("targets"))
    flags = set(subprocess.run(["cat", "/proc/cpuinfo"], capture_output=True, text=True, check=True).stdout.split())
    there, missing = (found["machine"][name].split(", ") for name in ("instructions", "instructions missing"))
    assert set(there) <= flags | {"unknown"}
    assert not set(missing) & flags


CPUINFO = "processor\t: 0\nmodel name\t: A processor\nflags\t\t: fpu {}\n\nprocessor\t: 1\nflags\t\t: amx_int8\n"


@pytest.mark.parametrize(
    ("flags", "int8"),
    [
        ("avx2", "int8 (slow: no instructions for it here)"),
        ("avx2 avx_vnni", "int8 (by avx_vnni)"),
        ("avx512_vnni amx_bf16 amx_int8", "int8 (by avx512_vnni, amx_int8)"),
    ],
)
def test_the_processors_instructions_are_named_with_what_they_are_for(tmp_path, monkeypatch, flags, int8):
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags))
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(plugins, "names", lambda table: ("onnxruntime-cpu",))
    found = machine.examine()
    assert found["machine"]["processor"] == "A processor"
    assert found["machine"]["instructions"].split(", ") == flags.split()
    assert "amx_bf16" in found["machine"]["instructions missing" if "amx_bf16" not in flags else "instructions"]
    assert found["targets"]["onnxruntime-cpu"].endswith(f"; fp32, {int8}")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (MissingExtraError("openvino", "target 'x'"), "target 'x' needs the extra [openvino]: pip install"),
        (Crashed(signal_number=11, exit_code=None, log_tail="a\nb"), "does not start: its process killed by signal 11"),
        (TimedOut(after_s=120), "gave no answer within 120 s. Install its runtime again"),
    ],
)
def test_a_target_that_does_not_start_is_told_with_what_to_do(monkeypatch, outcome, words):
    def survey(function, name, timeout_s):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(machine, "run_isolated", survey)
    assert words in machine.examine()["targets"]["onnxruntime-cpu"]


def test_a_missing_extra_is_told_with_the_command_that_adds_it(tmp_path, monkeypatch):
    (tmp_path / "openvino.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'openvino'\", name='openvino')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    told = machine.examine()["targets"]["openvino-cpu"]
    assert told == "target 'openvino-cpu' needs the extra [openvino]: pip install 'ttl-deploy[openvino]'"


@pytest.mark.parametrize(
    "module", ["processes", "runtime.bench", "runtime.verify", "runtime.predict", "runtime.isolated_session", *TARGETS]
)
def test_the_runtime_works_where_the_training_extra_is_missing(module):
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'onnx', 'onnxscript', 'sklearn', 'plotly'): sys.modules[name] = None\n"
        f"import ttl_deploy.{module}\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
