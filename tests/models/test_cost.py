"""Counters against torch's own, on modules that were not built here."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ttl_deploy.models.cost import count_macs, count_params


def odd_module() -> nn.Module:
    """Grouped, strided, dilated and non-square convolutions, and a linear layer that runs once per position."""
    return nn.Sequential(
        nn.Conv2d(6, 12, (3, 5), stride=2, groups=3),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 8, 3, dilation=2, padding=1, bias=False),
        nn.Flatten(2),
        nn.Linear(28, 10),
    )


def test_macs_are_half_of_torchs_flops() -> None:
    with FlopCounterMode(display=False) as counter:
        odd_module().eval()(torch.randn(2, 6, 20, 15))
    assert count_macs(odd_module(), (2, 6, 20, 15)) == counter.get_total_flops() // 2


def test_a_layer_that_runs_twice_counts_twice() -> None:
    layer = nn.Linear(5, 5)
    assert count_macs(nn.Sequential(layer, layer), (1, 5)) == 2 * count_macs(layer, (1, 5)) == 50


def test_counting_leaves_the_module_as_it_was() -> None:
    module = odd_module().train()
    module[1].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    count_macs(module, (1, 6, 20, 15))
    assert module.training
    assert not module[1].training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not module[0]._forward_hooks


def test_parameters_are_counted_and_buffers_are_not() -> None:
    assert count_params(nn.BatchNorm2d(4)) == 8
