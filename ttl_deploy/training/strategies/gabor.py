"""Synthetic first convolution: Gabor filters, and everything above random (Raghu et al. 2019; papers' section 2.4).

Of the paper's filters it is known that they are grey, repeated over the channels, in two sets of
frequencies, half and half, with orientations in even steps. Size and shape of the waves are our own choice.
"""

import math

import torch
from torch import Tensor, nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models.places import find_places
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.training.strategies.full import FullFinetuning
from ttl_deploy.training.strategies.scratch import redraw_trunk

_SHORT_WAVES = 2.0  # waves over the kernel's side in the first half of the filters: 3.5 pixels at 7 x 7
_SHORTEST = 2.5  # pixels; a wave of 2 could not be told from its own negative
_LONGER = 2.0  # times as long in the second half
_SIGMA = 0.25  # of the kernel's side: the envelope has faded to a quarter at the kernel's edges
_ASPECT = 0.5  # gamma: the envelope is twice as long along the stripes, which sharpens the orientation
_PHASE = 0.0  # psi: a bright stripe in the middle


class Gabor(FullFinetuning):
    """Train everything; the first convolution begins as a bank of Gabor filters, the rest as with `scratch`.

    Each filter has mean 0, so that even brightness gives no response, and the same norm, that of an
    average filter in the network's own initialisation, so that the scale of the responses stays.
    """

    @torch.no_grad()
    def prepare(self, model: nn.Module, spec: ModelSpec) -> None:
        """Draw the trunk anew and put in the filters; raises `UsageError` for kernels smaller than 3 x 3."""
        redraw_trunk(model, spec)
        first = model.get_submodule(f"trunk.{_find_first_convolution(spec)}")
        assert isinstance(first, nn.Conv2d)
        height, width = first.kernel_size
        filters = draw_filters(first.out_channels, height=height, width=width)
        repeated = filters[:, None].expand_as(first.weight)  # (filters, channels, height, width)
        first.weight.copy_(repeated * (first.weight.norm() / repeated.norm()))


def draw_filters(count: int, *, height: int, width: int) -> Tensor:
    """Return Gabor filters `(count, height, width)` of mean 0 and norm 1; raises `UsageError` below 3 x 3 pixels.

    Filter `i` of a half of `n` varies along the direction `i · 180° / n`, counted from the x axis (to the
    right) to the y axis (downwards). The first half has the shorter waves.
    """
    side = min(height, width)
    if side < 3:
        raise UsageError(f"strategy gabor: a first convolution of {height} x {width} shows no orientation; 3 x 3 can")
    short = max(side / _SHORT_WAVES, _SHORTEST)
    halves = ((count - count // 2, short), (count // 2, _LONGER * short))
    waves = torch.tensor([wave for half, wave in halves for _ in range(half)])
    angles = torch.tensor([math.pi * step / half for half, _ in halves for step in range(half)])
    filters = gabor(_grid(height, width), wavelength=waves[:, None, None], angle=angles[:, None, None], side=side)
    filters = filters - filters.mean(dim=(1, 2), keepdim=True)
    return filters / filters.square().sum(dim=(1, 2), keepdim=True).sqrt()


def gabor(grid: tuple[Tensor, Tensor], *, wavelength: Tensor, angle: Tensor, side: int) -> Tensor:
    """Return `exp(-(x'² + γ²y'²) / 2σ²) · cos(2πx'/λ + ψ)`, with `x' = x cosθ + y sinθ`, `y' = -x sinθ + y cosθ`.

    Lengths are in pixels, angles in radians.
    """
    x, y = grid
    across = x * angle.cos() + y * angle.sin()
    along = y * angle.cos() - x * angle.sin()
    envelope = torch.exp(-(across.square() + (_ASPECT * along).square()) / (2 * (_SIGMA * side) ** 2))
    return envelope * torch.cos(2 * math.pi * across / wavelength + _PHASE)


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the x and y of each pixel, `(height, width)`, counted from the kernel's middle."""
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return x, y


def _find_first_convolution(spec: ModelSpec) -> str:
    symbolic = find_places(spec.backbone, spec.image_size)[0].measured.symbolic
    for node in symbolic.graph.nodes:
        if isinstance(symbolic.module(node), nn.Conv2d):
            return str(node.target)
    raise UsageError(f"strategy gabor: {spec.backbone} has no convolution to begin with")
