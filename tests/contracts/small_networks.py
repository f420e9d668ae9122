"""A small convolutional classifier as files in fp32, fp16 and int8, the last quantised by ONNX Runtime's own tools.

Recipes: quantize-dequantize pairs around convolutions and linear layers only, symmetric int8, a
scale per output channel ("TRT-style"); or every operator, concatenations included, which OpenVINO
2026.4.1 does not survive.
"""

import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ttl_deploy.export.half_precision import write_half

SIDE, CHANNELS = 32, 16


def noise(count, *, seed=3):
    """Draw noisy images `(count, 32, 32, 3)` of different colours."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 200, (count, 1, 1, 3))
    return (colours + rng.integers(0, 56, (count, SIDE, SIDE, 3))).astype(np.uint8)


def conv_files(folder: Path) -> dict[str, Path]:
    """Write the network in fp32, in fp16, and in int8 with its convolutions and linear layer quantised."""
    plain = folder / "fp32.onnx"
    onnx.save(_network(dense=False), plain)
    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    heavy = ["Conv", "Gemm", "MatMul"]
    small = _quantise(plain, folder / "int8.onnx", QuantType.QInt8, op_types_to_quantize=heavy, extra_options=options)
    write_half(plain, folder / "fp16.onnx")
    return {"fp32": plain, "fp16": folder / "fp16.onnx", "int8": small}


def quantised_dense_block(folder: Path) -> Path:
    """Write a block of three densely connected layers whose every operator is quantised."""
    plain = folder / "dense.onnx"
    onnx.save(_network(dense=True), plain)
    return _quantise(plain, folder / "dense-int8.onnx", QuantType.QUInt8)


class _Batches(CalibrationDataReader):
    def __init__(self):
        self._left = [{"image": image[None]} for image in noise(16, seed=4)]

    def get_next(self):
        return self._left.pop() if self._left else None


def _quantise(source, target, activation_type, **recipe):
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        quantize_static(
            source,
            target,
            _Batches(),
            quant_format=QuantFormat.QDQ,
            activation_type=activation_type,
            weight_type=QuantType.QInt8,
            per_channel=True,
            **recipe,
        )
    finally:
        logging.getLogger().setLevel(level)
    model = onnx.load(target)
    del model.opset_import[1:]  # the tool lists domains of which it uses no operator
    onnx.save(model, target)
    return target


class _Graph:
    """Nodes and weights, added one by one; each method returns the name of its output."""

    def __init__(self):
        self.rng, self.nodes, self.weights = np.random.default_rng(0), [], []

    def weight(self, values):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind, *inputs, output=None, **attributes):
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def conv(self, given, inside, outside, size):
        values = self.rng.normal(0, (2 / (inside * size * size)) ** 0.5, (outside, inside, size, size))
        return self.node("Conv", given, self.weight(values.astype(np.float32)), pads=[size // 2] * 4)

    def norm(self, given, channels):
        ones = np.ones(channels, np.float32)
        drawn = self.rng.uniform(0.5, 1.5, channels).astype(np.float32)
        parts = [self.weight(part) for part in (drawn, ones * 0.1, ones * 0.1, ones)]
        return self.node("Relu", self.node("BatchNormalization", given, *parts))


def _network(*, dense):
    graph = _Graph()
    pixels = graph.node("Transpose", graph.node("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    scaled = graph.node("Mul", pixels, graph.weight(np.array(1 / 255, np.float32)))
    features, channels = graph.conv(scaled, 3, CHANNELS, 3), CHANNELS
    for _ in range(3 if dense else 1):
        grown = graph.conv(graph.norm(features, channels), channels, CHANNELS, 3)
        features = graph.node("Concat", features, grown, axis=1) if dense else grown
        channels = channels + CHANNELS if dense else CHANNELS
    mean = graph.node("GlobalAveragePool", graph.norm(features, channels))
    weight = graph.weight(graph.rng.normal(0, 1, (channels, 3)).astype(np.float32))
    logits = graph.node("Gemm", graph.node("Flatten", mean), weight, graph.weight(np.zeros(3, np.float32)))
    graph.node("Softmax", logits, output="probabilities", axis=1)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    made = helper.make_graph(graph.nodes, "small", [image], [answer], graph.weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
