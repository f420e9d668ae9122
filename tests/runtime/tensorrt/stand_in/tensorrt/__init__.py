"""Stands in for `tensorrt` where no GPU is: an engine is the ONNX file with its batch sizes, run by ONNX Runtime.

Names and arguments are those of the real interface, which a test compares. `STAND_IN_FAULT` makes it misbehave:
`returns-nothing` (deserialising, as without a driver), `crash` (there too), `builds-nothing`, `wrong-answers`, `hang`.
"""

import ctypes
import enum
import json
import os
import time

import numpy as np
import onnx
import onnxruntime
from cuda.bindings import runtime as cuda

__version__ = os.environ.get("STAND_IN_VERSION", "11.4.0.106")
_MAGIC = b"stand-in engine\n"
_FAULT = os.environ.get("STAND_IN_FAULT", "")
_NAMES = {1: "Float", 10: "Half", 3: "Int8", 2: "Int8"}


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3

    INTERNAL_ERROR, ERROR, WARNING, INFO = Severity

    def __init__(self):
        pass

    def log(self, severity, msg):
        raise NotImplementedError("the real ILogger is abstract too: a subclass logs")


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 7
    VERSION_COMPATIBLE = 15
    EXCLUDE_LEAN_RUNTIME = 16


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 2


class HardwareCompatibilityLevel(enum.IntEnum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.IntEnum):
    FLOAT = 0
    UINT8 = 5


class LayerInformationFormat(enum.IntEnum):
    ONELINE = 0
    JSON = 1


class _Tensor:
    def __init__(self, name, shape):
        self.name, self.shape = name, shape


class INetworkDefinition:
    def __init__(self, flags):
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED), "not strongly typed"
        self.content, self.inputs, self.num_outputs, self.num_layers = b"", [], 0, 0

    def get_input(self, index):
        return self.inputs[index]


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self.num_errors = network, 0

    def parse(self, model, path=None):
        try:
            session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001  # as the real parser: garbage is accepted and gives an empty network
            return True
        network = self._network
        network.content = bytes(model)
        network.inputs = [
            _Tensor(i.name, [s if isinstance(s, int) else -1 for s in i.shape]) for i in session.get_inputs()
        ]
        network.num_outputs, network.num_layers = 1, len(onnx.load_from_string(model).graph.node)
        return True

    def get_error(self, index):
        raise IndexError(index)


class IOptimizationProfile:
    def set_shape(self, input, min, opt, max):
        self.name, self.sizes = input, (min, opt, max)


class ITimingCache:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return self.content or b"timed: conv 1"


class IBuilderConfig:
    def __init__(self):
        self.flags, self.profiles, self.cache = {BuilderFlag.TF32}, [], None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.pools = {}

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool, pool_size):
        self.pools[pool] = pool_size

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return not cache.content.startswith(b"other GPU")

    def get_timing_cache(self):
        return self.cache


class Builder:
    def __init__(self, logger):
        self._logger = logger

    def create_network(self, flags=0):
        return INetworkDefinition(flags)

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        if _FAULT == "hang":
            time.sleep(60)
        if _FAULT == "builds-nothing":
            self._logger.log(ILogger.ERROR, "Error Code 2: OutOfMemory (no tactic fits)")
            return None
        self._logger.log(ILogger.WARNING, "a warning of the stand-in")
        detailed = config.profiling_verbosity == ProfilingVerbosity.DETAILED and BuilderFlag.TF32 not in config.flags
        header = {
            "sizes": config.profiles[0].sizes,
            "detailed": detailed,
            "flags": sorted(flag.name for flag in config.flags),
            "level": config.builder_optimization_level,
            "hardware": config.hardware_compatibility_level.name,
            "workspace": config.pools.get(MemoryPoolType.WORKSPACE),
        }
        return _MAGIC + json.dumps(header).encode() + b"\n" + network.content


class Runtime:
    def __init__(self, logger):
        self._logger, self.engine_host_code_allowed = logger, None

    def deserialize_cuda_engine(self, serialized_engine):
        if self.engine_host_code_allowed is not False or not serialized_engine.startswith(_MAGIC):
            raise AssertionError("an engine was deserialised that never should have been")
        if _FAULT == "crash":
            ctypes.string_at(0)
        if _FAULT == "returns-nothing":
            self._logger.log(ILogger.ERROR, "Cuda Runtime (cudaError 35: CUDA driver version is insufficient)")
            return None
        header, _, content = serialized_engine[len(_MAGIC) :].partition(b"\n")
        return ICudaEngine(json.loads(header), content)


class ICudaEngine:
    def __init__(self, header, content):
        self.header, self.model = header, onnx.load_from_string(content)
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self._tensors = {
            **{i.name: i for i in self.session.get_inputs()},
            **{o.name: o for o in self.session.get_outputs()},
        }
        self._inputs = {i.name for i in self.session.get_inputs()}
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return {"tensor(uint8)": DataType.UINT8, "tensor(float)": DataType.FLOAT}[self._tensors[name].type]

    def get_tensor_shape(self, name):
        return tuple(size if isinstance(size, int) else -1 for size in self._tensors[name].shape)

    def get_tensor_profile_shape(self, name, profile_index):
        return self.header["sizes"]

    def create_execution_context(self):
        return IExecutionContext(self)

    def create_engine_inspector(self):
        return EngineInspector(self)


class IExecutionContext:
    def __init__(self, engine):
        self._engine, self._addresses, self._shapes = engine, {}, {}

    def set_input_shape(self, name, shape):
        smallest, _, largest = self._engine.header["sizes"]
        self._shapes[name] = tuple(shape)
        return smallest[0] <= shape[0] <= largest[0] and tuple(shape[1:]) == tuple(largest[1:])

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        (source,) = self._shapes
        (target,) = set(self._addresses) - {source}
        shape, at, to = self._shapes[source], self._addresses[source], self._addresses[target]

        def work():
            images = np.frombuffer(ctypes.string_at(at, int(np.prod(shape))), np.uint8).reshape(shape)
            answers = np.ascontiguousarray(self._engine.session.run([target], {source: images})[0])
            if _FAULT == "wrong-answers":
                answers = answers[:, ::-1].copy()
            ctypes.memmove(to, answers.ctypes.data, answers.nbytes)

        cuda.enqueue(stream_handle, work)
        return True


class EngineInspector:
    def __init__(self, engine):
        self._engine = engine

    def get_engine_information(self, format):
        graph = self._engine.model.graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        types |= {n.output[0]: types.get(n.input[0], 1) for n in graph.node if n.op_type == "DequantizeLinear"}
        heavy = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
        if not self._engine.header["detailed"]:
            return json.dumps({"Layers": [node.name for node in heavy], "Bindings": []})
        layers = [
            {
                "Name": node.name,
                "LayerType": "CaskConvolution" if node.op_type == "Conv" else "MatrixMultiply",
                "Inputs": [{"Name": node.input[0], "Format/Datatype": "Row major linear FP32"}],
                "Weights": {"Type": _NAMES[types.get(node.input[1], 1)], "Count": 1},
            }
            for node in heavy
        ]
        return json.dumps({"Layers": [*layers, {"Name": "out", "LayerType": "Reformat"}], "Bindings": []})
