"""No telemetry: runtimes leave no id behind and call nobody when they are used through us."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

RUN = """
import sys
{first}
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {{"x": __import__("numpy").zeros((1, 3), "float32")}})
"""

IMPORT = """
import socket, sys
{first}

def refuse(*address, **options):
    print("somebody was called:", address)
    raise OSError("no network here")

socket.getaddrinfo = socket.socket.connect = refuse
import openvino, openvino.tools.ovc{more}
model = openvino.convert_model(sys.argv[1])
openvino.compile_model(model, "CPU").create_infer_request()
"""


def files_left(home: Path, model: Path, first: str, script: str = RUN, more: str = "") -> list[Path]:
    """Run a script with an empty home folder, and return the files that lie there afterwards."""
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    kept = {name: value for name, value in kept.items() if not name.startswith(("XDG_", "GITHUB", "PYTEST"))}
    command = [sys.executable, "-c", script.format(first=first, more=more), str(model)]
    child = subprocess.run(command, env=kept | {"HOME": str(home)}, check=True, capture_output=True, text=True)
    assert "somebody was called" not in child.stdout
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shape = ["batch", 3]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), model)
    return model


def test_running_a_model_leaves_nothing_in_the_home_folder(tmp_path: Path, model: Path) -> None:
    assert files_left(tmp_path / "ours", model, "import ttl_deploy") == []


def test_openvino_leaves_nothing_there_and_calls_nobody(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("openvino")
    assert files_left(tmp_path / "ours", model, "import ttl_deploy", IMPORT) == []


@pytest.mark.slow  # NNCF imports torch, scikit-learn and scipy
def test_nncf_leaves_nothing_there_and_calls_nobody(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("nncf")
    assert files_left(tmp_path / "ours", model, "import ttl_deploy", IMPORT, more=", nncf") == []


def test_without_us_openvino_does_leave_something(tmp_path: Path, model: Path) -> None:
    """The test above can fail: the same script leaves an id where we do not stand in the way."""
    pytest.importorskip("openvino")
    only_openvino = IMPORT.replace('print("somebody was called:", address)', "pass")
    assert files_left(tmp_path / "theirs", model, "", only_openvino)
