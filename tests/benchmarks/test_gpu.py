"""The benchmark for GPUs: every part of it runs on a CPU too, so that a GPU's time is not spent on its faults."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.runtime.tensorrt.conftest import stand_ins

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with the folder of the benchmarks on the path, as when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def test_without_cuda_it_says_so_in_one_line_and_ends_with_6(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 6
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "CUDA" in line


def test_the_file_is_named_after_the_device(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce RTX 4090 (D)")
    assert gpu.name_file(torch.device("cuda"), quick=False) == "gpu-nvidia-geforce-rtx-4090-d"
    assert gpu.name_file(CPU, quick=True) == "gpu-cpu-quick"


def test_differences_are_counted_in_logits_probabilities_and_decisions(gpu: ModuleType) -> None:
    import agreement

    expected = np.array([[0.0, 0.0], [2.0, 1.0], [0.0, 3.0]], dtype=np.float32)
    given = np.array([[0.0, 0.0], [1.0, 1.5], [0.0, 3.0]], dtype=np.float32)
    differences = agreement.differ(expected, given)
    assert differences["logit"] == 1.0
    assert differences["flipped"] == 1
    assert differences["probability"] == pytest.approx(1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(0.5)))
    assert agreement.largest_relative([2.0, 4.0], [2.0, 3.0]) == 0.25


def test_free_kernels_are_allowed_only_meanwhile(gpu: ModuleType) -> None:
    with gpu.devices.repeatable(1):
        with gpu.fastest():
            assert not torch.are_deterministic_algorithms_enabled()
            assert torch.backends.cudnn.benchmark
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark


@pytest.mark.slow
def test_every_precision_of_a_cut_is_a_row_of_the_table_and_what_is_missing_says_why(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import engines
    import results

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    few = replace(gpu.QUICK.engines[0], targets=("tensorrt", "tensorrt-rtx"))
    monkeypatch.setattr(gpu, "QUICK", replace(gpu.QUICK, engines=(few,)))
    with stand_ins(tmp_path / "cache"):
        assert gpu.main(["--device", "cpu", "--quick", "--engines-only"]) == 0
    rows = json.loads((tmp_path / "gpu-cpu-quick-engines.json").read_text(encoding="utf-8"))["rows"]
    measured = [row for row in rows if "failed" not in row]
    assert [(row["precision"], row["target"]) for row in measured] == [(p, "tensorrt") for p in engines.PRECISIONS]
    assert {row["cut"] for row in measured} == {"full"}
    for row in measured:
        assert row["ran"] == row["precision"]
        assert 0 < row["GPU ms"] < row["GPU with transfers ms"]
        assert row["images_per_s"] == pytest.approx(2e3 / row["call_ms"], rel=0.01)
    missing = {row["target"]: row["failed"] for row in rows if "failed" in row}
    assert set(missing) == {"tensorrt-rtx", "onnxruntime-cuda"}
    assert "CUDAExecutionProvider" in missing["onnxruntime-cuda"]
    table = capsys.readouterr().out
    assert f"| full | int8 | tensorrt | 2 | {measured[-1]['GPU ms']} |" in table
    assert "| all | all | onnxruntime-cuda | all | failed: " in table


@pytest.mark.slow
def test_a_tiny_version_of_everything_runs_on_a_cpu(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import results

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "cache"))
    assert gpu.main(["--device", "cpu", "--quick"]) == 0
    stored = json.loads((tmp_path / "gpu-cpu-quick.json").read_text(encoding="utf-8"))
    rows = {
        kind: [row for row in stored["rows"] if row["kind"] == kind] for kind in {r["kind"] for r in stored["rows"]}
    }
    assert set(rows) == {"search", "predictions", "losses", "throughput", "sharing", "engines"}
    assert rows["search"][0]["verified"]
    assert all(row["fp32"]["flipped"] == 0 and row["fp32"]["probability"] == 0 for row in rows["predictions"])
    assert rows["losses"][0]["relative_as_trained"] == 0
    assert rows["losses"][0]["repeats"]
    assert all(row["same_weights"] for row in rows["sharing"])
    assert all(speed > 0 for speed in rows["throughput"][0]["images_per_s"].values())
