"""How large a module is and how much it computes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ttl_deploy.models.graph import layer_macs


def count_params(module: nn.Module) -> int:
    """Return the number of parameters, trainable or not; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the multiply-accumulates of the convolutions and linear layers for one input of this shape.

    Counts each call of an `nn.Conv2d` or `nn.Linear` in eval mode, without computing anything.
    """
    counts: list[int] = []

    def count(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        counts.append(layer_macs(layer, tuple(output.shape)))

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    modes = {part: part.training for part in module.modules()}
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    try:
        on_meta = {name: tensor.to("meta") for name, tensor in state.items()}
        functional_call(module.eval(), on_meta, (torch.empty(input_shape, device="meta"),))
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in modes.items():
            part.training = training
    return sum(counts)
