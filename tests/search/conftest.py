"""Trials and outcomes as a study has them, without any training."""

from collections.abc import Callable

import pytest

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings, Trial, TrialResult

MakeTrial = Callable[..., Trial]


@pytest.fixture
def make_trial() -> MakeTrial:
    """Describe a trial: `make_trial("layer1.1", "pupil", teacher="full__full__s0")`."""

    def make(cut: str, strategy: str = "full", *, teacher: str | None = None, seed: int = 0) -> Trial:
        spec = ModelSpec(backbone="resnet18", cut=cut, classes=2, image_size=32)
        return Trial(
            model=spec, weights="none", strategy=strategy, seed=seed, train=TrainSettings(epochs=1), teacher=teacher
        )

    return make


@pytest.fixture
def finish() -> Callable[[Trial], TrialResult]:
    """Return the result of a trial that went well."""

    def result(trial: Trial) -> TrialResult:
        return TrialResult(
            key=trial.key,
            cut=trial.model.cut,
            strategy=trial.strategy,
            seed=trial.seed,
            best_epoch=1,
            epochs_run=1,
            val_auroc=0.9,
            params=10,
            weights_sha256="0" * 64,
            weights_note="",
            precision="fp32",
            device="cpu",
            seconds=1.0,
        )

    return result
