"""The machine's description, and that the target's wing needs no torch."""

import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from ttl_deploy import plugins
from ttl_deploy.errors import MissingExtraError
from ttl_deploy.runtime import machine


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


def test_an_examination_says_which_targets_can_run(monkeypatch):
    assert machine.examine()["targets"]["onnxruntime-cpu"] == "ready"

    def refuse(table, name):
        raise MissingExtraError("trt", "target 'x'")

    monkeypatch.setattr(plugins, "load", refuse)
    assert "pip install 'ttl-deploy[trt]'" in machine.examine()["targets"]["onnxruntime-cpu"]


@pytest.mark.parametrize(
    "module", ["processes", "runtime.bench", "runtime.verify", "runtime.predict", "runtime.targets.onnxruntime_cpu"]
)
def test_the_runtime_works_where_the_training_extra_is_missing(module):
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'onnx', 'onnxscript', 'sklearn', 'plotly'): sys.modules[name] = None\n"
        f"import ttl_deploy.{module}\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
