"""Teachers come first, whatever the order of the proposals, and a resumed plan is the rest of the first."""

from collections.abc import Callable, Iterable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings, Trial, TrialFailure, TrialResult
from ttl_deploy.search.policies import Proposal
from ttl_deploy.search.waves import next_wave, plan_trials

MakeTrial = Callable[..., Trial]


def trial_of(number: int, teacher: int | None) -> Trial:
    spec = ModelSpec(backbone="resnet18", cut=f"c{number}", classes=2, image_size=32)
    key = None if teacher is None else f"c{teacher}__full__s0"
    return Trial(model=spec, weights="none", strategy="full", seed=0, train=TrainSettings(), teacher=key)


def plan_of(
    proposed: Iterable[Trial], trials: Iterable[Trial], outcomes: Mapping[str, TrialFailure]
) -> tuple[Trial, ...]:
    """Plan trials that are all to be trained to their ends."""
    plan = plan_trials([Proposal(trial=trial) for trial in proposed], trials, outcomes)
    assert all(proposal.until is None for proposal in plan)
    return tuple(proposal.trial for proposal in plan)


def failure_of(trial: Trial, reason: str) -> TrialFailure:
    return TrialFailure(
        key=trial.key, cut=trial.model.cut, strategy=trial.strategy, seed=trial.seed, kind="memory", reason=reason
    )


@st.composite
def schools(draw: st.DrawFn) -> tuple[list[Trial], list[Trial]]:
    """Draw trials, each taught by an earlier one or by nobody, and some of them as proposals in any order."""
    teachers = [draw(st.none() | st.integers(0, number - 1)) if number else None for number in range(7)]
    trials = [trial_of(number, teacher) for number, teacher in enumerate(teachers)]
    return trials, draw(st.lists(st.sampled_from(trials), unique=True))


@given(schools())
def test_every_proposal_and_its_teachers_are_planned_once_teachers_first(
    school: tuple[list[Trial], list[Trial]],
) -> None:
    trials, proposed = school
    plan = plan_of(proposed, trials, {})
    keys = [trial.key for trial in plan]
    assert len(set(keys)) == len(keys)
    assert {trial.key for trial in proposed} <= set(keys)
    for position, trial in enumerate(plan):
        assert trial.teacher is None or trial.teacher in keys[:position]
    needed = {trial.teacher for trial in plan}
    assert all(trial in proposed or trial.key in needed for trial in plan)


@given(schools(), st.data())
@settings(deadline=None)
def test_after_any_part_of_the_plan_the_rest_of_it_is_planned(
    school: tuple[list[Trial], list[Trial]], data: st.DataObject
) -> None:
    trials, proposed = school
    plan = plan_of(proposed, trials, {})
    done = plan[: data.draw(st.integers(0, len(plan)))]
    outcomes = {trial.key: failure_of(trial, "why not") for trial in done}
    left = [trial for trial in proposed if trial.key not in outcomes]
    assert plan_of(left, trials, outcomes) == plan[len(done) :]


def test_without_teachers_the_plan_is_what_was_proposed(make_trial: MakeTrial) -> None:
    proposed = [make_trial(cut) for cut in ("full", "b", "a")]
    assert plan_of(proposed, proposed, {}) == tuple(proposed)


def test_a_trial_may_rest_but_its_teacher_is_trained_to_its_end(make_trial: MakeTrial) -> None:
    teacher, pupil = make_trial("full"), make_trial("a", "pupil", teacher="full__full__s0")
    proposed = [Proposal(trial=pupil, until=2), Proposal(trial=teacher, until=1)]
    planned = [(proposal.trial.key, proposal.until) for proposal in plan_trials(proposed, [teacher, pupil], {})]
    assert planned == [(teacher.key, None), (pupil.key, 2)]


def test_a_teacher_runs_in_the_wave_before_and_others_do_not_wait(
    make_trial: MakeTrial, finish: Callable[[Trial], TrialResult]
) -> None:
    teacher, free = make_trial("full"), make_trial("a")
    pupil = make_trial("a", "pupil", teacher=teacher.key)
    waiting = {0: teacher, 1: pupil, 2: free}
    first = next_wave(waiting, {})
    assert (first.ready, dict(first.failed)) == ((0, 2), {})
    second = next_wave({1: pupil}, {teacher.key: finish(teacher)})
    assert (second.ready, dict(second.failed)) == ((1,), {})


def test_a_failed_teacher_takes_its_pupils_with_it_and_says_why(make_trial: MakeTrial) -> None:
    teacher = make_trial("full")
    pupil = make_trial("a", "pupil?t=2", teacher=teacher.key)
    wave = next_wave({4: pupil}, {teacher.key: failure_of(teacher, "out of memory")})
    assert wave.ready == ()
    assert wave.failed == {
        4: TrialFailure(
            key="a__pupil-t-2__s0",
            cut="a",
            strategy="pupil?t=2",
            seed=0,
            kind="error",
            reason="its teacher full__full__s0 failed: out of memory",
        )
    }


@given(schools(), st.sets(st.integers(0, 6)))
def test_waves_end_and_reach_every_trial(school: tuple[list[Trial], list[Trial]], bad: set[int]) -> None:
    """Run waves to the end; the trials in `bad` fail by themselves."""
    trials, proposed = school
    left = dict(enumerate(plan_of(proposed, trials, {})))
    outcomes: dict[str, TrialFailure | TrialResult] = {}
    by_itself = {f"c{number}__full__s0" for number in bad}
    result = TrialResult(
        **dict.fromkeys(TrialResult.__dataclass_fields__, 0)  # type: ignore[arg-type] # its content does not count
    )
    while left:
        wave = next_wave(left, outcomes)
        assert wave.ready or wave.failed
        for position in wave.ready:
            trial = left.pop(position)
            outcomes[trial.key] = failure_of(trial, "by itself") if trial.key in by_itself else result
        for position, failed in wave.failed.items():
            outcomes[left.pop(position).key] = failed
    for trial in trials:
        if trial.key in outcomes and trial.teacher is not None:
            failed = isinstance(outcomes[trial.key], TrialFailure)
            assert failed == (trial.key in by_itself or isinstance(outcomes[trial.teacher], TrialFailure))
