"""Structures without memory: parameters and buffers on torch's meta device."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class ParametersOnMeta(TorchFunctionMode):
    """Create parameters and buffers on the meta device.

    `torch.device("meta")` would also move the tensors with which RegNet computes its widths.
    """

    _FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self._FACTORIES:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
