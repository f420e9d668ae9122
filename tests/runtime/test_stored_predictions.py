"""When a comparison of stored predictions mixes temperatures, and when that matters."""

import numpy as np
import pytest

from ttl_deploy.errors import UsageError
from ttl_deploy.runtime.stored_predictions import StoredPredictions, read, tell_temperatures


def model(name: str, classes: int, temperature: float) -> StoredPredictions:
    return StoredPredictions(
        name=name,
        classes=tuple("abcdef"[:classes]),
        samples=(),
        probabilities=np.zeros((0, classes)),
        patients_known=True,
        temperature=temperature,
    )


@pytest.mark.parametrize(("classes", "temperatures"), [(2, (1.0, 1.5)), (3, (1.0, 1.0)), (3, (1.5, 1.5))])
def test_nothing_is_said_where_nothing_can_move(classes: int, temperatures: tuple[float, float]) -> None:
    models = [model(name, classes, one) for name, one in zip(("trial", "file"), temperatures, strict=True)]
    assert tell_temperatures(models) == ""


def test_several_classes_at_different_temperatures_are_told() -> None:
    told = tell_temperatures([model("trial", 3, 1.0), model("file", 3, 1.5)])
    assert "(trial 1, file 1.5; 1 is none)" in told


def test_an_artifact_of_lower_precision_is_refused_because_it_holds_another_models_predictions(tiny, tmp_path):
    folder = tiny.write(tmp_path / "int8", manifest=tiny.manifest(precision="int8"))
    with pytest.raises(UsageError, match="holds what the trained model said, not what it says"):
        read([folder], split="val")
