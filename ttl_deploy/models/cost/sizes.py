"""How large a module is."""

from torch import Tensor, nn

_SINGLE_BYTES = 4


def count_params(part: nn.Module | Tensor) -> int:
    """Return the number of parameters, trainable or not; buffers do not count. A tensor is counted if it is one."""
    if isinstance(part, nn.Module):
        return sum(parameter.numel() for parameter in part.parameters())
    return part.numel() if isinstance(part, nn.Parameter) else 0


def count_bytes(part: nn.Module | Tensor) -> int:
    """Return the size of all floating-point parameters and buffers in single precision."""
    tensors = [*part.parameters(), *part.buffers()] if isinstance(part, nn.Module) else [part]
    return sum(_SINGLE_BYTES * tensor.numel() for tensor in tensors if tensor.is_floating_point())
