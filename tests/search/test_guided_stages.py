"""What the stages of a guided search cost and told, against sums over its own logs and predictions."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.evidence import intervals
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.records.stages import StageCost, StageCosts
from ttl_deploy.records.trials import SearchSettings, TrainSettings
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.executors import Where
from ttl_deploy.search.stages import describe_stages
from ttl_deploy.search.study import run_study

EPOCHS = 3


class Silent:
    """Stands for a reporter that shows nothing."""

    def step(self, *_: Any) -> None: ...

    def plan(self, *_: Any) -> None: ...

    def progress(self, *_: Any) -> None: ...

    def ended(self, *_: Any) -> None: ...

    def note(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run folder of a small guided search, with probe, joint training and finalists that begin with its exits."""
    here = tmp_path_factory.mktemp("guided")
    torch.manual_seed(0)
    network = load_torchvision().models.get_model("shufflenet_v2_x0_5", weights=None)
    save_file(dict(network.state_dict()), here / "net.safetensors")
    settings = SearchSettings(
        backbone="shufflenet_v2_x0_5",
        data="phantom:texture?patients=30&size=32&seed=1",
        weights=str(here / "net.safetensors"),
        cuts=("stage2.3", "stage3.3", "stage3.7"),
        seeds=(0, 1),
        decode=DecodeSettings(image_size=32),
        train=TrainSettings(epochs=EPOCHS, batch_size=16),
        skip=("profile",),
        warm_start=True,
    )
    run = RunFolder(here / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTL_DEPLOY_CACHE", str(here / "cache"))
        run_study(settings, run, command="ttl-deploy search", where=Where(device="cpu", workers=2), reporter=Silent())
    return run


def by_stage(costs: StageCosts | None) -> dict[str, StageCost]:
    assert costs is not None
    return {one.stage: one for one in costs.stages}


def count_images(run: RunFolder) -> dict[str, int]:
    samples = load_manifest(run.data).samples
    return {split: sum(one.split == split for one in samples) for split in ("train", "val", "test")}


def logged_epochs(run: RunFolder, key: str) -> int:
    return len((run.trial(key) / "metrics.jsonl").read_text().splitlines())


def test_a_guided_search_costs_what_its_stages_do_by_hand(guided: RunFolder) -> None:
    macs = {cut.name: cut.macs for cut in list_cuts("shufflenet_v2_x0_5", image_size=32, classes=2)}
    images = count_images(guided)
    epoch = {cut: macs[cut] * (3 * images["train"] + images["val"]) for cut in macs}
    keys = [str(entry.key) for entry in guided.ledger.of_event("trial_finished")]
    alone = {key: logged_epochs(guided, key) for key in keys if not key.startswith("all-exits")}
    opened = guided.ledger.of_event("test_opened")[0].content["trials"]
    found = by_stage(describe_stages(guided))
    assert list(found) == ["profile", "probe", "joint", "confirm", "test"]
    assert found["probe"].macs == macs["full"] * (images["train"] + images["val"])
    assert found["joint"].macs == EPOCHS * epoch["full"]
    assert found["confirm"].macs == sum(count * epoch[key.partition("__")[0]] for key, count in alone.items())
    assert found["test"].macs == sum(macs[key.partition("__")[0]] for key in opened) * images["test"]
    assert (found["profile"].macs, found["joint"].trials, found["confirm"].trials) == (0, 1, len(alone))
    warm = [count for key, count in alone.items() if "__from-joint__" in key]
    assert warm == [2] * len(warm) != []  # 0.6 × 3, rounded up


def test_a_guided_search_is_compared_with_whole_trainings(guided: RunFolder) -> None:
    costs = describe_stages(guided)
    assert costs is not None
    wanted = json.loads(guided.profile.read_text())["cuts"]
    images = count_images(guided)
    per_image = 3 * images["train"] + images["val"]
    assert costs.full_macs == EPOCHS * per_image * wanted[-1]["macs"]
    assert costs.exhaustive_macs == 2 * EPOCHS * per_image * sum(cut["macs"] for cut in wanted)
    assert costs.finished
    assert 0 < costs.macs < costs.exhaustive_macs


def test_the_joint_training_names_the_smallest_exit_whose_difference_may_be_zero(guided: RunFolder) -> None:
    manifest = load_manifest(guided.data)
    val = [manifest.samples[position] for position in manifest.of_split("val")]
    labels, patients = [one.label for one in val], [one.patient_id for one in val]
    predicted = {
        cut: np.load(guided.trial(f"{cut}__joint__s0") / "predictions_val.npz")["probabilities"]
        for cut in ("stage2.3", "stage3.3", "stage3.7", "full")
    }
    values = {
        cut: intervals.score("auroc", one, labels, patients, split="val", replicates=1).value or 0
        for cut, one in predicted.items()
    }
    best = max(values, key=lambda cut: values[cut])
    differences = {
        cut: intervals.paired_difference(one, predicted[best], labels, patients, reference=best).high
        for cut, one in predicted.items()
    }
    smallest = next(cut for cut, high in differences.items() if high >= 0)
    told = by_stage(describe_stages(guided))["joint"].told
    assert told.startswith(f"4 exits: {smallest} is the ")
    assert best in told


def test_without_telling_the_costs_are_the_same(guided: RunFolder) -> None:
    told, silent = describe_stages(guided), describe_stages(guided, tell=False)
    assert told is not None
    assert silent is not None
    assert [replace(one, told="") for one in told.stages] == [replace(one, told="") for one in silent.stages]
    assert by_stage(silent)["joint"].told == by_stage(silent)["confirm"].told == ""
