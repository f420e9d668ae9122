"""What candidates are called, and which lists of strategies are refused."""

import pytest

from ttl_deploy.records.candidates import Candidate, check_strategies, name_candidate, name_candidates, slug_of
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import SearchSettings, TrainSettings, Trial


def test_with_one_strategy_a_candidate_is_called_like_its_cut() -> None:
    alone = (Candidate("layer1", "l2-sp"), Candidate("full", "l2-sp"))
    assert name_candidates(alone) == {alone[0]: "layer1", alone[1]: "full"}


def test_with_several_strategies_every_name_says_which() -> None:
    candidates = (Candidate("layer1", "full"), Candidate("layer1", "lp-ft?probe=0.3"), Candidate("full", "full"))
    assert list(name_candidates(candidates).values()) == ["layer1 (full)", "layer1 (lp-ft?probe=0.3)", "full (full)"]
    assert name_candidate(candidates[0], several=True) == "layer1 (full)"


def test_the_part_of_a_key_has_no_character_that_file_systems_mind() -> None:
    assert slug_of("lwft?freeze=layer2.1&decay=10") == "lwft-freeze-layer2.1-decay-10"
    spec = ModelSpec(backbone="resnet18", cut="layer1.1", classes=2, image_size=32)
    trial = Trial(model=spec, weights="none", strategy="l2-sp?alpha=0.1", seed=3, train=TrainSettings())
    assert trial.key == "layer1.1__l2-sp-alpha-0.1__s3"
    assert trial.candidate == ("layer1.1", "l2-sp?alpha=0.1")


@pytest.mark.parametrize(
    ("strategies", "told"),
    [
        ((), "strategies is empty"),
        (("full", "l2-sp", "full"), "'full' is given twice"),
        (("lwft?freeze=a&decay=2", "lwft?decay=2&freeze=a"), "are the same"),
        (("own?a=1&b=2", "own?a=1-b=2"), "share a folder"),
        (("own?part=A", "own?part=a"), "share a folder"),
    ],
)
def test_strategies_that_are_missing_the_same_or_share_a_folder_are_refused(
    strategies: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        check_strategies(strategies)
    with pytest.raises(ValueError, match=told):
        SearchSettings(backbone="resnet18", data="images", strategies=strategies)


def test_different_options_of_one_strategy_may_stand_beside_each_other() -> None:
    check_strategies(("full", "l2-sp?alpha=0.1", "l2-sp?alpha=0.01", "l2-sp"))
