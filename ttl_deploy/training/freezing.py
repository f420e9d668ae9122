"""What is frozen: parameters without gradient, and whole modules in evaluation mode."""

from collections.abc import Collection, Iterator

from torch import nn


def freeze_all_but(model: nn.Module, names: Collection[str]) -> None:
    """Let only the named parameters take gradients; what lies below all of them needs no backward pass then."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        if name not in names:
            parameter.grad = None


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, but modules that are frozen as a whole into evaluation mode.

    So a frozen BatchNorm keeps its statistics, and dropout within a frozen part is off.
    """
    model.train()
    for module in _frozen_modules(model):
        module.eval()


def _frozen_modules(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            yield module
