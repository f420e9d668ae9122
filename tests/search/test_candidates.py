"""Which trials a search may make, and who teaches whom."""

from dataclasses import dataclass, replace

import pytest

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.records.models import FULL, IMAGENET_INPUT
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.search import candidates
from ttl_deploy.search.candidates import find_cuts, find_teachers, make_trials
from ttl_deploy.search.policies import StudyState
from ttl_deploy.search.policies.exhaustive import Exhaustive

SETTINGS = SearchSettings(
    backbone="resnet18",
    data="images",
    weights="none",
    cuts=("layer1.1", "layer2.1"),
    strategies=("full",),
    seeds=(0, 3),
)
FEEDING = Feeding(file=IMAGENET_INPUT, network=IMAGENET_INPUT)
TEACHERS = {"full": None, "l2-sp": None, "pupil": "full", "grandpupil": "pupil", "self": "self", "a": "b", "b": "a"}


@dataclass
class Stub:
    """Stands for a strategy, of which only the teacher counts here."""

    teacher: str | None


@pytest.fixture
def schools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strategies that learn from others."""
    monkeypatch.setattr(candidates, "find_strategy", lambda text: Stub(TEACHERS[text.partition("?")[0]]))


def trials_of(*strategies: str) -> dict[tuple[str, str, int], object]:
    settings = replace(SETTINGS, strategies=strategies)
    cuts = find_cuts(settings, classes=2)
    return dict(make_trials(settings, cuts, classes=2, feeding=FEEDING))


def test_every_cut_is_trained_by_every_strategy_from_every_seed() -> None:
    trials = trials_of("full", "l2-sp?alpha=0.5")
    assert list(trials) == [
        (cut, strategy, seed)
        for cut in ("layer1.1", "layer2.1", FULL)
        for strategy in ("full", "l2-sp?alpha=0.5")
        for seed in (0, 3)
    ]
    assert {trial.key for trial in trials.values()} >= {"layer1.1__full__s0", "full__l2-sp-alpha-0.5__s3"}
    assert len({trial.key for trial in trials.values()}) == len(trials)
    assert all(trial.candidate == place[:2] and trial.seed == place[2] for place, trial in trials.items())
    assert all(trial.teacher is None for trial in trials.values())


def test_an_unknown_strategy_or_option_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="l2-sq"):
        find_teachers(["full", "l2-sq"])
    with pytest.raises(UsageError, match="alfa"):
        find_teachers(["full", "l2-sp?alfa=1"])


@pytest.mark.usefixtures("schools")
def test_a_teacher_that_was_not_asked_for_is_trained_at_the_full_network_only() -> None:
    trials = trials_of("pupil", "l2-sp")
    assert [place for place in trials if place[1] == "full"] == [(FULL, "full", 0), (FULL, "full", 3)]
    assert trials[FULL, "full", 3].teacher is None
    assert trials["layer1.1", "pupil", 3].teacher == trials[FULL, "full", 3].key == "full__full__s3"
    assert trials[FULL, "pupil", 0].teacher == "full__full__s0"
    assert trials["layer1.1", "l2-sp", 0].teacher is None


@pytest.mark.usefixtures("schools")
def test_a_teacher_may_have_a_teacher_but_no_circle() -> None:
    assert find_teachers(["grandpupil"]) == {"grandpupil": "pupil", "pupil": "full", "full": None}
    for text in ("self", "a", "b"):
        with pytest.raises(UsageError, match="its own teacher"):
            find_teachers(["full", text])


@pytest.mark.usefixtures("schools")
def test_the_same_strategy_written_otherwise_cannot_teach_beside_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEACHERS, "pupil", "l2-sp?alpha=1&beta=2")
    with pytest.raises(UsageError, match="are the same"):
        find_teachers(["pupil", "l2-sp?beta=2&alpha=1"])


@pytest.mark.usefixtures("schools")
def test_the_exhaustive_policy_proposes_what_was_asked_for_the_deepest_first() -> None:
    settings = replace(SETTINGS, strategies=("pupil", "l2-sp"), seeds=(0,))
    cuts = find_cuts(settings, classes=2)
    state = StudyState(
        cuts=cuts,
        strategies=settings.strategies,
        seeds=settings.seeds,
        trial_of=make_trials(settings, cuts, classes=2, feeding=FEEDING),
        outcomes={"full__l2-sp__s0": None},  # type: ignore[dict-item] # what came of it does not count
    )
    assert [proposal.trial.key for proposal in Exhaustive().propose(state)] == [
        *("full__pupil__s0", "layer2.1__pupil__s0", "layer2.1__l2-sp__s0", "layer1.1__pupil__s0", "layer1.1__l2-sp__s0")
    ]
