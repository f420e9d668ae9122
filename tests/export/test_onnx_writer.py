"""The written file against torch itself, and against everything that must not be in it."""

import getpass
import platform
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import ttl_deploy
from ttl_deploy.errors import GateError
from ttl_deploy.export import onnx_writer
from ttl_deploy.export.onnx_writer import Deployable, export_for_timing, make_deployable, write_onnx
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 24


@pytest.fixture(scope="module")
def written(new_net, tmp_path_factory):
    """One export for the whole file: the exporter takes seconds."""
    net = new_net()
    path = tmp_path_factory.mktemp("written") / "model.onnx"
    deployable = make_deployable(net, mean=MEAN, std=STD)
    write_onnx(deployable, path, image_size=SIDE, metadata={"ttl_deploy": "{}", "classes": '["a"]'})
    return path, net


def expected(net, normalise, images):
    with torch.inference_mode():
        return torch.softmax(net.eval()(normalise(images)), dim=1).numpy()


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_the_file_computes_what_training_computed(written, normalise, real_images, batch):
    path, net = written
    images = real_images[:batch]
    given = OnnxRuntimeCpu().open(path, threads=1).run(images)
    np.testing.assert_allclose(given, expected(net, normalise, images), atol=1e-5)
    assert np.ptp(given, axis=0).max() > 0.01 or batch == 1


def test_the_file_is_one_valid_onnx_of_opset_18_with_a_free_batch_only(written):
    path, _ = written
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.ir_version == 10
    (entry,), (out,) = onnxruntime.InferenceSession(path).get_inputs(), onnxruntime.InferenceSession(path).get_outputs()
    assert (entry.name, entry.type, entry.shape) == ("image", "tensor(uint8)", ["batch", SIDE, SIDE, 3])
    assert (out.name, out.type, out.shape) == ("probabilities", "tensor(float)", ["batch", 3])


def test_the_metadata_come_back_through_onnx_runtime_and_through_our_reader(written):
    path, _ = written
    told = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert told == read_onnx_facts(path).metadata == {"ttl_deploy": "{}", "classes": '["a"]'}


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(written):
    content = written[0].read_bytes()
    here = str(Path(ttl_deploy.__file__).parents[1])
    for secret in (platform.node(), getpass.getuser(), here, sys.prefix, "site-packages", ".py", 'File "'):
        assert len(secret) < 4 or secret.encode() not in content, secret
    assert not re.search(rb"/(home|root|tmp|usr)/", content)


def test_preprocessing_is_one_multiplication_and_one_addition(written):
    graph = onnx.load(written[0]).graph
    operations = [node.op_type for node in graph.node]
    first = operations.index("Cast")
    assert operations[first : first + 5] == ["Cast", "Transpose", "Mul", "Add", "Conv"]
    assert "Div" not in operations
    assert operations.count("BatchNormalization") <= 1  # the one in front of a convolution was folded


def test_a_temperature_divides_the_logits_inside_the_file(written, new_net, normalise, real_images, tmp_path):
    net = new_net()
    deployable = make_deployable(net, mean=MEAN, std=STD, temperature=2.5)
    write_onnx(deployable, tmp_path / "model.onnx", image_size=SIDE, metadata={})
    with torch.inference_mode():
        logits = net.eval()(normalise(real_images))
    given = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["probabilities"], {"image": real_images})[0]
    np.testing.assert_allclose(given, torch.softmax(logits / 2.5, dim=1).numpy(), atol=1e-5)
    assert np.abs(given - torch.softmax(logits, dim=1).numpy()).max() > 0.1
    graph, before = onnx.load(tmp_path / "model.onnx").graph, onnx.load(written[0]).graph
    (last,) = [node for node in graph.node if node.op_type == "Softmax"]
    (scaling,) = [node for node in graph.node if last.input[0] in node.output]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    factors = [float(constants[name]) for name in scaling.input if name in constants]
    assert (scaling.op_type, factors) == ("Mul", [pytest.approx(1 / 2.5)])
    assert len(graph.node) == len(before.node) + 1


def test_exporting_twice_gives_the_same_bytes(written, new_net, tmp_path):
    deployable = make_deployable(new_net(), mean=MEAN, std=STD, temperature=1.0)
    write_onnx(deployable, tmp_path / "again.onnx", image_size=SIDE, metadata={"ttl_deploy": "{}", "classes": '["a"]'})
    assert (tmp_path / "again.onnx").read_bytes() == written[0].read_bytes()


def test_the_model_itself_stays_as_it_was(net):
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    deployable = make_deployable(net.to(torch.float64).to(memory_format=torch.channels_last), mean=MEAN, std=STD)
    assert net.training
    assert not deployable.training
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float64}
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value.to(before[name].dtype), before[name]) for name, value in net.state_dict().items())
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in deployable.parameters())


def test_every_pixel_value_is_normalised_to_the_last_digits(normalise):
    images = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None, None], 3, axis=3)
    deployable = Deployable(nn.Identity(), mean=MEAN, std=STD)
    given = torch.from_numpy(images).permute(0, 3, 1, 2).float() * deployable.scale + deployable.shift
    torch.testing.assert_close(given, normalise(images), atol=1e-6, rtol=0)


def test_the_file_for_timing_computes_the_same(written, new_net, real_images, tmp_path):
    export_for_timing(new_net(), SIDE, tmp_path / "timing.onnx")
    shipped = OnnxRuntimeCpu().open(written[0], threads=1).run(real_images)
    timing = OnnxRuntimeCpu().open(tmp_path / "timing.onnx", threads=1).run(real_images)
    np.testing.assert_allclose(timing, shipped, atol=1e-5)


def test_pooling_that_the_older_exporter_refuses_can_be_timed_and_prints_nothing(
    real_images, normalise, tmp_path, capfd
):
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(3 * 49, 2))
    export_for_timing(pooled, SIDE, tmp_path / "timing.onnx")
    given = OnnxRuntimeCpu().open(tmp_path / "timing.onnx", threads=1).run(real_images)
    np.testing.assert_allclose(given, expected(pooled, normalise, real_images), atol=1e-5)
    assert "graph(" not in capfd.readouterr().out


class Stubborn(nn.Module):
    """Decides by the pixels' values, which no graph can hold."""

    def forward(self, x):
        return x.mean((2, 3)) if x.sum().item() > 0 else x.amax((2, 3))


def test_a_network_that_cannot_be_exported_is_a_gate_error_and_leaves_nothing(tmp_path):
    deployable = make_deployable(Stubborn(), mean=MEAN, std=STD)
    with pytest.raises(GateError, match=r"torch cannot export this model.*data-dependent") as caught:
        write_onnx(deployable, tmp_path / "model.onnx", image_size=SIDE, metadata={})
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


INTERRUPTED = """
import contextlib, os, signal, sys, time
from pathlib import Path
from torch import nn
from ttl_deploy.errors import RunInterruptedError
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx

class Interrupting(nn.Module):
    def forward(self, x):
        # Goes on after it, as torch's exporter does after any exception.
        with contextlib.suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        return x.mean((2, 3))

def interrupt(number, frame):
    raise RunInterruptedError("interrupted", signal_number=number)

signal.signal(signal.SIGTERM, interrupt)
deployable = make_deployable(Interrupting(), mean=(0.5,) * 3, std=(0.5,) * 3)
try:
    write_onnx(deployable, Path(sys.argv[1]), image_size=24, metadata={})
except RunInterruptedError:
    assert signal.getsignal(signal.SIGTERM) is interrupt
    print("interrupted")
"""


def test_an_interruption_that_the_exporter_swallows_still_ends_it(tmp_path):
    # In a process of its own: a signal that comes late would end this one.
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "interrupted", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_warnings_settings_and_loggers_are_left_as_they_were(net, tmp_path):
    filters = list(warnings.filters)
    export_for_timing(net, SIDE, tmp_path / "timing.onnx")
    assert warnings.filters == filters


def change(model, how):
    how(model)
    return model


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda m: setattr(m.opset_import[0], "version", 17), "other operator sets"),
        (lambda m: m.opset_import.add(domain="com.x", version=1), "other operator sets"),
        (lambda m: setattr(m.graph.node[3], "op_type", "NoSuchOperator"), "ONNX checker refuses"),
        (lambda m: m.graph.initializer[0].external_data.add(key="location", value="x"), "another file"),
    ],
)
def test_anything_else_than_asked_for_is_refused(written, monkeypatch, tmp_path, how, message):
    wrong = change(onnx.load(written[0]), how)
    monkeypatch.setattr(onnx_writer, "_export", lambda deployable, image_size: wrong)
    with pytest.raises(GateError, match=message):
        write_onnx(written[1], tmp_path / "model.onnx", image_size=SIDE, metadata={})
    assert list(tmp_path.iterdir()) == []
