"""One property over a table of architectures: a trunk is the full network up to its cut, bit for bit, and no more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from ttl_deploy.models.backbones import backbone_names, build_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.truncation import build
from ttl_deploy.records.models import FULL, ModelSpec

FAMILIES = {
    "AlexNet": ("alexnet",),
    "VGG": ("vgg11", "vgg13_bn"),
    "ResNet": ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"),
    "DenseNet": ("densenet121", "densenet201"),
    "GoogLeNet": ("googlenet",),
    "Inception": ("inception_v3",),
    "MobileNetV2": ("mobilenet_v2",),
    "MobileNetV3": ("mobilenet_v3_small", "mobilenet_v3_large"),
    "EfficientNet": ("efficientnet_b0", "efficientnet_b2", "efficientnet_v2_s"),
    "MNASNet": ("mnasnet0_5", "mnasnet1_3"),
    "ShuffleNet": ("shufflenet_v2_x0_5", "shufflenet_v2_x1_5"),
    "SqueezeNet": ("squeezenet1_0", "squeezenet1_1"),
    "RegNet": ("regnet_x_400mf", "regnet_y_400mf"),
    "ConvNeXt": ("convnext_tiny",),
    "ViT": ("vit_b_32",),
    "Swin": ("swin_t", "swin_v2_t"),
    "MaxViT": ("maxvit_t",),
    "CBR": ("cbr:tiny", "cbr:large-t"),
    "slim": (
        "slim:resnet50?keep=layer2.3",
        "slim:densenet121?keep=features.transition2",
        "slim:mobilenet_v2?keep=features.6",
    ),
    "timm": ("timm:resnet18", "timm:efficientnet_b0", "timm:vit_tiny_patch16_224"),
    "own": ("tests.contracts.own_network:branching", "tests.contracts.own_network:grey"),
}
NETWORKS = [network for networks in FAMILIES.values() for network in networks]
SIDE = {"inception_v3": 96, "maxvit_t": 224, "cbr:large-t": 224, "cbr:tiny": 96}
# Drawing their weights, or running them, takes many seconds.
LARGE = (
    *("alexnet", "vgg11", "vgg13_bn", "maxvit_t", "vit_b_32", "wide_resnet50_2", "densenet201", "cbr:large-t"),
    *("swin_v2_t", "efficientnet_v2_s", "efficientnet_b2", "resnext50_32x4d", "mnasnet1_3", "shufflenet_v2_x1_5"),
)


def side_of(network: str) -> int:
    return SIDE.get(network, 64)


def cuts_of(network: str) -> list[str]:
    return [cut.name for cut in list_cuts(network, image_size=side_of(network), classes=2) if cut.name != FULL]


def some_cuts_of(network: str) -> list[str]:
    cuts = cuts_of(network)
    return [cuts[0], cuts[len(cuts) // 2], cuts[2 * len(cuts) // 3], cuts[-1]]


def build_network(name: str) -> nn.Module:
    """Build the full network as its own library does, with normalisation layers that do something."""
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    if ":" not in name and not name.startswith("vit"):
        given = options if name in ("googlenet", "inception_v3") else {}
        model: nn.Module = load_torchvision().models.get_model(name, weights=None, **given)
    else:
        model = build_backbone(name, image_size=side_of(name))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.2)
            nn.init.normal_(layer.bias, 0.0, 0.2)
            nn.init.normal_(layer.running_mean, 0.0, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model


def images_for(network: str, channels: int) -> Tensor:
    return torch.randn(2, channels, side_of(network), side_of(network), generator=torch.Generator().manual_seed(1))


@dataclass
class Seen:
    """What a run of the full network holds at a cut, and the modules that had begun by then."""

    features: Tensor
    begun: frozenset[str]


def begun_by(owner: str, begun: frozenset[str], ever: frozenset[str]) -> bool:
    """Tell whether a module had begun; one that never does itself (Swin's `qkv`) is used by its parent."""
    return owner in begun if owner in ever else owner.rpartition(".")[0] in begun


def following_module(network: nn.Module, cut: str) -> str | None:
    """Name the module that is given what lies at a cut, where the cut is no module's output."""
    block, _, last = cut.rpartition(".")
    if last.startswith("denselayer"):
        return f"{block}.denselayer{int(last.removeprefix('denselayer')) + 1}"
    if last == "self_attention":  # torchvision's ViT, after the attention was added
        return f"{block}.ln_2"
    if last == "attn":  # Swin and timm's ViT likewise; Swin V2 normalises afterwards
        return f"{block}.mlp" if type(network.get_submodule(block)).__name__.endswith("V2") else f"{block}.norm2"
    # Cuts behind functional layers bear the name of what they follow.
    return {"conv_proj": "encoder.dropout", "stem": "first"}.get(cut) if is_functional(network) else None


def is_functional(network: nn.Module) -> bool:
    """Tell whether a network has functions between its first layers: torchvision's ViT, and our own one."""
    return type(network).__name__ in ("VisionTransformer", "_Branching")


@contextmanager
def watched(network: nn.Module, cuts: list[str], seen: dict[str, Seen]) -> Iterator[None]:
    """Note into `seen` what the network's own modules hold at each cut."""
    begun: set[str] = set()

    def note_begin(name: str) -> Callable[..., None]:
        return lambda *_: begun.add(name)

    def note(cut: str, value: Tensor | list[Tensor], without: str | None = None) -> None:
        tensor = torch.cat(value, 1) if isinstance(value, list | tuple) else value
        seen[cut] = Seen(tensor.detach().clone(), frozenset(begun - {without}))

    hooks = [module.register_forward_pre_hook(note_begin(name)) for name, module in network.named_modules()]
    for cut in cuts:
        following = following_module(network, cut)
        if following is None:
            after = lambda _, __, output, cut=cut: note(cut, output)  # noqa: E731 # a hook per cut
            hooks.append(network.get_submodule(cut).register_forward_hook(after))
        else:
            before = lambda _, given, cut=cut, name=following: note(cut, given[0], name)  # noqa: E731 # a hook per cut
            hooks.append(network.get_submodule(following).register_forward_pre_hook(before))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def run_network(network: nn.Module, cuts: list[str], images: Tensor, *, training: bool) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    with watched(network.train(training), cuts, seen), torch.no_grad():
        torch.manual_seed(2)
        network(images)
    return seen


def modules_that_run(network: nn.Module, images: Tensor) -> frozenset[str]:
    names: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: names.add(name))
        for name, module in network.named_modules()
    ]
    with torch.no_grad():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
    return frozenset(names)


def owners_with_state(network: nn.Module) -> set[str]:
    """Name the modules that hold parameters or buffers themselves."""
    return {name.rpartition(".")[0] for name in network.state_dict()}


def check_exact(name: str, cuts: list[str]) -> None:
    network = build_network(name)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    channels = build(ModelSpec(backbone=name, cut=cuts[0], classes=2, image_size=side_of(name))).channels
    images = images_for(name, channels)
    seen = {training: run_network(network, cuts, images, training=training) for training in (False, True)}
    ever = modules_that_run(network, images)
    for cut in cuts:
        model = build(ModelSpec(backbone=name, cut=cut, classes=2, image_size=side_of(name)))
        model.trunk.load_state_dict({key: state[key] for key in model.trunk.state_dict()})
        for training in (False, True):
            with torch.no_grad():
                torch.manual_seed(2)
                features = model.train(training).trunk(images)
            assert torch.equal(features, seen[training][cut].features), f"{name} {cut} training={training}"
        held, begun = owners_with_state(model.trunk), seen[False][cut].begun
        later = {owner for owner in held if not begun_by(owner, begun, ever)}
        assert not later, f"{name} {cut} holds what runs later: {later}"
        leaves = {module for module in begun if not list(network.get_submodule(module).children())}
        lacking = leaves & owners_with_state(network) - held
        assert not lacking, f"{name} {cut} lacks {lacking}"
        assert model(images).shape == (2, 2)


def test_the_table_holds_at_least_25_architectures_of_14_families() -> None:
    assert len(NETWORKS) >= 25
    assert len(FAMILIES) >= 14
    assert {name for name in NETWORKS if ":" not in name} <= set(backbone_names())


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in NETWORKS]
)
def test_some_trunks_are_exact(network: str) -> None:
    check_exact(network, some_cuts_of(network))


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_trunk_is_exact(network: str) -> None:
    check_exact(network, cuts_of(network))


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in NETWORKS]
)
def test_full_is_the_whole_network_with_its_own_pooling_and_classifier(network: str) -> None:
    """With as many classes as its own, all tensors fit, so the logits must be the network's."""
    original = build_network(network)
    own = {key: value.clone() for key, value in original.state_dict().items()}
    classes = {"tests.contracts.own_network:branching": 7, "tests.contracts.own_network:grey": 5}.get(network, 1000)
    model = build(ModelSpec(backbone=network, cut=FULL, classes=classes, image_size=side_of(network)))
    model.load_state_dict({key: own[key.partition(".")[2]] for key in model.state_dict()})
    assert len(model.state_dict()) == len(own)
    images = images_for(network, model.channels)
    for training in (False, True):
        with torch.no_grad():
            torch.manual_seed(2)
            expected = original.train(training)(images)
            torch.manual_seed(2)
            assert torch.equal(model.train(training)(images), expected)
