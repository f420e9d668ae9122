"""Cross-validation as a user types it."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ttl_deploy.errors import UsageError
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy_cli.folds import settings_of_folds

Run = Callable[..., subprocess.CompletedProcess[str]]
SEARCH = shlex.split(
    "search --backbone shufflenet_v2_x0_5 --weights none --data 'phantom:texture?patients=36&size=32&seed=1' "
    "--image-size 32 --cuts stage2.3 --epochs 1 --batch-size 16 --workers 1 --skip profile,joint --folds 3 "
    "--split-col none --no-progress"
)


@pytest.mark.slow
def test_folds_test_every_image_once_and_their_scores_are_averaged(ttl_deploy: Run, tmp_path: Path) -> None:
    command = [*SEARCH, "-o", tmp_path / "cv"]
    done = ttl_deploy(*command, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    aurocs, tested = [], []
    for fold in found["folds"]:
        run = tmp_path / "cv" / fold["run"]
        rows = [line.split(",") for line in (run / "data" / "manifest.csv").read_text().splitlines()[1:]]
        tested += [row[0] for row in rows if row[3] == "test"]
        own = {}
        for path in run.glob("trials/*/predictions_test.npz"):
            with np.load(path) as stored:
                own[path.parent.name.partition("__")[0]] = roc_auc_score(
                    stored["labels"], stored["probabilities"][:, 1]
                )
        aurocs.append({**own, "full network": own["full"], "chosen in each fold": own[fold["chosen"]]})
    assert sorted(tested) == sorted(row[0] for row in rows)
    assert found["comparison"]["patients"] == 36
    models = {model["name"]: model["auroc"]["value"] for model in found["comparison"]["models"]}
    assert {"full network", "chosen in each fold"} <= models.keys()
    for name, value in models.items():
        assert value == pytest.approx(np.mean([own[name] for own in aurocs]), abs=1e-9)

    ledgers = [path.read_bytes() for path in sorted(tmp_path.glob("cv/*/ledger.jsonl"))]
    again = ttl_deploy(*command)
    assert again.returncode == 0, again.stderr
    assert "chosen in each fold" in again.stdout
    assert [path.read_bytes() for path in sorted(tmp_path.glob("cv/*/ledger.jsonl"))] == ledgers
    assert json.loads(ttl_deploy("front", tmp_path / "cv", "--json").stdout) == found


@pytest.mark.parametrize(
    ("skip", "count", "words"), [((), 2, r"3 \(training"), ((), 0, "0 folds"), (("test",), 3, "--skip test")]
)
def test_what_makes_no_cross_validation_is_refused(skip: tuple[str, ...], count: int, words: str) -> None:
    settings = SearchSettings(backbone="resnet18", data="phantom", skip=skip)  # type: ignore[arg-type] # stages
    with pytest.raises(UsageError, match=words):
        settings_of_folds(settings, count)
