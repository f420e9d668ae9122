"""OpenVINO's intermediate representation: made from ONNX files, given our metadata, quantised with accuracy control.

All functions are made to be called in a child process: OpenVINO has crashed on odd graphs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.export.graph import INPUT

_CONTROL_IMAGES = 100
_MAX_CHANGE = 0.005
"""Mean change of a probability, on training images, from which on NNCF turns layers back."""


def convert(source: Path, path: Path) -> None:
    """Write an ONNX file as `path` (XML) and the weights beside it, as they are: no halving to fp16."""
    import openvino

    openvino.save_model(openvino.Core().read_model(source), path, compress_to_fp16=False)


def stamp(source: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """Copy a model, with metadata that `ir_file.read_ir_facts` reads, to `path`."""
    import openvino

    model = openvino.Core().read_model(source)
    for key, value in metadata.items():
        model.set_rt_info(value, key)
    openvino.save_model(model, path, compress_to_fp16=False)


def quantise_with_control(source: Path, path: Path, images: NDArray[np.uint8]) -> None:
    """Quantise an ONNX file with NNCF, layers turned back to single precision until probabilities hold.

    `images` `(n, H, W, 3)` are training images. What is controlled is the mean absolute change of the probabilities
    on some of them: no held-out image is used, and no label is needed.
    """
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    items = [np.ascontiguousarray(image[None]) for image in images]
    control = items[:: max(1, len(items) // _CONTROL_IMAGES)]
    reference = _run(openvino.Core().compile_model(model, "CPU", _SINGLE), control)

    def closeness(compiled: Any, given: Iterable[NDArray[np.uint8]]) -> tuple[float, None]:
        return 1 - float(np.abs(_run(compiled, given) - reference).mean()), None

    quantised = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(items),
        nncf.Dataset(control),
        closeness,
        max_drop=_MAX_CHANGE,
        drop_type=nncf.DropType.ABSOLUTE,
        subset_size=len(items),
    )
    openvino.save_model(quantised, path, compress_to_fp16=False)


_SINGLE = {"INFERENCE_PRECISION_HINT": "f32"}


def _run(compiled: Any, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
    return np.concatenate([next(iter(compiled({INPUT: image}).values())) for image in images]).astype(np.float64)
