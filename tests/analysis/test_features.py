"""Features at cuts against hooks on the network, and the networks that are compared."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from ttl_deploy.analysis import features, networks
from ttl_deploy.analysis.features import AtCut, Network
from ttl_deploy.analysis.layers import compare_layers
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.models import Cut, InputConvention, ModelSpec
from ttl_deploy.records.trials import TrainSettings, Trial
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.beginning import begin

CBR = "cbr:tiny?kernel=3&widths=8-12"
PLAIN = InputConvention(mean=(0.0,) * 3, std=(1.0,) * 3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> LabelledPixels:
    """30 images of noise, every second one of a longer array."""
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    return LabelledPixels(array=images, rows=np.arange(0, 60, 2), labels=np.zeros(30, dtype=np.int64))


def make_trial(cut: str = "full", **changed: object) -> Trial:
    spec = ModelSpec(backbone=CBR, cut=cut, classes=2, image_size=32)
    plain = {"strategy": "full", "seed": 3, "weights": "none", "input": PLAIN}
    return Trial(**{"model": spec, "train": TrainSettings(epochs=1), **plain, **changed})  # type: ignore[arg-type] # by name


def cuts_of(names: Sequence[str]) -> tuple[Cut, ...]:
    known = {cut.name: cut for cut in list_cuts(CBR, image_size=32, classes=2)}
    return tuple(known[name] for name in names)


def collect(network: Network, cuts: tuple[Cut, ...], data: LabelledPixels) -> dict[str, AtCut]:
    positions = {cut.name: features.draw_positions(cut, images=len(data), seed=0) for cut in cuts}
    found = features.collect_by_cut(
        {"one": network}, cuts, data, positions=positions, device=CPU, progress=lambda done, total: None
    )
    return {cut.name: by_network["one"] for cut, by_network in found}


def test_features_are_what_the_modules_return(data: LabelledPixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SAMPLES", 30 * 20)
    network = networks.build_random(make_trial(), 1)
    cuts = cuts_of(["unit1", "full"])
    caught: dict[str, torch.Tensor] = {}

    def catch(module: nn.Module, given: object, made: torch.Tensor) -> None:
        caught["unit1"] = made.detach().clone()

    layer = next(one for one in network.model.trunk.modules() if isinstance(one, nn.MaxPool2d))
    with torch.no_grad(), layer.register_forward_hook(catch):
        pictures = torch.from_numpy(data.array[data.rows]).permute(0, 3, 1, 2) / 255
        full = network.model.trunk(pictures)
    found = collect(network, cuts, data)
    chosen = features.draw_positions(cuts[0], images=30, seed=0)
    assert len(chosen) == 20 < cuts[0].height * cuts[0].width
    maps = caught["unit1"].flatten(2)[:, :, chosen].transpose(1, 2).reshape(-1, 8)
    torch.testing.assert_close(torch.from_numpy(found["unit1"].positions.copy()), maps)
    torch.testing.assert_close(torch.from_numpy(found["unit1"].pooled.copy()), caught["unit1"].mean(dim=(2, 3)))
    torch.testing.assert_close(torch.from_numpy(found["full"].pooled.copy()), full.detach())


def test_as_many_passes_as_memory_wants_give_the_same(data: LabelledPixels, monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.build_random(make_trial(), 1)
    cuts = cuts_of(["unit1", "unit2", "full"])
    at_once = collect(network, cuts, data)
    monkeypatch.setattr(features, "_MOST_NUMBERS", 1)
    for name, one in collect(network, cuts, data).items():
        np.testing.assert_array_equal(one.positions, at_once[name].positions)


def test_layouts_come_to_the_same_positions() -> None:
    maps = torch.randn(2, 3, 4, 5)  # N, C, H, W
    laid_out = features.lay_out(maps, "map")
    assert laid_out.shape == (2, 20, 3)
    assert torch.equal(laid_out[1, 7], maps[1, :, 1, 2])
    assert torch.equal(features.lay_out(maps.permute(0, 2, 3, 1), "map-last"), laid_out)
    assert torch.equal(features.lay_out(laid_out, "tokens"), laid_out)
    assert features.lay_out(maps[:, :, 0, 0], "map").shape == (2, 1, 3)


@pytest.mark.parametrize("strategy", ["full", "gabor"])
def test_a_start_is_what_the_trial_began_with(strategy: str) -> None:
    from ttl_deploy.training import devices
    from ttl_deploy.training.beginning import strategy_of

    trial = make_trial(strategy=strategy)
    devices.seed_epoch(trial.seed, 0)
    begun, _ = begin(trial, warm=False, start=None)
    strategy_of(trial).prepare(begun, trial.model)
    found = networks.build_start(trial).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in begun.state_dict().items())


def test_a_network_is_like_itself_and_a_changed_one_less_from_where_it_was_changed(data: LabelledPixels) -> None:
    first, second = (networks.build_random(make_trial(), 1) for _ in range(2))
    changed = dict(second.model.trunk.named_parameters())
    last = [name for name, value in changed.items() if value.ndim == 4][-1]
    with torch.no_grad():
        changed[last].normal_()
    cuts = cuts_of(["unit1", "unit2"])
    positions = {cut.name: features.draw_positions(cut, images=len(data), seed=0) for cut in cuts}
    found = compare_layers(
        {"one": first, "two": second},
        {"random-random": ("one", "one"), "full-random": ("one", "two")},
        cuts,
        data,
        positions=positions,
        device=CPU,
        progress=lambda done, total: None,
    )
    same, other = found[:2], found[2:]
    assert [one.svcca for one in same] == pytest.approx([1, 1])
    assert [one.cka for one in same] == pytest.approx([1, 1])
    assert other[0].svcca == pytest.approx(1)
    assert other[1].svcca is not None
    assert other[1].svcca < 0.95
    assert other[1].cka is not None
    assert other[1].cka < 0.95
    assert other[1].svcca_noise is not None
    assert other[1].svcca_noise < other[1].svcca
