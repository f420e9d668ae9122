"""How strongly each parameter wants to move: its gradient's norm relative to its own."""

from collections.abc import Callable, Collection, Iterable

from torch import Tensor, nn

GRADIENT_BATCHES = 5
"""On how many mini-batches the norms are measured, as in Lee et al. 2023."""


def relative_gradient_norms(
    model: nn.Module,
    names: Collection[str],
    losses: Iterable[Callable[[], Tensor]],
) -> dict[str, float]:
    """Return `mean over the losses of ‖d loss / d w‖ / ‖w‖`, L2 norms, for each named parameter.

    A parameter that is all zero has no relative norm; it counts as 0 and so does not move. Leaves no
    gradient behind.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in names}
    sums = dict.fromkeys(parameters, 0.0)
    count = 0
    for loss in losses:
        model.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call] # torch's own
        for name, parameter in parameters.items():
            size = float(parameter.detach().norm())
            if parameter.grad is not None and size > 0:
                sums[name] += float(parameter.grad.norm()) / size
        count += 1
    model.zero_grad(set_to_none=True)
    return {name: total / max(count, 1) for name, total in sums.items()}
