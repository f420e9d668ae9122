"""How large a module is, counted by hand."""

import torch
from torch import nn

from ttl_deploy.models.cost.sizes import count_bytes, count_params


def test_parameters_are_counted_and_buffers_are_not() -> None:
    assert count_params(nn.BatchNorm2d(4)) == 8
    assert count_params(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))) == 3 * 2 + 2 + 4


def test_a_single_tensor_counts_only_if_it_is_learned() -> None:
    assert count_params(nn.Parameter(torch.zeros(5, 2))) == 10
    assert count_params(torch.zeros(5, 2)) == 0


def test_bytes_are_those_of_parameters_and_statistics_but_not_of_counters() -> None:
    assert count_bytes(nn.BatchNorm2d(4)) == 4 * (4 + 4 + 4 + 4)
    assert count_bytes(nn.BatchNorm2d(4).half()) == 4 * 16
    assert count_bytes(torch.zeros(5)) == 20
