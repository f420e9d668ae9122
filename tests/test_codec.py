"""Records survive JSON exactly, and what is not a record is refused with the field's name."""

import json
from pathlib import Path

import pytest

from ttl_deploy.errors import DataError
from ttl_deploy.records import codec
from ttl_deploy.records.scores import Score
from ttl_deploy.records.trials import SearchSettings, TrainSettings

SETTINGS = SearchSettings(backbone="resnet18", data="ümlaut", seeds=(1, 2), train=TrainSettings(lr=1 / 3), max_params=7)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    codec.save(tmp_path / "config.json", SETTINGS)
    assert codec.load(SearchSettings, tmp_path / "config.json") == SETTINGS


def test_another_schema_is_refused() -> None:
    content = json.loads(codec.to_json(SETTINGS)) | {"schema": 99}
    with pytest.raises(DataError, match="schema 99"):
        codec.from_builtins(SearchSettings, content)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seeds": "many"}, "seeds"), ({"train": {"epochs": 0}}, "epochs"), ({"pool": "median"}, "pool")],
)
def test_a_field_that_does_not_fit_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(DataError, match=named):
        codec.from_builtins(SearchSettings, json.loads(codec.to_json(SETTINGS)) | change)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{half")
    with pytest.raises(DataError, match=r"x\.json"):
        codec.load(SearchSettings, tmp_path / "x.json")


def test_an_undefined_score_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        Score(
            metric="auroc",
            split="test",
            value=None,
            low=None,
            high=None,
            level=0.95,
            images=3,
            patients=3,
            per_class=(None,),
            defined=0,
            method="none",
        )
