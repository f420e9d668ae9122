"""What an engine's layers are computed in, read back from TensorRT's engine inspector."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

_HEAVY = re.compile(r"conv|gemm|matmul|matrixmultiply|matrix_multiply|fullyconnected|linear", re.I)
_MOVES_ONLY = re.compile(r"reformat|reshape|shuffle|quantize|copy|cast|constant|noop|pool", re.I)
_LINEAR_LAYOUT = re.compile(r"row[ -]major linear|linear format", re.I)
_TYPES = (
    ("int8", re.compile(r"\bint8\b", re.I)),
    ("bf16", re.compile(r"\bbf(loat)?16\b", re.I)),
    ("fp16", re.compile(r"\b(half|fp16|float16)\b", re.I)),
    ("fp32", re.compile(r"\b(float|fp32|float32)\b", re.I)),
)


def executed_layers(report: str) -> dict[str, int]:
    """Count an engine's convolutions and matrix products by the type of their weights, or else of what they read.

    `report` is the inspector's JSON of an engine that was built with detailed verbosity. Layers that are named only,
    or whose type is not told, are not counted.
    """
    try:
        layers = json.loads(report).get("Layers", [])
    except (json.JSONDecodeError, AttributeError):
        return {}
    described = [layer for layer in layers if isinstance(layer, dict)]
    found = [_type_of(layer) for layer in described if _is_heavy(layer)]
    return dict(Counter(kind for kind in found if kind))


def _is_heavy(layer: Mapping[str, Any]) -> bool:
    kind = str(layer.get("LayerType", ""))
    told = " ".join(str(layer.get(key, "")) for key in ("LayerType", "ParameterType", "Metadata", "Name"))
    return bool(_HEAVY.search(_LINEAR_LAYOUT.sub("", told))) and not _MOVES_ONLY.search(kind)


def _type_of(layer: Mapping[str, Any]) -> str:
    weights = layer.get("Weights")
    told = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    inputs = layer.get("Inputs")
    if isinstance(inputs, list):
        told += [str(one.get("Format/Datatype", one.get("DataType", ""))) for one in inputs if isinstance(one, dict)]
    return next((name for text in told for name, pattern in _TYPES if pattern.search(text)), "")
