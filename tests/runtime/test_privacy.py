"""No telemetry: ONNX Runtime leaves no device id behind when it is used through us."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

RUN = """
import sys
{first}
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {{"x": __import__("numpy").zeros((1, 3), "float32")}})
"""


def files_left(home: Path, model: Path, first: str) -> list[Path]:
    """Run a model with an empty home folder, and return the files that lie there afterwards."""
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    kept = {name: value for name, value in kept.items() if not name.startswith(("XDG_", "GITHUB", "PYTEST"))}
    code = RUN.format(first=first)
    subprocess.run([sys.executable, "-c", code, str(model)], env=kept | {"HOME": str(home)}, check=True)
    return [path for path in home.rglob("*") if path.is_file()]


def test_running_a_model_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    shape = ["batch", 3]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), model)
    assert files_left(tmp_path / "ours", model, "import ttl_deploy") == []
