"""Real data sets, where they lie beside the project: understood as their own descriptions say."""

from pathlib import Path

import pytest

from ttl_deploy.data import fingerprint, limit_train, prepare
from ttl_deploy.records.data import Reading

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.mark.skipif(not (SHARED / "data/cxr_kermany").exists(), reason="needs the shared data")
def test_chest_radiographs_keep_their_test_split_and_lose_no_patient():
    manifest = prepare(str(SHARED / "data/cxr_kermany"))
    assert manifest.classes == ("NORMAL", "PNEUMONIA")
    train, val, test = fingerprint(manifest).counts
    assert test.per_class == (234, 390)
    assert train.images + val.images == 5216
    assert val.images / 5216 == pytest.approx(0.15, abs=0.005)
    assert val.patients / (val.patients + train.patients) == pytest.approx(0.15, abs=0.01)
    message = next(w.message for w in manifest.warnings if w.kind == "identical-images")
    assert message.startswith("30 groups of byte-identical files")
    limited = limit_train(manifest, 1500, 0)
    assert 1490 <= len(limited.of_split("train")) <= 1500


@pytest.mark.skipif(not (SHARED / "data/cxr_kermany").exists(), reason="needs the shared data")
def test_another_label_column_gives_three_classes_and_keeps_the_first():
    manifest = prepare(str(SHARED / "data/cxr_kermany"), reading=Reading(label_col="subtype"))
    assert manifest.classes == ("bacteria", "normal", "virus")
    assert manifest.samples[0].extra == {"label": "NORMAL"}


@pytest.mark.skipif(not (SHARED / "data/blood_cells").exists(), reason="needs the shared data")
def test_blood_cells_keep_all_official_splits():
    train, val, test = fingerprint(prepare(str(SHARED / "data/blood_cells"))).counts
    assert (train.per_class, val.per_class, test.per_class) == ((209, 228, 214), (83, 92, 87), (69, 80, 71))
