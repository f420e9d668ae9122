"""Heads against torch's own poolings and a formula written out."""

from typing import get_args

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ttl_deploy.errors import UsageError
from ttl_deploy.models.cost.sizes import count_params
from ttl_deploy.models.heads import Head, count_pooled
from ttl_deploy.records.models import Pool

FEATURES = (6, 5, 4)


def features() -> torch.Tensor:
    return torch.rand(3, *FEATURES, generator=torch.Generator().manual_seed(0)) - 0.3


def pooled(pool: Pool) -> torch.Tensor:
    return Head(FEATURES, 2, pool=pool).pool(features())


def test_average_and_maximum_agree_with_torchs_adaptive_poolings() -> None:
    average = functional.adaptive_avg_pool2d(features(), 1).flatten(1)
    largest = functional.adaptive_max_pool2d(features(), 1).flatten(1)
    torch.testing.assert_close(pooled("avg"), average)
    torch.testing.assert_close(pooled("max"), largest)
    torch.testing.assert_close(pooled("avgmax"), torch.cat([average, largest], 1))


def test_the_generalised_mean_is_the_root_of_the_mean_of_powers() -> None:
    positive = features().clamp(min=1e-6).double()
    expected = ((positive**3).sum((2, 3)) / 20) ** (1 / 3)
    torch.testing.assert_close(pooled("gem").double(), expected, rtol=1e-5, atol=1e-7)


def test_the_exponent_of_the_generalised_mean_learns() -> None:
    head = Head(FEATURES, 2, pool="gem")
    head(features()).sum().backward()
    assert head.pool.exponent.grad.abs() > 0


def test_the_generalised_mean_survives_half_precision() -> None:
    head = Head(FEATURES, 2, pool="gem")
    dark = torch.full((1, *FEATURES), -1.0, dtype=torch.float16, requires_grad=True)
    head.pool(dark).sum().backward()
    assert head.pool(dark).dtype == torch.float16
    assert torch.isfinite(head.pool.exponent.grad)


@pytest.mark.parametrize("pool", get_args(Pool))
def test_every_pooling_gives_logits_of_the_announced_size(pool: Pool) -> None:
    head = Head(FEATURES, 7, pool=pool, dropout=0.2, normalised=False)
    assert head(features()).shape == (3, 7)
    assert head.linear.in_features == count_pooled(FEATURES, pool) == pooled(pool).shape[1]
    with FlopCounterMode(display=False) as counter:
        head(features()[:1])
    assert counter.get_total_flops() == 2 * 7 * count_pooled(FEATURES, pool)


def test_batch_norm_and_relu_cost_two_parameters_per_channel() -> None:
    assert count_params(Head(FEATURES, 2, normalised=False)) - count_params(Head(FEATURES, 2)) == 2 * FEATURES[0]


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown pooling 'mean': choose one of avg, max"):
        Head(FEATURES, 2, pool="mean")  # type: ignore[arg-type] # what is tested


@pytest.mark.parametrize("pool", get_args(Pool))
def test_features_of_a_transformer_are_pooled_like_the_same_map(pool: Pool) -> None:
    torch.manual_seed(0)
    head = Head(FEATURES, 2, pool=pool)
    last = Head(FEATURES, 2, pool=pool, layout="map-last")
    tokens = Head((6, 20, 1), 2, pool=pool, layout="tokens")
    for other in (last, tokens):
        other.load_state_dict(head.state_dict())
    given = features()
    torch.testing.assert_close(last(given.permute(0, 2, 3, 1)), head(given))
    torch.testing.assert_close(tokens(given.flatten(2).permute(0, 2, 1)), head(given))


def test_unnormalised_features_of_a_transformer_get_its_own_kind_of_norm() -> None:
    tokens = Head((6, 20, 1), 2, layout="tokens", normalised=False)
    assert tokens.norm.normalized_shape == (6,)
    assert tokens(torch.randn(3, 20, 6)).shape == (3, 2)
