"""The last resort: NNCF's accuracy control on a small network, steered by probabilities on training images."""

import numpy as np
import pytest

from ttl_deploy.errors import GateError
from ttl_deploy.export import openvino_ir
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.runtime.inference import open_safely
from ttl_deploy.runtime.ir_file import read_ir_facts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_accuracy_control_gives_an_8_bit_file_that_stays_close(new_net, real_images, tmp_path):
    pytest.importorskip("nncf")
    write_onnx(make_deployable(new_net(), mean=MEAN, std=STD), tmp_path / "f.onnx", image_size=24, metadata={})
    done = run_isolated(
        openvino_ir.quantise_with_control,
        tmp_path / "f.onnx",
        tmp_path / "model.xml",
        real_images[:32],
        timeout_s=600,
    )
    value_of(done, error=GateError, doing="NNCF")
    assert read_ir_facts(tmp_path / "model.xml").weights.get("int8", 0) > 0
    lowered = open_safely("openvino-cpu", tmp_path / "model.xml", threads=1)
    single = open_safely("onnxruntime-cpu", tmp_path / "f.onnx", threads=1)
    difference = np.abs(lowered.run(real_images) - single.run(real_images))
    assert 0 < difference.mean() < 0.02
