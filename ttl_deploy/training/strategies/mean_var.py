"""Mean-Var initialisation: of the loaded weights only each tensor's mean and variance stay (Raghu et al. 2019)."""

import torch
from torch import nn

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.training.strategies.full import FullFinetuning

_NORMS = (
    *(nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)


class MeanVar(FullFinetuning):
    """Train everything from numbers drawn from `N(mean(W), var(W))`, independently, for each loaded tensor `W`.

    Per tensor, with the variance over its entries, follows a third-party implementation. That also draws
    the parameters and the running statistics of BatchNorm, where a drawn variance can be negative;
    here normalisation layers start anew: scale 1, shift 0, fresh statistics.
    """

    @torch.no_grad()
    def prepare(self, model: nn.Module, spec: ModelSpec) -> None:
        """Replace the trunk's weights; the head is random already."""
        for layer in model.get_submodule("trunk").modules():
            if isinstance(layer, _NORMS):
                layer.reset_parameters()
                continue
            for parameter in layer.parameters(recurse=False):
                variance, mean = torch.var_mean(parameter, correction=0)
                parameter.normal_(float(mean), float(variance.sqrt()))
