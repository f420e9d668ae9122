"""What tests ask of whole networks: shapes by name, and BatchNorms that do something."""

from collections.abc import Mapping

from torch import Tensor, nn

from ttl_deploy.models.backbones import build_meta_backbone

Shapes = dict[str, tuple[int, ...]]


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def state_of(backbone: str) -> Mapping[str, Tensor]:
    return build_meta_backbone(backbone, image_size=224).state_dict()


def shake_batch_norms(model: nn.Module) -> nn.Module:
    """Give the BatchNorms values that do something."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.3)
            nn.init.normal_(layer.bias, 0.0, 0.3)
            nn.init.normal_(layer.running_mean, 0.0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model.eval()
