"""How the top of a torchvision network becomes narrower: everything above a unit, rebuilt with fewer channels.

A network is changed in place, before it has weights worth keeping; names stay its own. Both ways are
those of the code of Peng et al. (TTL), where the hybrid is called TF.
"""

from collections.abc import Collection
from typing import Any, Protocol

from torch import nn


class Top(Protocol):
    """One way to make the top of a network narrower; models are torchvision's, of one architecture."""

    classifier: str

    def list_units(self, model: Any) -> tuple[str, ...]:
        """Return the cuts of which one can be kept, shallow to deep."""
        ...

    def list_above(self, model: Any, keep: str) -> tuple[str, ...]:
        """Return the paths of what lies above a unit, the classification layer last."""
        ...

    def narrow(self, model: Any, above: Collection[str], factor: int) -> None:
        """Divide the widths in `above` by `factor`, which must divide them all."""
        ...


class ResNetTop:
    """ResNets of bottlenecks, cut after the stem or any bottleneck.

    Above it the inner widths are divided. A bottleneck that begins a stage there maps to divided
    channels with its 1 x 1 downsampling; every other outputs the width of its own input, which its
    residual addition demands. So a stage that is cut in the middle keeps its outer width.
    """

    classifier = "fc"

    def list_units(self, model: Any) -> tuple[str, ...]:
        """Return the cuts of which one can be kept, shallow to deep: the stem's, then each bottleneck."""
        return ("maxpool", *_bottlenecks(model))

    def list_above(self, model: Any, keep: str) -> tuple[str, ...]:
        """Return the paths of what lies above a unit, the classification layer last."""
        units = self.list_units(model)
        return (*units[units.index(keep) + 1 :], self.classifier)

    def narrow(self, model: Any, above: Collection[str], factor: int) -> None:
        """Divide the widths of the bottlenecks in `above`."""
        width = model.bn1.num_features
        for path in _bottlenecks(model):
            bottleneck = model.get_submodule(path)
            if path in above:
                _narrow_bottleneck(bottleneck, width, factor)
            width = bottleneck.conv3.out_channels
        model.fc = nn.Linear(width, model.fc.out_features)


class DenseNetTop:
    """DenseNets, cut after a transition (TTL's TF of DenseNet-201).

    In the dense blocks above it the growth is divided, and with it the inner width of their layers,
    which is four times the growth. Transitions halve what they are given, as everywhere.
    """

    classifier = "classifier"

    def list_units(self, model: Any) -> tuple[str, ...]:
        """Return the cuts of which one can be kept, shallow to deep: the transitions."""
        return tuple(path for path in _features(model) if path.startswith("features.transition"))

    def list_above(self, model: Any, keep: str) -> tuple[str, ...]:
        """Return the paths of what lies above a unit, the classification layer last."""
        paths = _features(model)
        return (*paths[paths.index(keep) + 1 :], self.classifier)

    def narrow(self, model: Any, above: Collection[str], factor: int) -> None:
        """Divide the growth in the dense blocks of `above`, and fit the layers between and after them."""
        width = model.features.conv0.out_channels
        for path in _features(model):
            part = model.get_submodule(path)
            if path.startswith("features.denseblock"):
                for layer in part.values():
                    if path in above:
                        _narrow_dense_layer(layer, width, factor)
                    width += layer.conv2.out_channels
            elif path.startswith("features.transition"):
                if path in above:
                    part.norm = nn.BatchNorm2d(width)
                    part.conv = _resize(part.conv, width, width // 2)
                width = part.conv.out_channels
        model.features.norm5 = nn.BatchNorm2d(width)
        model.classifier = nn.Linear(width, model.classifier.out_features)


def _bottlenecks(model: nn.Module) -> list[str]:
    stages = ("layer1", "layer2", "layer3", "layer4")
    return [f"{stage}.{name}" for stage in stages for name, _ in model.get_submodule(stage).named_children()]


def _features(model: Any) -> list[str]:
    return [f"features.{name}" for name, _ in model.features.named_children()]


def _narrow_bottleneck(bottleneck: Any, inputs: int, factor: int) -> None:
    inner = bottleneck.conv2.out_channels // factor
    outputs = inputs if bottleneck.downsample is None else bottleneck.conv3.out_channels // factor
    bottleneck.conv1, bottleneck.bn1 = _resize(bottleneck.conv1, inputs, inner), nn.BatchNorm2d(inner)
    bottleneck.conv2, bottleneck.bn2 = _resize(bottleneck.conv2, inner, inner), nn.BatchNorm2d(inner)
    bottleneck.conv3, bottleneck.bn3 = _resize(bottleneck.conv3, inner, outputs), nn.BatchNorm2d(outputs)
    if bottleneck.downsample is not None:
        bottleneck.downsample[0] = _resize(bottleneck.downsample[0], inputs, outputs)
        bottleneck.downsample[1] = nn.BatchNorm2d(outputs)


def _narrow_dense_layer(layer: Any, inputs: int, factor: int) -> None:
    inner, growth = layer.conv1.out_channels // factor, layer.conv2.out_channels // factor
    layer.norm1, layer.conv1 = nn.BatchNorm2d(inputs), _resize(layer.conv1, inputs, inner)
    layer.norm2, layer.conv2 = nn.BatchNorm2d(inner), _resize(layer.conv2, inner, growth)


def _resize(conv: Any, inputs: int, outputs: int) -> nn.Conv2d:
    """Build a convolution like `conv`, which has one group and no bias, between other numbers of channels."""
    return nn.Conv2d(inputs, outputs, conv.kernel_size, stride=conv.stride, padding=conv.padding, bias=False)
