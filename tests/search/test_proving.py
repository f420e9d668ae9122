"""Which images judge an export and which calibrate it: validation and training, never mixed, never test."""

from collections import Counter

import numpy as np
import pytest

from ttl_deploy.records.artifacts import Gate
from ttl_deploy.records.data import Manifest, Sample
from ttl_deploy.search import proving

GATE = Gate(max_drop=0.01)


def make_manifest(train: int = 200) -> Manifest:
    """Describe images of two classes, nine in ten of the first, of patients with five images each."""
    samples = []
    for split, count in (("train", train), ("val", 60), ("test", 60)):
        for i in range(count):
            label = int(i % 10 == 0)
            patient = f"{split}-{label}-{i // 20}"
            name = f"{split}{i}"
            sample = Sample(path=name, label=label, patient_id=patient, split=split, sha256=name)  # type: ignore[arg-type] # one of three
            samples.append(sample)
    return Manifest(
        name="d", root="/", reader="folder", classes=("well", "ill"), samples=tuple(samples), patients_known=True
    )


class SpiedCache:
    """Hands out images that hold their own position, and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def pixels(self, positions: np.ndarray) -> np.ndarray:
        self.asked.append([int(position) for position in positions])
        return np.zeros((len(positions), 2, 2, 3), np.uint8) + np.array(positions, np.uint8).reshape(-1, 1, 1, 1)


def gather(data: Manifest, precision: str) -> tuple[proving.Proof, SpiedCache]:
    cache = SpiedCache()
    probabilities = np.arange(120, dtype=np.float32).reshape(60, 2)
    proof = proving.gather(
        data,
        cache,
        probabilities,
        precision=precision,
        gate=GATE,
        progress=lambda *_: None,  # type: ignore[arg-type] # a spy
    )
    return proof, cache


def test_calibration_images_are_of_training_and_judged_ones_of_validation() -> None:
    data = make_manifest()
    proof, cache = gather(data, "int8")
    judged, calibrating = cache.asked
    assert {data.samples[i].split for i in judged} == {"val"}
    assert {data.samples[i].split for i in calibrating} == {"train"}
    assert len(proof.calibration) == proof.calibrated_on.images == 200
    assert proof.calibrated_on.split == "train"
    assert proof.labels == [data.samples[i].label for i in judged]
    np.testing.assert_array_equal(proof.probabilities[:, 0], np.arange(0, 120, 2))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_of_training_is_read_where_nothing_is_quantised(precision: str) -> None:
    proof, cache = gather(make_manifest(), precision)
    assert [len(asked) for asked in cache.asked] == [60, 0]
    assert len(proof.calibration) == 0


def test_calibration_images_are_spread_over_classes_and_patients_and_seeded() -> None:
    data = make_manifest()
    chosen = proving.choose_calibration(data, seed=0, count=20)
    assert Counter(data.samples[i].label for i in chosen) == {0: 10, 1: 10}
    assert len({data.samples[i].patient_id for i in chosen}) == 20
    assert chosen == proving.choose_calibration(data, seed=0, count=20)
    assert chosen != proving.choose_calibration(data, seed=1, count=20)
    assert len(set(proving.choose_calibration(data, seed=0, count=100))) == 100


def test_all_training_images_are_taken_where_they_are_few() -> None:
    data = make_manifest(train=30)
    assert sorted(proving.choose_calibration(data, seed=0)) == list(data.of_split("train"))
