"""One network with a head at every cut: each exit is the truncated model, bit for bit."""

import pytest
import torch

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.truncation import MultiExitModel, build, build_exits
from ttl_deploy.records.models import ModelSpec

SIDE = 64


def spec(backbone: str, exits: tuple[str, ...], cut: str | None = None) -> ModelSpec:
    return ModelSpec(
        backbone=backbone, cut=cut or exits[-1], classes=3, image_size=SIDE, pool="avgmax", dropout=0.3, exits=exits
    )


def three_exits(backbone: str, *, deepest: str) -> tuple[str, ...]:
    cuts = [cut.name for cut in list_cuts(backbone, image_size=SIDE, classes=3)]
    return (cuts[0], cuts[len(cuts) // 2], deepest)


def separate(network: MultiExitModel, whole: ModelSpec, cut: str) -> torch.nn.Module:
    alone = build(ModelSpec(backbone=whole.backbone, cut=cut, classes=3, image_size=SIDE, pool="avgmax", dropout=0.3))
    alone.load_state_dict(network.exit_state(cut, alone.state_dict()))
    return alone


@pytest.mark.parametrize("backbone", ["densenet121", "mobilenet_v2", "resnet18", "squeezenet1_1", "vgg11", "swin_t"])
def test_every_exit_returns_what_its_truncated_model_returns(backbone: str) -> None:
    whole = spec(backbone, three_exits(backbone, deepest="full"))
    torch.manual_seed(0)
    network = build_exits(whole).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (2, 3, 3)
        for number, cut in enumerate(whole.exits):
            assert torch.equal(logits[:, number], separate(network, whole, cut).eval()(images))


def test_nothing_past_the_deepest_exit_is_held() -> None:
    network = build_exits(spec("resnet18", ("layer1.0", "layer2.1")))
    assert not [name for name in network.state_dict() if name.startswith(("trunk.layer3", "trunk.fc"))]


def test_the_trunk_draws_the_weights_of_a_truncated_model_of_the_same_seed() -> None:
    torch.manual_seed(3)
    network = build_exits(spec("mobilenet_v2", ("features.4", "features.9")))
    torch.manual_seed(3)
    alone = build(ModelSpec(backbone="mobilenet_v2", cut="features.9", classes=3, image_size=SIDE))
    assert all(torch.equal(value, network.trunk.state_dict()[name]) for name, value in alone.trunk.state_dict().items())


def test_every_head_reaches_the_trunk_below_it_and_nothing_above() -> None:
    network = build_exits(spec("resnet18", ("layer1.0", "layer2.1", "full")))
    network(torch.randn(2, 3, SIDE, SIDE))[:, 0].sum().backward()
    reached = {
        name for name, parameter in network.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert "trunk.layer1.0.conv1.weight" in reached
    assert not [name for name in reached if name.startswith(("trunk.layer1.1", "trunk.layer2", "heads.1", "heads.2"))]


def test_exits_that_do_not_end_with_the_cut_or_are_unknown_are_refused() -> None:
    with pytest.raises(UsageError, match="must end with the cut layer3"):
        build_exits(spec("resnet18", ("layer1.0", "layer2.1"), cut="layer3.1"))
    with pytest.raises(UsageError, match=r"\(none\)"):
        build_exits(spec("resnet18", (), cut="layer3.1"))
    with pytest.raises(UnknownNameError, match="layer9"):
        build_exits(spec("resnet18", ("layer9", "layer2.1")))
