"""What a narrowed model costs, counted by running it once on the meta device."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ttl_deploy.models import truncation
from ttl_deploy.models.cost.sizes import count_bytes, count_params
from ttl_deploy.records.models import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCosts:
    """Parameters, multiply-accumulates for one image, and the size of the weights in single precision in bytes."""

    params: int
    macs: int
    weights_bytes: int


@torch.no_grad()
def count_costs(spec: ModelSpec) -> ModelCosts:
    """Count what a model costs, head included, by the same counter as the costs of cuts."""
    model = truncation.build_on_meta(spec).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, model.channels, spec.image_size, spec.image_size, device="meta"))
    return ModelCosts(params=count_params(model), macs=counter.get_total_flops() // 2, weights_bytes=count_bytes(model))
