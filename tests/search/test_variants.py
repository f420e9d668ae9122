"""Variants: their names, which are tried of what, their costs, and what their trials need."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models import truncation
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import SearchSettings, Trial
from ttl_deploy.records.variants import Variant, base_cut, is_variant
from ttl_deploy.search import variants
from ttl_deploy.search.costs import epoch_macs
from ttl_deploy.search.policies import Proposal
from ttl_deploy.search.profile_key import ProfilePlan, latency_keys
from ttl_deploy.search.waves import plan_trials

BASE = Candidate("layer1.1", "full")
MakeTrial = Callable[..., Trial]


def settings(**changes: object) -> SearchSettings:
    given = {"backbone": "resnet18", "data": "x", "decode": DecodeSettings(image_size=64)} | changes
    return SearchSettings(**given)  # type: ignore[arg-type] # keyword arguments of mixed types


def test_names_tell_what_is_other_and_lead_back_to_the_cut() -> None:
    both = Variant(of=BASE, image_size=48, width=0.5)
    assert both.cut == "layer1.1@48px@w0.5"
    assert both.candidate == Candidate("layer1.1@48px@w0.5", "full")
    assert both.at_full_width.cut == "layer1.1@48px"
    assert base_cut(both.cut) == "layer1.1"
    assert is_variant(both.cut)
    assert not is_variant("layer1.1")
    assert Variant(of=BASE).is_candidate


def test_every_size_is_tried_at_every_width_but_not_the_candidate_itself() -> None:
    found = [one.cut for one in variants.list_variants(BASE, sizes=(48, 32), widths=(0.5,))]
    assert found == [
        *("layer1.1@w0.5", "layer1.1@48px", "layer1.1@48px@w0.5", "layer1.1@32px", "layer1.1@32px@w0.5"),
    ]
    assert variants.most_variants(settings(image_sizes=(48, 32), widths=(0.5,), seeds=(0, 1))) == 2 * 5 * 2
    assert variants.most_variants(settings()) == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image_sizes": (64,)}, "image_size: 64, 64 has one twice"),
        ({"image_sizes": (128,)}, "the largest, 64, is the search's own"),
        ({"widths": (1.5,)}, r"width 1\.5: give shares"),
        ({"widths": (0.5, 0.5)}, "twice"),
        ({"speedups": (0.5,)}, r"speedup 0\.5: give how many times"),
        ({"speedups": (2.0,), "skip": ("profile",)}, "no speed-up can be measured"),
    ],
)
def test_axes_that_cannot_be_are_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(**changes)


def test_networks_that_cannot_vary_are_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match=r"vit_b_16 cannot be narrowed"):
        variants.check_variants(settings(backbone="vit_b_16", widths=(0.5,), decode=DecodeSettings(image_size=32)))
    with pytest.raises(UsageError, match=r"cbr:small cannot take images of 64 x 64"):
        variants.check_variants(
            settings(backbone="cbr:small", image_sizes=(64,), decode=DecodeSettings(image_size=128))
        )


def count_by_hand(model: nn.Module, images: Tensor) -> int:
    """Count the products of convolutions and linear layers, from the shapes of what they really make."""
    found: list[int] = []

    def note(layer: nn.Module, _: object, made: Tensor) -> None:
        found.append(made.numel() // len(images) * layer.weight[0].numel())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(note)
    model.eval()(images)
    return sum(found)


def test_costs_are_those_of_the_narrow_model_by_another_counter() -> None:
    spec = ModelSpec(backbone="densenet121", cut="features.denseblock1", classes=2, image_size=64)
    model = variants.describe_model(Variant(of=Candidate(spec.cut, "full"), image_size=48, width=0.5), spec)
    built = truncation.build(model.spec)
    assert model.cost.name == "features.denseblock1@48px@w0.5"
    assert model.cost.params == sum(one.numel() for one in built.parameters())
    assert model.cost.macs == count_by_hand(built, torch.zeros(2, 3, 48, 48))
    wide, full = (
        next(cut for cut in list_cuts("densenet121", image_size=64, classes=2) if cut.name == name)
        for name in (spec.cut, "full")
    )
    assert model.cost.macs_share == pytest.approx(model.cost.macs / full.macs)
    assert model.cost.macs < wide.macs / 4
    assert not model.cost.stage


def test_narrow_trials_come_after_the_wide_ones_that_they_begin_with_and_learn_from(make_trial: MakeTrial) -> None:
    trained = {BASE: {seed: make_trial("layer1.1", seed=seed) for seed in (0, 1)}}
    models = [
        variants.describe_model(one, trained[BASE][0].model)
        for one in variants.list_variants(BASE, sizes=(24,), widths=(0.5,))
    ]
    trials = list(variants.make_trials(models, trained))
    needs = {trial.key: trial.needs for trial in trials}
    assert needs == {
        "layer1.1@24px__full__s0": (),
        "layer1.1@24px__full__s1": (),
        "layer1.1@w0.5__full__s0": ("layer1.1__full__s0",),
        "layer1.1@w0.5__full__s1": ("layer1.1__full__s1",),
        "layer1.1@24px@w0.5__full__s0": ("layer1.1@24px__full__s0",),
        "layer1.1@24px@w0.5__full__s1": ("layer1.1@24px__full__s1",),
    }
    narrow = next(trial for trial in trials if trial.key == "layer1.1@24px@w0.5__full__s0")
    assert narrow.teacher == narrow.start == "layer1.1@24px__full__s0"
    assert (narrow.model.image_size, narrow.model.width) == (24, 0.5)
    assert narrow.cut == "layer1.1@24px@w0.5"
    planned = plan_trials([Proposal(trial=narrow)], trials, {})
    assert [one.trial.key for one in planned] == ["layer1.1@24px__full__s0", narrow.key]


def test_a_narrow_training_costs_its_own_steps_and_the_wide_teachers_passes(make_trial: MakeTrial) -> None:
    wide = make_trial("layer1.1")
    model = variants.describe_model(Variant(of=BASE, width=0.5), wide.model)
    (trial,) = variants.make_trials([model], {BASE: {0: wide}})
    macs, images = {"layer1.1": 1000, "layer1.1@w0.5": 250, "full": 9999}, {"train": 10, "val": 4}
    assert epoch_macs(trial, macs, images) == 250 * (3 * 10 + 4) + 1000 * 10


def test_latencies_of_other_widths_and_sizes_are_other_measurements() -> None:
    wide = ModelSpec(backbone="resnet18", cut="layer1.1", classes=2, image_size=64)
    specs = {
        one.cut: variants.describe_model(one, wide).spec
        for one in (Variant(of=BASE), *variants.list_variants(BASE, sizes=(48,), widths=(0.5, 0.25)))
    }
    keys = latency_keys(specs, ProfilePlan())
    assert len(set(keys.values())) == len(keys) == 6
    assert keys["layer1.1"] == latency_keys({"any": replace(wide, width=1.0)}, ProfilePlan())["any"]
