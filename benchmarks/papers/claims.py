"""What the papers say, and whether the same is seen here; each claim is judged by a stated rule, in every split."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from experiments import Experiment
from outcomes import NotMadeError, Outcome, Row
from rules import (
    ABOVE,
    EQUAL,
    LOW,
    MARGIN,
    NEARLY,
    NOT_WORSE,
    POINTS,
    Seen,
    Verdict,
    faster,
    goal_of,
    is_about_as_fast,
    is_above,
    is_below,
    is_equal,
    is_not_worse,
    tell,
)

FEW, MANY = 20_000, 100_000
"""TransFusion's few are 5,000 training images, its many 250,000: what lies between is neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence of a paper with its figures, what was seen here, the rule, and the verdict."""

    experiment: str
    paper: str
    said: str
    seen: str
    rule: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    said: str
    rule: str
    judge: Callable[[Outcome], Seen]


def judge(experiments: Sequence[Experiment], outcomes: Mapping[str, Outcome]) -> Iterator[Claim]:
    """Judge every claim of these experiments; where what it needs was not made, it cannot be told."""
    for experiment in experiments:
        for one in _STATEMENTS[experiment.name]:
            try:
                if experiment.left_out:
                    raise NotMadeError(f"not run: {experiment.left_out}")
                seen, verdict = one.judge(outcomes[experiment.name])
            except NotMadeError as error:
                seen, verdict = str(error), "cannot be told"
            yield Claim(
                experiment=experiment.name,
                paper=experiment.paper,
                said=one.said,
                seen=seen,
                rule=one.rule,
                verdict=verdict,
            )


def count(claims: Sequence[Claim]) -> dict[Verdict, int]:
    """Return how many claims have each verdict."""
    verdicts: tuple[Verdict, ...] = ("agrees", "does not agree", "cannot be told")
    return {verdict: sum(one.verdict == verdict for one in claims) for verdict in verdicts}


# ---- TTL ----


def _a_cut_is_enough(found: Outcome) -> Seen:
    others = [row for row in found.rows[1:] if row.auroc is not None]
    if not others:
        raise NotMadeError("no cut was trained")
    level = 1 - 0.05 / len(others)
    compared = [(row, found.compare(row, found.reference, level=level)) for row in others]
    good = [(row, some) for row, some in compared if all(one.low > -MARGIN for one in some)]
    if good:
        row, some = min(good, key=lambda pair: pair[0].macs_share)
        size = f"{row.params_share:.0%} of the parameters and {row.macs_share:.0%} of the MACs"
        return f"{row.entrant.cut} with {size}: difference {tell(some)}", "agrees"
    possible = any(one.high > -MARGIN for _, some in compared for one in some)
    return "no cut excludes a loss of the margin", "cannot be told" if possible else "does not agree"


def _rises_then_is_flat(found: Outcome) -> Seen:
    scored = sorted((row for row in found.rows if row.auroc is not None), key=lambda row: row.macs_share)
    if len(scored) < 3:
        raise NotMadeError("fewer than three cuts were trained")
    best = max(row.auroc or 0.0 for row in scored)
    first = next(row for row in scored if (row.auroc or 0.0) >= best - MARGIN)
    rises = (scored[0].auroc or 0.0) < best - 2 * MARGIN
    seen = (
        f"{scored[0].entrant.cut} {100 * (scored[0].auroc or 0.0):.1f}; within {POINTS} of the best "
        f"({100 * best:.1f}) from "
        f"{first.entrant.cut} on, {first.macs_share:.0%} of the MACs"
    )
    return seen, "agrees" if rises and first.macs_share <= 0.8 else "does not agree"


def _frozen_cut_is_worse(found: Outcome) -> Seen:
    frozen = found.row("FAT")
    tuned = [row for row in found.rows if (row.entrant.cut, row.entrant.strategy) == (frozen.entrant.cut, "full")]
    return is_below(found, frozen, tuned[0])


# ---- TransFusion ----


def _ends_lower_with_few(found: Outcome) -> Seen:
    if max(found.images) > FEW:
        raise NotMadeError(f"{max(found.images):,} training images here are not few")
    return is_below(found, found.row("random"), found.row("transfer"))


def _ends_as_well_with_many(found: Outcome) -> Seen:
    if min(found.images) < MANY:
        raise NotMadeError(f"{min(found.images):,} training images here are not many")
    return is_equal(found, found.row("random"), found.row("transfer"))


def _small_cbr(found: Outcome) -> Row:
    """Return the CBR network of which figures are published, LargeT, or the smallest; small against the reference."""
    random = [row for row in found.rows if row.entrant.name.startswith("CBR") and row.entrant.strategy == "full"]
    trained = [row for row in random if row.auroc is not None]
    if not trained:
        raise NotMadeError("no CBR network could be trained")
    published = [row for row in trained if row.entrant.name.startswith("CBR-LargeT")]
    chosen = min(published or trained, key=lambda row: row.params_share)
    if chosen.params_share >= 1:
        raise NotMadeError(f"{chosen.entrant.backbone} is not smaller than {found.experiment.network} here")
    return chosen


def _cbr_against(name: str) -> Callable[[Outcome], Seen]:
    def judge_it(found: Outcome) -> Seen:
        small = _small_cbr(found)
        seen, verdict = is_not_worse(found, small, found.row(name))
        return f"`{small.entrant.backbone}`, {small.params_share:.0%} of the parameters: {seen}", verdict

    return judge_it


def _gabor_helps_cbr(found: Outcome) -> Seen:
    gabor = next((row for row in found.rows if row.entrant.name.endswith(", Gabor") and row.auroc is not None), None)
    same = [row for row in found.rows if gabor is not None and row.entrant.backbone == gabor.entrant.backbone]
    random = next((row for row in same if row.entrant.strategy == "full" and row.auroc is not None), None)
    if gabor is None or random is None:
        raise NotMadeError("no CBR network could be trained from both")
    # A goal of their own: a CBR network need not come near the large one's best.
    return faster(gabor, [random], goal_of([gabor, random]))


def _reaches_faster(quick: str, slow: str) -> Callable[[Outcome], Seen]:
    return lambda found: faster(found.row(quick), [found.row(slow)], goal_of(found.rows))


_FASTER = f"fewer steps until validation has {NEARLY:.1%} of the way from chance to the best here; equal cannot be told"
_STATEMENTS: Mapping[str, tuple[_Statement, ...]] = {
    "ttl-sweep": (
        _Statement(
            said="a truncated network is as good as the whole: k = 12 with 27 % of the parameters and 70 % of the MACs "
            "has AUROC 86.1 ± 1.3, the whole 84.9 ± 0.1",
            rule="a cut's paired interval, 95 % for all cuts together (Bonferroni), lies above "
            f"-{POINTS} in every split",
            judge=_a_cut_is_enough,
        ),
        _Statement(
            said="scores rise with depth to about k = 9 (53 % of the MACs) and are flat from there on",
            rule=f"the shallowest cut is more than twice {POINTS} below the best, and some cut at up to 80 % of the "
            f"MACs is within {POINTS} of it",
            judge=_rises_then_is_flat,
        ),
    ),
    "ttl-ways": (
        _Statement(
            said="TF, with half the width above, is as good as the whole: 85.10 ± 0.18 against 84.9 ± 0.1",
            rule=EQUAL,
            judge=lambda found: is_equal(found, found.row("TF"), found.row("FTL")),
        ),
        _Statement(
            said="truncating (TTL, 86.1 ± 1.3) is no worse than narrowing the same part (TF, 85.10 ± 0.18)",
            rule=NOT_WORSE,
            judge=lambda found: is_not_worse(found, found.row("TTL-2"), found.row("TF")),
        ),
        _Statement(
            said="freezing the truncated trunk (FAT, 82.4 at block 3) is worse than finetuning it (85.1)",
            rule=LOW,
            judge=_frozen_cut_is_worse,
        ),
        _Statement(
            said="freezing the lowest layers (LWFT) makes no difference: 84.8 ± 0.2 against 84.9 ± 0.1",
            rule=EQUAL,
            judge=lambda found: is_equal(found, found.row("LWFT-1"), found.row("FTL")),
        ),
        _Statement(
            said="freezing all layers is worse: 73.3 ± 0.5 against 84.9 ± 0.1",
            rule=LOW,
            judge=lambda found: is_below(found, found.row("LWFT, all frozen"), found.row("FTL")),
        ),
    ),
    "transfusion": (
        _Statement(
            said="with few images (5,000) random weights end lower than transfer: 92.2 against 94.6",
            rule=LOW,
            judge=_ends_lower_with_few,
        ),
        _Statement(
            said="with many images (250,000) random weights end as well as transfer: 96.4 against 96.7",
            rule=EQUAL,
            judge=_ends_as_well_with_many,
        ),
        _Statement(
            said="transfer learns faster than random: 8,008 steps against 69,069",
            rule=_FASTER,
            judge=_reaches_faster("transfer", "random"),
        ),
        _Statement(
            said="the statistics of the weights alone (Mean-Var) already make learning faster than random",
            rule=_FASTER,
            judge=_reaches_faster("Mean-Var", "random"),
        ),
        _Statement(
            said="Gabor filters in the first layer make learning faster than random: 25,425 steps against 69,069",
            rule=_FASTER,
            judge=_reaches_faster("Gabor", "random"),
        ),
        _Statement(
            said="Slim learns about as fast as transfer: 8,208 steps against 8,008",
            rule="at most one epoch or half as many steps more than transfer until that validation AUROC",
            judge=lambda found: is_about_as_fast(found.row("Slim"), found.row("transfer"), goal_of(found.rows)),
        ),
        _Statement(
            said="Slim ends as well as transfer",
            rule=EQUAL,
            judge=lambda found: is_equal(found, found.row("Slim"), found.row("transfer")),
        ),
        _Statement(
            said="reuse is confined to the lowest two stages: with these alone the end is the same",
            rule=EQUAL,
            judge=lambda found: is_equal(found, found.row("only two stages"), found.row("transfer")),
        ),
    ),
    "transfusion-cbr": (
        _Statement(
            said="a small network from random weights ends about as well as the large one from ImageNet: CBR-LargeT "
            "93.6 against 94.6 with 5,000 images, 96.2 against 96.7 with 250,000",
            rule=f"{NOT_WORSE}; of LargeT or else the smallest CBR network, with fewer parameters than the large one",
            judge=_cbr_against("ResNet-50, transfer"),
        ),
        _Statement(
            said="with few images a small network is no worse than the large one, both from random weights: 93.6 "
            "against 92.2",
            rule=f"{NOT_WORSE}; of LargeT or else the smallest CBR network, with fewer parameters than the large one",
            judge=_cbr_against("ResNet-50, random"),
        ),
        _Statement(
            said="Gabor filters make CBR learn faster too: 82,082 steps against 104,104 (CBR-LargeW)",
            rule=f"fewer steps until {NEARLY:.1%} of the way from chance to the better one's best; equal cannot be "
            "told",
            judge=_gabor_helps_cbr,
        ),
    ),
    "davila": (
        _Statement(
            said="linear probing alone is often weak",
            rule=LOW,
            judge=lambda found: is_below(found, found.row("LP"), found.row("FT")),
        ),
        _Statement(
            said="LP-FT is better than plain finetuning in more than half of the cases",
            rule=f"{ABOVE}; one data set is one case only",
            judge=lambda found: is_above(found, found.row("LP-FT"), found.row("FT")),
        ),
    ),
}
