"""`bench --trtexec`: a file that could not stand beside what is measured is refused before anything is measured."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.runtime.tensorrt.test_trtexec import PRINTED, row
from ttl_deploy.errors import UsageError
from ttl_deploy.records.engines import GpuIdentity
from ttl_deploy.runtime.bench import BenchPlan
from ttl_deploy.runtime.tensorrt import devices
from ttl_deploy_cli.imported_times import import_times

ARTIFACT: Any = SimpleNamespace(manifest=SimpleNamespace(input=SimpleNamespace(height=64, width=64)))


def plan(**changes: Any) -> BenchPlan:
    return BenchPlan(**{"targets": ("tensorrt",), "batches": (8,), **changes})


@pytest.fixture
def told(tmp_path: Path) -> list[Path]:
    """The words that trtexec printed for batches of 8, and a file of its times."""
    (tmp_path / "printed").write_text(PRINTED)
    (tmp_path / "times").write_text(json.dumps([row()] * 20))
    return [tmp_path / "printed", tmp_path / "times"]


def test_both_kinds_of_files_are_read_and_none_is_nothing(told: list[Path]) -> None:
    both = import_times(told, [ARTIFACT], plan(targets=("tensorrt", "tensorrt-cuda-graph")))
    assert [one.batch for one in both] == [8, 8]
    assert import_times([], [ARTIFACT, ARTIFACT], plan(targets=())) == ()


@pytest.mark.parametrize(
    ("artifacts", "changes", "words"),
    [
        (2, {}, "name one artifact"),
        (1, {"mode": "throughput"}, "goes with --mode latency"),
        (1, {"targets": ("tensorrt", "onnxruntime-cpu")}, "goes with --target tensorrt"),
        (1, {"batches": (1,)}, "is of batches of 8: give --batch 8"),
        (1, {"batches": (1, 8)}, "times does not say how many images"),
    ],
)
def test_what_cannot_stand_beside_it_is_refused(
    told: list[Path], artifacts: int, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        import_times(told, [ARTIFACT] * artifacts, plan(**changes))


def test_times_of_another_gpu_are_refused(told: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here = GpuIdentity(name="NVIDIA L4", compute_capability="8.9", driver="580.65.06")
    monkeypatch.setattr(devices, "find_gpu", lambda: here)
    with pytest.raises(UsageError, match="made on Orin, and here is NVIDIA L4: run trtexec here"):
        import_times(told, [ARTIFACT], plan())
    assert len(import_times(told[1:], [ARTIFACT], plan())) == 1
