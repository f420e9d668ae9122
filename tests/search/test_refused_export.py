"""An export that a check refuses leaves a record in the run, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ttl_deploy.errors import GateError, InfeasibleError, StorageError, UsageError
from ttl_deploy.export.formats import OnnxFormat
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import Parity
from ttl_deploy.records.data import Manifest
from ttl_deploy.records.refusals import Asked, Measured, RefusedExport
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import refusing
from ttl_deploy.search.shipping import ship

from .test_calibrated_export import lay_out

ASKED = Asked(
    artifact="resnet18-layer1", format="onnx", precision="fp32", cut="layer1", strategy="full", seed=0,
    max_drop=0.005, qat_epochs=0, operating_rule="argmax", calibrate=True,
)  # fmt: skip # a table of fields
PARITY = Parity(
    images=40, max_difference=0.3, mean_difference=0.1, decisions_flipped=7, limit=1e-4, reference="torch in fp32"
)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, NDArray[np.float32], Manifest]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTL_DEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        return lay_out(tmp_path_factory.mktemp("laid_out"))


def read(run: RunFolder) -> list[RefusedExport]:
    return [codec.load(RefusedExport, path) for path in sorted(run.refusals.glob("*"))]


def test_a_refused_export_leaves_what_was_asked_and_measured_and_nothing_else(
    laid_out: tuple[RunFolder, NDArray[np.float32], Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, _, _ = laid_out
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path))

    def refuse(*given: object, **options: object) -> None:
        raise GateError("7 of 40 decisions changed", measured=Measured(parity=PARITY))

    monkeypatch.setattr(OnnxFormat, "export", refuse)
    before = set(run.path.rglob("*"))
    with pytest.raises(GateError, match="7 of 40"):
        ship(run, seed=0, calibrate=False, command="ttl-deploy export RUN --no-calibrate")
    new = {path.relative_to(run.path).as_posix() for path in set(run.path.rglob("*")) - before}
    (told,) = read(run)
    assert {one.partition("/")[0] for one in new} == {"refusals"}
    assert (told.kind, told.reason, told.measured) == (
        "GateError",
        "7 of 40 decisions changed",
        Measured(parity=PARITY),
    )
    assert told.command == "ttl-deploy export RUN --no-calibrate"
    assert told.asked.artifact == f"{run.settings().backbone}-{told.asked.cut}"
    assert (told.asked.seed, told.asked.calibrate, told.asked.precision) == (0, False, "fp32")


def test_every_refusal_is_kept_and_a_mistyped_option_is_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(UsageError), refusing.recorded(run, ASKED, "x"):
        raise UsageError("no such format")
    assert not run.refusals.exists()
    errors = (GateError("7 of 40 decisions changed", measured=Measured(parity=PARITY)), InfeasibleError("not reached"))
    for error in (*errors, errors[0]):
        with pytest.raises(type(error)), refusing.recorded(run, ASKED, "x"):
            raise error
    assert [one.kind for one in read(run)].count("GateError") == 2
    assert {one.measured for one in read(run)} == {None, Measured(parity=PARITY)}


def test_where_no_record_can_be_written_the_reason_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, record: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(refusing.codec, "save", refuse)
    with (
        pytest.raises(GateError, match=r"7 of 40.*keeps no record of this refusal: the disk is full") as refused,
        refusing.recorded(RunFolder(tmp_path), ASKED, "x"),
    ):
        raise GateError("7 of 40 decisions changed")
    assert refused.value.exit_code == 4
