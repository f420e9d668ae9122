"""What lies before a search: its data and candidates, checked as in a real one, and how it may go."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ttl_deploy.data.manifest import limit_train
from ttl_deploy.errors import DataError
from ttl_deploy.models.weights.prepared import find_feeding
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import Manifest
from ttl_deploy.records.forecast import Span
from ttl_deploy.records.models import Cut, ModelSpec
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.search import profile_cache
from ttl_deploy.search.candidates import find_cuts, make_trials
from ttl_deploy.search.costs import epoch_macs
from ttl_deploy.search.environment import find_weights_used
from ttl_deploy.search.feasibility import keep_feasible, refuse_by_size
from ttl_deploy.search.imagined import Course, Possible, follow, imagine_worlds, list_possible
from ttl_deploy.search.preparation import count_images, prepare_data, profile_plan
from ttl_deploy.search.probing import MOST_TRAIN_IMAGES
from ttl_deploy.search.profile import describe_without_latency, profile_cuts
from ttl_deploy.search.profile_key import latency_keys
from ttl_deploy.search.study import check_names
from ttl_deploy.search.variants import most_variants

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What lies before a search: its data, its candidates, and how it goes in every imagined world.

    Attributes:
        cuts: all candidates; `possible.cuts` those of them that are within the limits.
        unmeasured: the models whose latency would be measured.
        probed: the part of the data that a probe would see.
        macs: of one image, by cut.
        exhaustive_macs: what it would cost to train all candidates within the limits by every strategy, on every seed.
    """

    settings: SearchSettings
    manifest: Manifest
    cuts: tuple[Cut, ...]
    unmeasured: tuple[ModelSpec, ...]
    possible: Possible
    courses: tuple[Course, ...]
    images: Mapping[str, int]
    probed: Manifest
    macs: Mapping[str, int]
    patience: int
    exhaustive_macs: float

    @property
    def probe_images(self) -> int:
        """How many images a probe would see."""
        return len(self.probed.of_split("train")) + self.images["val"]

    def probe_macs(self, course: Course) -> float:
        """Return what the probe of a course costs, in multiply-accumulates."""
        return float(self.macs[self.possible.covered[-1].name] * self.probe_images) if course.probed else 0.0

    def span(self, value: Callable[[Course, int], float]) -> Span:
        """Return the span of something over all worlds, with trainings that stop as early as they may, or never."""
        return Span.over(value(course, patience) for course in self.courses for patience in (0, self.patience))

    def trainings_macs(self, course: Course, patience: int, *, joint: bool) -> float:
        """Return what the joint trainings of a course cost, or all others."""
        return sum(
            part.epochs(patience) * epoch_macs(part.trial, self.macs, self.images)
            for part in course.parts
            if bool(part.trial.model.exits) == joint
        )

    def test_macs(self, course: Course) -> Span:
        """Return what testing costs: the reference on one seed at least, at most all that is trained to its end."""
        if "test" in self.settings.skip:
            return Span(least=0, most=0)
        tested = [float(self.macs[cut] * self.images["test"]) for cut in tested_cuts(course)]
        return Span(least=max(tested, default=0.0), most=sum(tested))


def tested_cuts(course: Course) -> list[str]:
    """Return the cut of every model that may be tested, once for each: trials with a result, exits among them."""
    ended = [part.trial for part in course.parts if part.end == part.trial.train.epochs]
    return [cut for trial in ended for cut in trial.model.exits or (trial.model.cut,)]


def look_ahead(settings: SearchSettings, *, note: Note, progress: Progress) -> Prospect:
    """Read and check all that a search would, and imagine how it may go; raises what the search would raise."""
    check_names(settings)
    feeding = find_feeding(
        settings.weights, settings.backbone, image_size=settings.decode.image_size, normalise=settings.normalise
    )
    manifest = prepare_data(settings, progress=progress)
    for warning in manifest.warnings:
        note(f"data: {warning.message}")
    if most := most_variants(settings):
        note(
            f"at most {most} more trainings follow, of the choice and the full network at other widths and sizes: what "
            "they take is not in this forecast"
        )
    classes, images = len(manifest.classes), count_images(manifest)
    cuts = find_cuts(settings, classes=classes)
    trials = make_trials(settings, cuts, classes=classes, feeding=feeding, multilabel=manifest.multilabel)
    used = find_weights_used(settings, cuts)
    macs = {cut.name: cut.macs for cut in cuts}
    uncovered = {one.cut for one in used.cuts if not one.covered}
    specs = [trials[cut.name, settings.strategies[0], settings.seeds[0]].model for cut in cuts]
    unmeasured = _find_unmeasured(settings, specs)
    wanted = _keep_feasible(settings, cuts, specs, measured=not unmeasured, note=note)
    possible = list_possible(settings, wanted, {cut.name for cut in wanted} - uncovered, trials)
    probed = limit_train(manifest, MOST_TRAIN_IMAGES, seed=settings.split_seed) if possible.can_probe else manifest
    return Prospect(
        settings=settings,
        manifest=manifest,
        cuts=cuts,
        unmeasured=unmeasured,
        possible=possible,
        courses=tuple(dict.fromkeys(follow(possible, world) for world in imagine_worlds(wanted))),
        images=images,
        probed=probed,
        macs=macs,
        patience=settings.train.patience,
        exhaustive_macs=sum(
            trial.train.epochs * epoch_macs(trial, macs, images)
            for (cut, _, _), trial in trials.items()
            if cut in {one.name for one in wanted}
        ),
    )


def _find_unmeasured(settings: SearchSettings, specs: Sequence[ModelSpec]) -> tuple[ModelSpec, ...]:
    """Return the models whose latency a search would measure; none where it leaves out the profile."""
    if "profile" in settings.skip:
        return ()
    plan = profile_plan(settings)
    keys = latency_keys({spec.cut: spec for spec in specs}, plan)
    return tuple(spec for spec in specs if _count_rounds(keys[spec.cut]) < plan.rounds)


def _count_rounds(key: str) -> int:
    try:
        found = profile_cache.read(key)
    except DataError:  # a damaged entry is measured again
        return 0
    return len(found.timings) if found else 0


def _keep_feasible(
    settings: SearchSettings, cuts: tuple[Cut, ...], specs: Sequence[ModelSpec], *, measured: bool, note: Note
) -> tuple[Cut, ...]:
    """Return the cuts within the limits as far as these are known: latencies that are not measured yet are not."""
    refuse_by_size(settings, cuts)
    if measured and "profile" not in settings.skip:
        by_name = {spec.cut: spec for spec in specs}
        profile = profile_cuts(cuts, by_name, plan=profile_plan(settings), progress=lambda stage, done, total: None)
        return keep_feasible(settings, profile, cuts, note=note)
    if settings.max_latency_s is not None:
        note("latencies are not measured yet: cuts over --max-latency would not be trained, so it may become less")
    size, target = settings.decode.image_size, settings.profile_target
    profile = describe_without_latency(cuts, target=target, image_size=size)
    return keep_feasible(replace(settings, max_latency_s=None), profile, cuts, note=note)
