"""Costs of all candidate cuts before any training: a cut's latency does not depend on its weights.

Latencies are kept between commands (`profile_cache`). What is missing is measured together. Where all
of it is new but other cuts were measured before, one of those is timed again beside the new ones as an
anchor, and a note says if the machine has become another since: figures of two days are comparable
only as far as the anchor is the same. Nothing is corrected by it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ttl_deploy.errors import DataError, TargetUnavailableError
from ttl_deploy.records.models import Cut, ModelSpec
from ttl_deploy.records.trials import CutProfile, Profile
from ttl_deploy.runtime.machine import describe_machine
from ttl_deploy.runtime.measurement import Measurement
from ttl_deploy.runtime.percentiles import median_of_medians
from ttl_deploy.search import profile_cache
from ttl_deploy.search.profile_cache import CachedLatency
from ttl_deploy.search.profile_key import ProfilePlan, latency_keys

Step = Callable[[str, int, int], None]
_UNSTEADY = 0.25
_CHANGED = 0.05
_REMEDY = "close other programs and measure again: `ttl-deploy cuts --latency --measure-again`"


@dataclass(slots=True)
class _Session:
    """What is known of every cut so far, by name; `new` are the cuts of which a round was measured by this command."""

    specs: Mapping[str, ModelSpec]
    keys: Mapping[str, str]
    plan: ProfilePlan
    known: dict[str, CachedLatency]
    new: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def is_whole(self, cut: str) -> bool:
        return cut in self.known and len(self.known[cut].timings) >= self.plan.rounds

    def keep(self, cut: str, measurement: Measurement, size_bytes: int) -> None:
        """Add a round to what is known of a cut, on the disk too."""
        if cut in self.known:
            self.known[cut] = self.known[cut].add(measurement)
        else:
            spec = self.specs[cut]
            self.known[cut] = profile_cache.begin(
                measurement,
                key=self.keys[cut],
                backbone=spec.backbone,
                cut=cut,
                target=self.plan.target,
                size_bytes=size_bytes,
            )
        self.new.add(cut)
        profile_cache.keep(self.known[cut])


def profile_cuts(
    cuts: Sequence[Cut],
    specs: Mapping[str, ModelSpec],
    *,
    plan: ProfilePlan,
    progress: Step,
    measure_again: bool = False,
) -> Profile:
    """Return all cuts with their costs; latencies that were not measured before are measured, and kept.

    `specs` are their models, by the cuts' names: those of variants are longer than what their models are cut at.
    `measure_again` ignores what was measured before. An interruption keeps every finished round. Raises
    `TargetUnavailableError` where no cut can be timed on the target.
    """
    session = _Session(specs=specs, keys=latency_keys(specs, plan), plan=plan, known={})
    if not measure_again:
        _recall(session)
    missing = [cut.name for cut in cuts if not session.is_whole(cut.name)]
    reasons = _measure(session, missing, progress) if missing else {}
    whole = [session.known[cut.name] for cut in cuts if session.is_whole(cut.name)]
    if not whole:
        why = next(iter(reasons.values()))
        raise TargetUnavailableError(f"no cut could be timed on {plan.target} ({why}): try another target")
    machine = describe_machine(load_before=0.0, load_after=0.0)
    rows = tuple(_measured(session, cut, reasons.get(cut.name, "")) for cut in cuts)
    return Profile(
        target=plan.target,
        runtime=whole[0].runtime,
        precision=whole[0].precision,
        threads=plan.threads,
        batch=1,
        machine=machine.processor,
        cuts=rows,
        image_size=specs[cuts[-1].name].image_size,
        notes=(*session.notes, *_unsteady_note(rows)),
    )


def describe_without_latency(cuts: Sequence[Cut], *, target: str, image_size: int) -> Profile:
    """Return all cuts with the costs that need no measuring; `target` is where latencies would have been measured."""
    return Profile(
        target=target,
        runtime="",
        precision="",
        threads=1,
        batch=1,
        machine="",
        cuts=tuple(replace(describe_costs(cut), note="not measured: the profile was left out") for cut in cuts),
        image_size=image_size,
    )


def describe_costs(cut: Cut) -> CutProfile:
    """Return what is known of a cut without measuring anything."""
    return CutProfile(
        cut=cut.name,
        params=cut.params,
        macs=cut.macs,
        layers=cut.layers,
        params_share=cut.params_share,
        macs_share=cut.macs_share,
        size_bytes=0,
        latency_s=None,
        latency_noise_s=None,
        stage=cut.stage,
        weights_bytes=cut.weights_bytes,
        peak_bytes=cut.peak_bytes,
        receptive_field=cut.receptive_field,
        global_context=cut.global_context,
    )


def describe_profile(profile: Profile) -> tuple[str, ...]:
    """Say in a few lines what a reader of the latencies should know: where they come from, which are missing."""
    lines = [f"{cut.cut} has no latency: {cut.note}" for cut in profile.cuts if cut.note]
    if times := sorted(cut.measured.partition("T")[0] for cut in profile.cuts if cut.cached):
        when = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
        lines.append(f"{len(times)} of {len(profile.cuts)} latencies come from the cache, measured {when}")
    return (*lines, *profile.notes)


def _recall(session: _Session) -> None:
    """Read what earlier commands measured; a damaged entry is measured again."""
    for cut, key in session.keys.items():
        try:
            found = profile_cache.read(key)
        except DataError as error:
            session.notes.append(f"the latency of {cut} is measured again: {error}")
            continue
        if found is not None:
            session.known[cut] = found


def _measure(session: _Session, missing: Sequence[str], progress: Step) -> dict[str, str]:
    """Measure the missing cuts together, with an anchor where they need one; returns why some could not be."""
    # Needs the exporters; a command that finds everything in the cache starts a second sooner without them.
    from ttl_deploy.search.measuring import Job, measure_jobs

    jobs = {
        cut: Job(
            spec=session.specs[cut],
            rounds_done=len(session.known[cut].timings) if cut in session.known else 0,
            keep=partial(session.keep, cut),
        )
        for cut in missing
    }
    again: list[Measurement] = []
    anchor = _choose_anchor(session, missing)
    if anchor:
        jobs[anchor] = Job(spec=session.specs[anchor], rounds_done=0, keep=lambda timed, size: again.append(timed))
    ordered = [cut for cut in session.specs if cut in jobs]
    reasons = measure_jobs([jobs[cut] for cut in ordered], session.plan, progress=progress)
    if anchor and len(again) == session.plan.rounds:
        session.notes += _compare_anchor(session.known[anchor], again)
    return {ordered[position]: reason for position, reason in reasons.items()}


def _choose_anchor(session: _Session, missing: Sequence[str]) -> str | None:
    """Return the deepest cut measured before, whose noise weighs least, where a missing cut shares no round with it."""
    before = [cut for cut in session.specs if session.is_whole(cut)]
    return before[-1] if before and any(cut not in session.known for cut in missing) else None


def _compare_anchor(before: CachedLatency, again: Sequence[Measurement]) -> list[str]:
    now_s, noise_s = median_of_medians([one.timing for one in again])
    difference_s = now_s - before.median_s
    if abs(difference_s) <= max(noise_s, before.noise_s, _CHANGED * before.median_s):
        return []
    word = "slower" if difference_s > 0 else "faster"
    return [
        f"this machine is now {abs(difference_s) / before.median_s:.0%} {word} than on {before.measured} "
        f"({before.cut} took {1e3 * before.median_s:.3g} ms, now {1e3 * now_s:.3g} ms), so latencies measured before "
        f"do not compare with the new ones: {_REMEDY}"
    ]


def _measured(session: _Session, cut: Cut, reason: str) -> CutProfile:
    costs = describe_costs(cut)
    latency = session.known.get(cut.name)
    if latency is None or not session.is_whole(cut.name):
        return replace(costs, size_bytes=latency.size_bytes if latency else 0, note=reason)
    return replace(
        costs,
        size_bytes=latency.size_bytes,
        latency_s=latency.median_s,
        latency_noise_s=latency.noise_s,
        measured=latency.measured,
        cached=cut.name not in session.new,
    )


def _unsteady_note(rows: Sequence[CutProfile]) -> list[str]:
    unsteady = [
        row.cut
        for row in rows
        if row.latency_s is not None and (row.latency_noise_s or 0.0) > _UNSTEADY * row.latency_s
    ]
    if not unsteady:
        return []
    named = ", ".join(unsteady[:5]) + (" …" if len(unsteady) > 5 else "")
    return [
        f"{len(unsteady)} of {len(rows)} latencies differ by more than {_UNSTEADY:.0%} between processes ({named}): "
        f"{_REMEDY}"
    ]
