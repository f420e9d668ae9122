"""The moving average of a model's weights over the training's steps."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ttl_deploy.errors import UsageError


def average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return the exponential moving average of weights and buffers, so far a copy; None for a decay of 0.

    The first update copies the model, later ones keep `decay` of the average, which so spans about the
    last `1 / (1 - decay)` steps (Polyak and Juditsky 1992). Raises `UsageError` for a decay outside 0..1.
    """
    if not 0 <= decay < 1:
        raise UsageError(f"--ema {decay} is not a share: give 0 (off) or a number below 1, such as 0.99 or 0.999")
    if decay == 0:
        return None
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call] # torch's own
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
