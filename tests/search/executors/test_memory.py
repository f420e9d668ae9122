"""What tasks are expected to need, and what a device is expected to have."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ttl_deploy.models.cost.training_memory import (
    PROCESS_BYTES,
    estimate_inference_bytes,
    estimate_training_bytes,
    measure_needs,
)
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.trials import TrainSettings, Trial
from ttl_deploy.search.executors import Place, memory
from ttl_deploy.search.executors.memory import (
    UNKNOWN_BYTES,
    estimate_task,
    find_budget,
    find_places,
    free_main_memory,
)

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
SPEC = ModelSpec(backbone="squeezenet1_1", cut=FULL, classes=2, image_size=64)
GIB = 2**30


def make_trial(spec: ModelSpec = SPEC, **options: Any) -> Trial:
    return Trial(model=spec, weights="none", strategy="full", seed=0, train=TrainSettings(**options))


class LooksAtValues(nn.Module):
    """Branches on a value when it trains, which no tensor without values can do."""

    def forward(self, images: Tensor) -> Tensor:
        return images if not self.training or float(images.sum()) > 0 else -images


def make_looking(num_classes: int = 2) -> nn.Module:
    """Build a network of a user's own."""
    return nn.Sequential(
        LooksAtValues(), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )


def write_meminfo(folder: Path, available_kib: int) -> Path:
    path = folder / "meminfo"
    path.write_text(f"MemTotal: 99999999 kB\nMemFree: 5 kB\nMemAvailable:   {available_kib} kB\n", encoding="ascii")
    return path


def test_a_gpu_training_needs_16_bits_and_a_context_and_a_cpu_training_a_way_back() -> None:
    on_gpu = estimate_training_bytes(SPEC, batch_size=32, precision="bf16", validation_batch=64)
    on_cpu = estimate_training_bytes(SPEC, batch_size=32, precision="fp32", validation_batch=64, copies=3)
    assert estimate_task("train", make_trial(), CUDA) == on_gpu + PROCESS_BYTES["cuda"]
    assert estimate_task("train", make_trial(), CPU) == on_cpu + PROCESS_BYTES["cpu"]


def test_precision_batch_and_average_of_a_trial_count() -> None:
    plain = estimate_task("train", make_trial(precision="fp32"), CUDA)
    assert estimate_task("train", make_trial(precision="fp16"), CUDA) < plain
    assert estimate_task("train", make_trial(precision="fp32", batch_size=64), CUDA) > plain
    averaged = estimate_task("train", make_trial(precision="fp32", ema=0.99), CUDA)
    assert averaged - plain == measure_needs(SPEC).weights


def test_a_teacher_counts_with_its_weights_and_the_pass_of_a_batch() -> None:
    alone = replace(make_trial(), model=replace(SPEC, cut="features.5"))
    taught = replace(alone, teacher="full__full__s0")
    teacher = estimate_inference_bytes(SPEC, batch_size=32)
    assert estimate_task("train", taught, CUDA) - estimate_task("train", alone, CUDA) == teacher


def test_a_test_needs_less_than_a_training_with_as_many_images() -> None:
    trial = make_trial(batch_size=64)
    assert PROCESS_BYTES["cuda"] < estimate_task("test", trial, CUDA) < estimate_task("train", trial, CUDA)


def test_a_network_that_cannot_be_estimated_runs_alone() -> None:
    spec = ModelSpec(backbone=f"{__name__}:make_looking", cut=FULL, classes=2, image_size=32)
    assert estimate_task("train", make_trial(spec), CPU) == UNKNOWN_BYTES == sys.maxsize


def test_the_budget_is_a_share_of_what_linux_calls_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_main_memory(write_meminfo(tmp_path, 8 * 2**20), tmp_path) == 8 * GIB
    monkeypatch.setattr(memory, "free_main_memory", lambda: 8 * GIB)
    assert find_budget(CPU) == int(0.85 * 8 * GIB)


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_what_its_limit_leaves(tmp_path: Path, version: int) -> None:
    folder = tmp_path if version == 2 else tmp_path / "memory"
    folder.mkdir(exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (4 * GIB, 3 * GIB), strict=True):
        (folder / name).write_text(f"{value}\n", encoding="ascii")
    meminfo = write_meminfo(tmp_path, 8 * 2**20)
    assert free_main_memory(meminfo, tmp_path) == GIB
    key = "inactive_file" if version == 2 else "total_inactive_file"
    (folder / "memory.stat").write_text(f"anon 5\n{key} {2 * GIB}\n", encoding="ascii")
    assert free_main_memory(meminfo, tmp_path) == 3 * GIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_no_limit_is_no_limit(tmp_path: Path, limit: str) -> None:
    for name, value in (("memory.max", limit), ("memory.current", "1000")):
        (tmp_path / name).write_text(value, encoding="ascii")
    assert free_main_memory(write_meminfo(tmp_path, 1024), tmp_path) == 2**20


def test_where_the_system_does_not_tell_there_is_no_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_main_memory(tmp_path / "none", tmp_path) is None
    assert find_budget(MPS) is None
    monkeypatch.setattr(memory, "free_main_memory", lambda: None)
    assert find_budget(CPU) is None


def test_workers_are_one_per_core_and_few_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_cores", lambda: 32)
    assert [memory.default_workers(device) for device in (CPU, CUDA, MPS)] == [32, memory.MOST_ON_GPU, 1]
    monkeypatch.setattr(memory, "usable_cores", lambda: 2)
    assert memory.default_workers(CUDA) == 2


def test_places_share_the_workers_and_know_their_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_cores", lambda: 16)
    monkeypatch.setattr(memory, "find_budget", lambda device: 100 + (device.index or 0))
    gpus = [torch.device("cuda", number) for number in range(3)]
    shares = {workers: [place.workers for place in find_places(gpus, workers)] for workers in (None, 1, 3, 7)}
    assert shares == {None: [4, 4, 4], 1: [1], 3: [1, 1, 1], 7: [3, 2, 2]}
    places = find_places(gpus, 5)
    assert [place.device for place in places] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [place.memory_bytes for place in places] == [100, 101, None]
    assert find_places([gpus[1], gpus[1]], 2) == (Place(device="cuda:1", workers=2, memory_bytes=101),)


def test_places_by_default_are_not_more_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "find_budget", lambda device: None)
    for cores, shares in ((4, [2, 2]), (1, [1, 1])):
        monkeypatch.setattr(memory, "usable_cores", lambda cores=cores: cores)
        gpus = [torch.device("cuda", number) for number in range(2)]
        assert [place.workers for place in find_places(gpus, None)] == shares
        assert [place.workers for place in find_places([CPU], None)] == [cores]


def test_giving_memory_back_keeps_what_is_in_use() -> None:
    kept = torch.arange(1000)
    memory.give_back_memory()
    assert torch.equal(kept, torch.arange(1000))
