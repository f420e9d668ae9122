"""The profile measures what it can, and says why of the rest."""

from pathlib import Path

import pytest

from ttl_deploy.errors import GateError, TargetUnavailableError
from ttl_deploy.models.cuts import list_cuts, resolve_cuts
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.search import profile

BACKBONE = "shufflenet_v2_x0_5"
CUTS = resolve_cuts(["stage2.3", FULL], list_cuts(BACKBONE, image_size=32, classes=2))
SPECS = [ModelSpec(backbone=BACKBONE, cut=cut.name, classes=2, image_size=32) for cut in CUTS]


def measure(**changes: object) -> object:
    given = {"target": "onnxruntime-cpu", "seconds": 0.02, "progress": lambda stage, done, total: None} | changes
    return profile.profile_cuts(CUTS, SPECS, **given)  # type: ignore[arg-type]


def test_every_cut_gets_its_costs_and_a_latency() -> None:
    found = measure()
    assert [cut.cut for cut in found.cuts] == ["stage2.3", FULL]
    assert all(cut.latency_s > 0 and cut.latency_noise_s >= 0 and cut.size_bytes > 0 for cut in found.cuts)
    assert [(cut.params, cut.macs) for cut in found.cuts] == [(cut.params, cut.macs) for cut in CUTS]
    assert (found.batch, found.threads, found.precision) == (1, 1, "fp32")


def test_a_cut_that_cannot_be_exported_costs_only_its_own_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    real = profile.export_for_timing

    def refuse_the_full_network(model: object, image_size: int, path: Path) -> None:
        if path.name == "1.onnx":
            raise GateError("torch cannot export this model")
        real(model, image_size, path)  # type: ignore[arg-type]

    monkeypatch.setattr(profile, "export_for_timing", refuse_the_full_network)
    shallow, full = measure().cuts
    assert shallow.latency_s > 0
    assert shallow.note == ""
    assert full.latency_s is None
    assert full.note == "torch cannot export this model"


def test_nothing_to_time_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: object, image_size: int, path: Path) -> None:
        raise GateError("torch cannot export this model")

    monkeypatch.setattr(profile, "export_for_timing", refuse)
    with pytest.raises(TargetUnavailableError, match="torch cannot export this model"):
        measure()
