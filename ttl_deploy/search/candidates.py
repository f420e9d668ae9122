"""What is compared: every wanted cut by every wanted strategy, and the trials of both, with their teachers'."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ttl_deploy.errors import UsageError
from ttl_deploy.models.cuts import list_cuts, resolve_cuts
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.models.truncation import build_on_meta
from ttl_deploy.records.candidates import PROBED, WARM, check_strategies
from ttl_deploy.records.models import FULL, Cut, ModelSpec
from ttl_deploy.records.trials import SearchSettings, Trial
from ttl_deploy.training.strategies import find_strategy
from ttl_deploy.training.strategies.from_joint import EPOCH_SHARE

TrialOf = Mapping[tuple[str, str, int], Trial]
"""Trials by cut, strategy and seed."""


def find_cuts(settings: SearchSettings, *, classes: int) -> tuple[Cut, ...]:
    """Return the wanted cuts, shallow to deep, the full network last."""
    known = list_cuts(settings.backbone, image_size=settings.decode.image_size, classes=classes, pool=settings.pool)
    wanted = {cut.name for cut in resolve_cuts(settings.cuts, known)} | {FULL}
    return tuple(cut for cut in known if cut.name in wanted)


def find_teachers(strategies: Sequence[str]) -> dict[str, str | None]:
    """Return for each strategy the one by which its teacher is trained, None where it needs no teacher.

    The given strategies come first, then those of teachers that were not given. Raises
    `UnknownNameError` or `UsageError` for one that cannot be used, that teaches itself, or that is a
    given one written otherwise.
    """
    found: dict[str, str | None] = {}
    waiting = list(strategies)
    while waiting:
        text = waiting.pop(0)
        if text not in found:
            found[text] = find_strategy(text).teacher
            waiting += [teacher for teacher in (found[text],) if teacher is not None]
    try:
        check_strategies(tuple(found))
    except ValueError as error:
        raise UsageError(str(error)) from error
    for text in strategies:
        _refuse_circle(text, found)
    return found


def check_phases(settings: SearchSettings) -> None:
    """Raise what the strategies raise of the full network and the training's settings, before anything is trained.

    Names of depths and numbers of epochs are wrong at every cut or at none. The network is built without values.
    """
    spec = ModelSpec(backbone=settings.backbone, cut=FULL, classes=2, image_size=settings.decode.image_size)
    model = build_on_meta(spec)
    for text in find_teachers(settings.strategies):
        find_strategy(text).phases(model, spec, settings.train)


def _refuse_circle(text: str, teacher_of: Mapping[str, str | None]) -> None:
    seen: list[str] = []
    following: str | None = text
    while following is not None:
        if following in seen:
            raise UsageError(f"strategy {following!r} would be its own teacher: {' <- '.join([*seen, following])}")
        seen.append(following)
        following = teacher_of[following]


def make_trials(
    settings: SearchSettings, cuts: Sequence[Cut], *, classes: int, feeding: Feeding, multilabel: bool = False
) -> TrialOf:
    """Describe every trial: all cuts by the strategies of the settings, the full network by their teachers' too."""
    teacher_of = find_teachers(settings.strategies)
    return {
        (cut, strategy, seed): make_trial(
            settings,
            cut,
            strategy,
            seed,
            teacher=teacher_of[strategy],
            classes=classes,
            multilabel=multilabel,
            feeding=feeding,
        )
        for cut, strategy in _pairs(settings, cuts, teacher_of)
        for seed in settings.seeds
    }


def _pairs(settings: SearchSettings, cuts: Sequence[Cut], all_strategies: Iterable[str]) -> Iterator[tuple[str, str]]:
    for cut in cuts:
        for strategy in all_strategies if cut.name == FULL else settings.strategies:
            yield cut.name, strategy


def make_joint(trials: TrialOf, cuts: Sequence[Cut], settings: SearchSettings) -> Trial | None:
    """Describe the training of all `cuts`, shallow to deep, as one network by the first strategy on the first seed.

    Returns None for fewer than two cuts, where the strategy needs a teacher, and where the stage is left out.
    """
    if len(cuts) < 2 or "joint" in settings.skip:
        return None
    deepest = trials[cuts[-1].name, settings.strategies[0], settings.seeds[0]]
    if deepest.teacher is not None:
        return None
    strategy = "full" if deepest.strategy == WARM else deepest.strategy
    exits = tuple(cut.name for cut in cuts)
    start = PROBED if probes(settings) else None
    return replace(deepest, strategy=strategy, start=start, model=replace(deepest.model, exits=exits))


def probes(settings: SearchSettings) -> bool:
    """Tell whether the cuts are probed: not where the stage is left out, or the backbone has not learned anything."""
    return "probe" not in settings.skip and settings.weights != "none"


def make_warm(trials: TrialOf, joint: Trial | None, settings: SearchSettings) -> TrialOf:
    """Describe the shorter trainings that begin with the exits of the joint network, in place of those so far.

    Where the strategy was asked for, they are of all cuts; a guided search has them of all but the full network
    beside full finetuning, where the settings say so. Raises `UsageError` where there is no joint network
    for them to begin with.
    """
    asked = WARM in settings.strategies
    if asked and joint is None:
        raise UsageError(
            f"strategy {WARM!r} begins with a network that has a head at every cut, which cannot be trained here: it "
            "takes two cuts that the weights cover, a first strategy without a teacher, and no --skip joint"
        )
    if joint is None or not (asked or _warms_finalists(settings)):
        return {}
    like = WARM if asked else "full"
    return {
        (cut, WARM, seed): replace(
            trial,
            strategy=WARM,
            start=joint.key,
            train=replace(trial.train, epochs=math.ceil(EPOCH_SHARE * trial.train.epochs)),
        )
        for (cut, strategy, seed), trial in trials.items()
        if strategy == like and cut in joint.model.exits and (asked or cut != FULL)
    }


def _warms_finalists(settings: SearchSettings) -> bool:
    """Tell whether finalists are finetuned from the joint network: those of other strategies begin as these say."""
    return settings.policy == "guided" and settings.warm_start and settings.strategies == ("full",)


def make_trial(
    settings: SearchSettings,
    cut: str,
    strategy: str,
    seed: int,
    *,
    teacher: str | None,
    classes: int,
    multilabel: bool,
    feeding: Feeding,
) -> Trial:
    """Describe the training of one cut by one strategy from one seed.

    `teacher` is the strategy by which the full network is trained that it learns from, on the same seed.
    """
    spec = ModelSpec(
        backbone=settings.backbone,
        cut=cut,
        classes=classes,
        multilabel=multilabel,
        image_size=settings.decode.image_size,
        pool=settings.pool,
        dropout=settings.dropout,
    )
    trial = Trial(
        model=spec,
        weights=settings.weights,
        input=feeding.network,
        weights_input=feeding.file,
        strategy=strategy,
        seed=seed,
        train=settings.train,
    )
    if teacher is None:
        return trial
    return replace(trial, teacher=replace(trial, model=replace(spec, cut=FULL), strategy=teacher).key)
