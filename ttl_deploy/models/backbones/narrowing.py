"""How the top of a torchvision network becomes narrower: everything above a unit, rebuilt with fewer channels.

A network is changed in place, before it has weights worth keeping; names stay its own. ResNets of bottlenecks
and DenseNets become narrower as in the code of Peng et al. (TTL), where the hybrid is called TF. For ResNets of
basic blocks and MobileNetV2 the same rules are carried over by us: no paper has them.
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
    """ResNets, cut after the stem or any block.

    Above it the inner widths are divided. A block with a 1 x 1 downsampling, which begins a stage, maps to divided
    channels; every other outputs the width of its own input, which its residual addition demands. So a stage that is
    cut in the middle keeps its outer width, and so does the first stage of ResNet-18 and -34, which has no
    downsampling. For their basic blocks, of two 3 x 3 convolutions, this is our generalisation.
    """

    classifier = "fc"

    def list_units(self, model: Any) -> tuple[str, ...]:
        """Return the cuts of which one can be kept, shallow to deep: the stem's, then each block."""
        return ("maxpool", *_blocks(model))

    def list_above(self, model: Any, keep: str) -> tuple[str, ...]:
        """Return the paths of what lies above a unit, the classification layer last."""
        units = self.list_units(model)
        return (*units[units.index(keep) + 1 :], self.classifier)

    def narrow(self, model: Any, above: Collection[str], factor: int) -> None:
        """Divide the widths of the blocks in `above`."""
        width = model.bn1.num_features
        for path in _blocks(model):
            block = model.get_submodule(path)
            if path in above:
                _narrow_block(block, width, factor)
            width = getattr(block, _convolutions(block)[-1]).out_channels
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


class MobileNetTop:
    """MobileNetV2, cut after the stem or any inverted residual; our generalisation, no paper has it.

    Above it inner (depthwise) and outer widths are divided, as in ResNets: a block without a residual addition, which
    begins a stage, maps to divided channels; every other outputs the width of its own input. So a stage that is cut in
    the middle keeps its outer width. The last 1 x 1 convolution is divided too. No residual addition comes or goes.
    """

    classifier = "classifier"

    def list_units(self, model: Any) -> tuple[str, ...]:
        """Return the cuts of which one can be kept, shallow to deep: all of `features`."""
        return tuple(_features(model))

    def list_above(self, model: Any, keep: str) -> tuple[str, ...]:
        """Return the paths of what lies above a unit, the classification layer last."""
        units = self.list_units(model)
        return (*units[units.index(keep) + 1 :], self.classifier)

    def narrow(self, model: Any, above: Collection[str], factor: int) -> None:
        """Divide the widths of the inverted residuals in `above`, and of the convolution after them."""
        *blocks, last = _features(model)
        width = model.features[0][0].out_channels
        for path in blocks[1:]:
            block = model.get_submodule(path)
            if path in above:
                _narrow_inverted_residual(block, width, factor)
            width = block.conv[-2].out_channels
        end = model.get_submodule(last)
        if last in above:
            _change(end, 0, _resize(end[0], width, end[0].out_channels // factor))
        model.classifier[-1] = nn.Linear(end[0].out_channels, model.classifier[-1].out_features)


def _blocks(model: nn.Module) -> list[str]:
    stages = ("layer1", "layer2", "layer3", "layer4")
    return [f"{stage}.{name}" for stage in stages for name, _ in model.get_submodule(stage).named_children()]


def _features(model: Any) -> list[str]:
    return [f"features.{name}" for name, _ in model.features.named_children()]


def _convolutions(block: nn.Module) -> list[str]:
    """Return the names of a block's convolutions in their order: three in a bottleneck, two in a basic block."""
    return sorted(name for name, _ in block.named_children() if name.startswith("conv"))


def _narrow_block(block: Any, inputs: int, factor: int) -> None:
    names = _convolutions(block)
    inner = block.conv1.out_channels // factor
    outputs = inputs if block.downsample is None else getattr(block, names[-1]).out_channels // factor
    widths = [inputs, *[inner] * (len(names) - 1), outputs]
    for name, before, after in zip(names, widths[:-1], widths[1:], strict=True):
        setattr(block, name, _resize(getattr(block, name), before, after))
        setattr(block, f"bn{name.removeprefix('conv')}", nn.BatchNorm2d(after))
    if block.downsample is not None:
        _change(block.downsample, 0, _resize(block.downsample[0], inputs, outputs))


def _narrow_inverted_residual(block: Any, inputs: int, factor: int) -> None:
    """Narrow a block's expansion (where it has one), depthwise convolution and projection."""
    *expansion, depthwise, project, _ = block.conv
    inner = depthwise[0].out_channels // factor if expansion else inputs
    outputs = inputs if block.use_res_connect else project.out_channels // factor
    if expansion:
        _change(expansion[0], 0, _resize(expansion[0][0], inputs, inner))
    _change(depthwise, 0, _resize(depthwise[0], inner, inner, groups=inner))
    _change(block.conv, len(block.conv) - 2, _resize(project, inner, outputs))


def _change(layers: Any, position: int, conv: nn.Conv2d) -> None:
    """Put a convolution into a sequence, and a BatchNorm of its width behind it, where there is one already."""
    layers[position], layers[position + 1] = conv, nn.BatchNorm2d(conv.out_channels)


def _narrow_dense_layer(layer: Any, inputs: int, factor: int) -> None:
    inner, growth = layer.conv1.out_channels // factor, layer.conv2.out_channels // factor
    layer.norm1, layer.conv1 = nn.BatchNorm2d(inputs), _resize(layer.conv1, inputs, inner)
    layer.norm2, layer.conv2 = nn.BatchNorm2d(inner), _resize(layer.conv2, inner, growth)


def _resize(conv: Any, inputs: int, outputs: int, *, groups: int = 1) -> nn.Conv2d:
    """Build a convolution like `conv`, which has no bias, between other numbers of channels."""
    return nn.Conv2d(
        inputs, outputs, conv.kernel_size, stride=conv.stride, padding=conv.padding, groups=groups, bias=False
    )
