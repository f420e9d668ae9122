"""Which variants a search trains, what they are as models, and what they cost.

Width and input size multiply the number of trainings, so they are tried on few candidates: the one that would be
chosen without them, and the full network, beside which narrowing and truncation can be compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ttl_deploy.evidence.choice import choose
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.width.costs import count_costs
from ttl_deploy.models.width.pruning import narrow_spec
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.models import FULL, Cut, ModelSpec
from ttl_deploy.records.scores import Front
from ttl_deploy.records.trials import SearchSettings, Trial
from ttl_deploy.records.variants import Variant

TrialsOf = Mapping[Candidate, Mapping[int, Trial]]
"""Trials by candidate and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A variant as a model, with its costs as a cut's."""

    variant: Variant
    spec: ModelSpec
    cost: Cut


def wants_variants(settings: SearchSettings) -> bool:
    """Tell whether the settings ask for variants at all."""
    return bool(settings.widths or settings.speedups or settings.image_sizes)


def most_variants(settings: SearchSettings) -> int:
    """Return how many trainings of variants a search makes at most: two candidates, on every seed."""
    sizes, widths = 1 + len(settings.image_sizes), 1 + len(settings.widths) + len(settings.speedups)
    return 2 * (sizes * widths - 1) * len(settings.seeds) if "confirm" not in settings.skip else 0


def check_variants(settings: SearchSettings) -> None:
    """Refuse input sizes that the backbone cannot take, and widths where it cannot be narrowed, before any work."""
    for size in settings.image_sizes:
        list_cuts(settings.backbone, image_size=size, classes=2, pool=settings.pool)
    whole = ModelSpec(backbone=settings.backbone, cut=FULL, classes=2, image_size=settings.decode.image_size)
    for width in (*settings.widths, *((0.5,) if settings.speedups else ())):
        narrow_spec(whole, width)


def find_bases(settings: SearchSettings, front: Front) -> tuple[Candidate, ...]:
    """Return the candidates to vary: what the settings' rule chooses so far, and the full network."""
    chosen = choose(
        front,
        settings.pick,
        max_latency_s=settings.max_latency_s,
        max_params=settings.max_params,
        max_macs=settings.max_macs,
    )
    reference = [front.point(front.reference).candidate] if front.reference else []
    return tuple(dict.fromkeys([chosen.candidate, *reference]))


def list_variants(base: Candidate, *, sizes: Sequence[int], widths: Sequence[float]) -> list[Variant]:
    """Return the variants of a candidate: every size by every width, but the candidate itself."""
    known = [Variant(of=base, image_size=size, width=width) for size in (None, *sizes) for width in (1.0, *widths)]
    return [variant for variant in known if not variant.is_candidate]


def describe_model(variant: Variant, spec: ModelSpec) -> Model:
    """Return a variant of a candidate's model `spec`, with its costs; raises `UsageError` where there is no such."""
    cuts = list_cuts(
        spec.backbone, image_size=variant.image_size or spec.image_size, classes=spec.classes, pool=spec.pool
    )
    full = list_cuts(spec.backbone, image_size=spec.image_size, classes=spec.classes, pool=spec.pool)[-1]
    cut = next(cut for cut in cuts if cut.name == spec.cut)
    sized = replace(spec, image_size=variant.image_size or spec.image_size)
    narrow = narrow_spec(sized, variant.width) if variant.width != 1 else sized
    costs = count_costs(narrow)
    described = replace(
        cut,
        name=variant.cut,
        stage=False,
        params=costs.params,
        macs=costs.macs,
        weights_bytes=costs.weights_bytes,
        params_share=costs.params / full.params,
        macs_share=costs.macs / full.macs,
    )
    return Model(variant=variant, spec=narrow, cost=described)


def make_trials(models: Sequence[Model], trained: TrialsOf) -> Iterator[Trial]:
    """Yield the trainings of variants on every seed on which their candidate was trained, wide ones first.

    A narrowed model begins with, and learns from, the trained one of its size at full width.
    """
    for model in sorted(models, key=lambda one: one.variant.width != 1):
        variant = model.variant
        for trial in trained[variant.of].values():
            sized = replace(trial, model=model.spec, variant=variant.suffix)
            if variant.width == 1:
                yield sized
                continue
            wide = replace(trial, variant=variant.at_full_width.suffix).key
            yield replace(sized, start=wide, teacher=wide)
