"""The one place through which torchvision is imported.

The package registry's torchvision is built for CUDA. Beside a CPU-only torch its import dies with
`operator torchvision::nms does not exist`, although none of its models needs that operator.
"""

import importlib
import sys
from types import ModuleType

import torch

# A schema lives only as long as the Library object that declared it.
_LIBRARIES: list[torch.library.Library] = []
_DETECTION_OPERATORS = ("nms", "qnms")


def load_torchvision() -> ModuleType:
    """Import torchvision; beside a CPU-only torch, declare the operators that its import asks for.

    Needed once in every process, before anything else imports torchvision. Trying comes first:
    declaring the schemas before a working compiled extension would register them twice.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if torch.version.cuda is not None or "torchvision::nms" not in str(error):
            raise
    _forget_half_imported_package()
    _declare_detection_operators()
    return importlib.import_module("torchvision")


def _forget_half_imported_package() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_detection_operators() -> None:
    if _LIBRARIES:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call] # torch's own
    for name in _DETECTION_OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call] # torch's own
    _LIBRARIES.append(library)
