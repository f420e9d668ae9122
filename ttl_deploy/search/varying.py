"""The last trainings of a search: variants of what it would choose, and of the full network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ttl_deploy.evidence.choice import over_limits
from ttl_deploy.models.width.pruning import narrow_spec
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT, Candidate
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import CutProfile, Profile, Trial
from ttl_deploy.records.variants import Variant, Variants, base_cut
from ttl_deploy.search import findings, variants
from ttl_deploy.search.caches import Caches
from ttl_deploy.search.context import Study
from ttl_deploy.search.findings import Outcome
from ttl_deploy.search.policies import Proposal
from ttl_deploy.search.preparation import profile_plan
from ttl_deploy.search.profile import describe_costs, describe_profile, profile_cuts
from ttl_deploy.search.rounds import run_proposals
from ttl_deploy.search.variants import Model, TrialsOf

_STEPS = 20
"""Widths that a speed-up is looked for among are multiples of one twentieth."""


def train_variants(
    study: Study, known: Mapping[str, Outcome], caches: Caches, *, images: Mapping[str, int]
) -> Mapping[str, Outcome]:
    """Train the variants that the settings ask for, beside what was trained; returns all outcomes.

    Their costs join the run's profile. What cannot be narrowed to a speed-up, or is over a limit, is noted and left.
    """
    if not variants.wants_variants(study.settings) or "confirm" in study.settings.skip:
        return known
    front = findings.validation_front(study.run, known)
    bases = variants.find_bases(study.settings, front)
    trained = {base: _load_trials(study, known, base) for base in bases}
    models = _find_models(study, trained)
    profile = _extend_profile(study, models)
    wanted = _keep_feasible(study, profile, models)
    trials = list(variants.make_trials(wanted, trained))
    macs = {row.cut: row.macs for row in profile.cuts}
    proposed = [Proposal(trial=trial) for trial in trials if trial.key not in known]
    if not proposed:
        return known
    study.check_time()
    return run_proposals(study, proposed, trials, caches, known, macs=macs, images=images)


def _load_trials(study: Study, known: Mapping[str, Outcome], base: Candidate) -> Mapping[int, Trial]:
    keys = findings.finished(known)[base]
    return {seed: codec.load(Trial, study.run.trial(key) / "trial.json") for seed, key in keys.items()}


def _find_models(study: Study, trained: TrialsOf) -> list[Model]:
    """Return the variants as models; which ones is decided once, and kept in the run folder."""
    if study.run.variants.exists():
        known = codec.load(Variants, study.run.variants).variants
    else:
        known = tuple(one for base, trials in trained.items() for one in _choose_variants(study, base, trials))
        codec.save(study.run.variants, Variants(variants=known))
    return [variants.describe_model(one, _spec_of(trained[one.of])) for one in known]


def _spec_of(trials: Mapping[int, Trial]) -> ModelSpec:
    return next(iter(trials.values())).model


def _choose_variants(study: Study, base: Candidate, trials: Mapping[int, Trial]) -> list[Variant]:
    settings, spec = study.settings, _spec_of(trials)
    sizes = settings.image_sizes
    if sizes and (base.strategy == JOINT or any(trial.teacher for trial in trials.values())):
        why = "was trained jointly with others" if base.strategy == JOINT else "has a teacher"
        study.reporter.note(f"{base.cut} by {base.strategy} stays at {spec.image_size} px: it {why} at that size")
        sizes = ()
    found = [_find_width(study, base, spec, speedup) for speedup in settings.speedups]
    widths = sorted({*settings.widths, *(width for width in found if width is not None)}, reverse=True)
    different = {narrow_spec(spec, width).layers: width for width in widths}  # channels are rounded: the last stays
    return variants.list_variants(base, sizes=sizes, widths=tuple(different.values()))


def _find_width(study: Study, base: Candidate, spec: ModelSpec, speedup: float) -> float | None:
    """Return the largest width whose measured latency is that many times less; None where there is none."""
    low, high, best = 0, _STEPS, None  # in twentieths: `high` is too slow, `low` is not known to be
    while high - low > 1:
        middle = (low + high) // 2
        width = middle / _STEPS
        ratio = _measure_speedup(study, base, spec, width)
        if ratio is not None and ratio >= speedup:
            low, best = middle, width
        else:
            high = middle
    if best is None:
        study.reporter.note(
            f"{base.cut}: no width from {1 / _STEPS:g} on makes it {speedup:g} times as fast as measured here"
        )
    return best


def _measure_speedup(study: Study, base: Candidate, spec: ModelSpec, width: float) -> float | None:
    """Return the latency at full width over that at a width; None where one of them cannot be measured."""
    whole = variants.describe_model(Variant(of=base), spec)
    narrow = variants.describe_model(Variant(of=base, width=width), spec)
    rows = _profile(study, [narrow, whole]).cuts
    narrow_s, whole_s = rows[0].latency_s, rows[1].latency_s
    return None if narrow_s is None or whole_s is None else whole_s / narrow_s


def _profile(study: Study, models: Sequence[Model]) -> Profile:
    """Measure what variants cost, as far as that is not known yet."""
    specs = {model.variant.cut: model.spec for model in models}
    costs = [model.cost for model in models]
    return profile_cuts(costs, specs, plan=profile_plan(study.settings), progress=study.reporter.step)


def _extend_profile(study: Study, models: Sequence[Model]) -> Profile:
    """Add the costs of variants to the run's profile, each before its cut, so that the full network stays last."""
    profile = codec.load(Profile, study.run.profile)
    known = {row.cut for row in profile.cuts}
    new = [model for model in models if model.variant.cut not in known]
    if not new:
        return profile
    if "profile" in study.settings.skip:
        rows = [replace(describe_costs(one.cost), note="not measured: the profile was left out") for one in new]
    else:
        measured = _profile(study, new)
        rows = list(measured.cuts)
        for text in describe_profile(measured):
            study.reporter.note(text)
    narrow = {model.variant.cut for model in new if model.variant.width != 1}
    rows = [replace(row, peak_bytes=None) if row.cut in narrow else row for row in rows]
    ordered = [row for cut in profile.cuts for row in (*_of_cut(rows, cut), cut)]
    extended = replace(profile, cuts=tuple(ordered))
    codec.save(study.run.profile, extended)
    return extended


def _of_cut(rows: Sequence[CutProfile], cut: CutProfile) -> list[CutProfile]:
    return sorted((row for row in rows if base_cut(row.cut) == cut.cut), key=lambda row: row.macs)


def _keep_feasible(study: Study, profile: Profile, models: Sequence[Model]) -> list[Model]:
    """Return the variants within the limits; a narrowed one needs its wide one, which is then trained too."""
    settings = study.settings
    limits = {name: getattr(settings, name) for name in ("max_latency_s", "max_params", "max_macs")}
    over = over_limits(profile.cuts, **limits)
    left_out = [f"{model.variant.cut}, {over[model.variant.cut]}" for model in models if model.variant.cut in over]
    kept = [model for model in models if model.variant.cut not in over]
    needed = {model.variant.at_full_width.cut for model in kept}
    if left_out:
        study.reporter.note(f"over the limit, and only trained where others begin with it: {'; '.join(left_out)}")
    return [model for model in models if model in kept or model.variant.cut in needed]
