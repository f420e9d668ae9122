"""What the papers say, and whether the same is seen here; each claim is judged by a stated rule, in every split."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from outcomes import Outcome, Row

from ttl_deploy.records.scores import PairedDifference

Verdict = Literal["agrees", "does not agree", "cannot be told"]
MARGIN = 0.02
"""A difference of AUROC that matters, as in the searches."""
NEARLY = 0.95
"""Fast learning is asked for by the epochs until this share of the best validation AUROC above chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence of a paper with its figures, what was seen here, the rule, and the verdict."""

    paper: str
    said: str
    seen: str
    rule: str
    verdict: Verdict


Outcomes = Mapping[str, Outcome]


def judge(outcomes: Outcomes) -> Iterator[Claim]:
    """Judge every claim whose experiment was made."""
    for experiment, judges in _JUDGES.items():
        if experiment in outcomes:
            for one in judges:
                yield one(outcomes[experiment])


def _shallow_is_enough(found: Outcome) -> Claim:
    full = found.row("full", "full")
    others = [row for row in found.rows if row.cut != "full" and row.scores]
    compared = {row.cut: found.compare(row, full) for row in others}
    good = [row for row in others if all(one.low > -MARGIN for one in compared[row.cut])]
    best = min(good, key=lambda row: row.macs_share, default=None)
    seen = "no cut excludes a loss of the margin"
    if best is not None:
        seen = (
            f"{best.cut} with {best.params_share:.0%} of the parameters and {best.macs_share:.0%} of the MACs: "
            f"difference {_tell(compared[best.cut])}"
        )
    possible = any(one.high > -MARGIN for differences in compared.values() for one in differences)
    return Claim(
        paper="TTL",
        said="a truncated network is as good as the whole: k = 12 with 27 % of the parameters and 70 % of the MACs "
        "has AUROC 86.1 ± 1.3, the whole 84.9 ± 0.1",
        seen=seen,
        rule=f"a cut's paired 95 % interval of the difference to the whole lies above -{MARGIN} in every split",
        verdict="agrees" if best else "cannot be told" if possible else "does not agree",
    )


def _rises_then_is_flat(found: Outcome) -> Claim:
    scored = sorted((row for row in found.rows if row.auroc is not None), key=lambda row: row.macs_share)
    best = max(row.auroc or 0.0 for row in scored)
    first = next(row for row in scored if (row.auroc or 0.0) >= best - MARGIN)
    rises = (scored[0].auroc or 0.0) < best - 2 * MARGIN
    return Claim(
        paper="TTL",
        said="scores rise with depth to about k = 9 (53 % of the MACs) and are flat from there on",
        seen=f"{scored[0].cut} {scored[0].auroc:.3f}; within {MARGIN} of the best ({best:.3f}) from {first.cut} on, "
        f"{first.macs_share:.0%} of the MACs",
        rule=f"the shallowest cut is more than {2 * MARGIN} below the best, and some cut at up to 80 % of the MACs is "
        f"within {MARGIN} of it",
        verdict="agrees" if rises and first.macs_share <= 0.8 else "does not agree",
    )


def _freezing_all_is_worse(found: Outcome) -> Claim:
    cut = next(row.cut for row in found.rows if row.cut != "full")
    return _is_below(
        found,
        (cut, "linear-probe"),
        (cut, "full"),
        paper="TTL",
        said="freezing the truncated trunk (FAT, .824 at block 3) is clearly worse than finetuning it (.851)",
    )


def _freezing_the_bottom_is_as_good(found: Outcome) -> Claim:
    frozen = next(row for row in found.rows if row.strategy.startswith("lwft") and row.cut == "full")
    differences = found.compare(frozen, found.row("full", "full"))
    return Claim(
        paper="TTL",
        said="freezing the lowest layers (LWFT) makes no difference: 84.8 ± 0.2 against 84.9 ± 0.1",
        seen=f"difference {_tell(differences)}",
        rule=f"the paired 95 % interval lies within ±{MARGIN} in every split",
        verdict=_equal(differences),
    )


def _random_ends_as_well(found: Outcome) -> Claim:
    differences = found.compare(found.row("full", "scratch"), found.row("full", "full"))
    return Claim(
        paper="TransFusion",
        said="with many images training from random weights ends as well as transfer: AUC 96.4 against 96.7 "
        "(250,000 images); with 5,000 images 92.2 against 94.6",
        seen=f"difference of random to transfer {_tell(differences)}",
        rule=f"the paired 95 % interval lies within ±{MARGIN} in every split; with few images the paper loses too",
        verdict=_equal(differences),
    )


def _transfer_learns_faster(found: Outcome) -> Claim:
    names = {"full": "transfer", "gabor": "Gabor", "mean-var": "Mean-Var", "scratch": "random"}
    rows = {name: found.row("full", strategy) for strategy, name in names.items()}
    goal = _goal(found.rows)
    epochs = {name: row.epochs_until(goal) for name, row in rows.items()}
    told = ", ".join(f"{name} {'never' if at is None else f'{at:g}'}" for name, at in epochs.items())
    never = float("inf")
    transfer, others = (
        epochs["transfer"] or never,
        [never if at is None else at for name, at in epochs.items() if name != "transfer"],
    )
    verdict: Verdict = "agrees" if all(transfer < at for at in others) else "does not agree"
    if transfer == never or (verdict != "agrees" and all(transfer <= at for at in others)):
        verdict = "cannot be told"
    return Claim(
        paper="TransFusion",
        said="transfer learns fastest, the statistics of the weights alone already help: 8,008 steps, Gabor filters "
        "25,425, random 69,069",
        seen=f"epochs until a validation AUROC of {goal:.3f}: {told}",
        rule="transfer needs fewer epochs than each of the others; as few as another cannot be told",
        verdict=verdict,
    )


def _the_bottom_is_what_helps(found: Outcome) -> Claim:
    prefixes = [row for row in found.rows if row.strategy.startswith("transfusion")]
    longest = prefixes[-1]
    differences = found.compare(longest, found.row("full", "full"))
    return Claim(
        paper="TransFusion",
        said="reuse is confined to the lowest two stages: with these alone learning is as fast and ends as well",
        seen=f"up to {longest.strategy.partition('=')[2]} from ImageNet: difference to transfer {_tell(differences)}",
        rule=f"the paired 95 % interval lies within ±{MARGIN} in every split",
        verdict=_equal(differences),
    )


def _probing_is_weak(found: Outcome) -> Claim:
    return _is_below(
        found,
        ("full", "linear-probe"),
        ("full", "full"),
        paper="Davila 2024",
        said="linear probing alone is often weak",
    )


def _probing_first_helps(found: Outcome) -> Claim:
    differences = found.compare(found.row("full", "lp-ft"), found.row("full", "full"))
    better, worse = all(one.low > 0 for one in differences), all(one.high < 0 for one in differences)
    return Claim(
        paper="Davila 2024",
        said="LP-FT is better than plain finetuning in more than half of the cases",
        seen=f"difference {_tell(differences)}",
        rule="the paired 95 % interval lies above 0 in every split; one data set is one case only",
        verdict="agrees" if better else "does not agree" if worse else "cannot be told",
    )


_JUDGES: Mapping[str, tuple[Callable[[Outcome], Claim], ...]] = {
    "ttl-sweep": (_shallow_is_enough, _rises_then_is_flat),
    "ttl-ways": (_freezing_all_is_worse, _freezing_the_bottom_is_as_good),
    "transfusion": (_random_ends_as_well, _transfer_learns_faster, _the_bottom_is_what_helps),
    "davila": (_probing_is_weak, _probing_first_helps),
}


def _is_below(found: Outcome, lower: tuple[str, str], higher: tuple[str, str], *, paper: str, said: str) -> Claim:
    differences = found.compare(found.row(*lower), found.row(*higher))
    below = all(one.high < 0 for one in differences)
    above = all(one.low > -MARGIN for one in differences)
    return Claim(
        paper=paper,
        said=said,
        seen=f"difference {_tell(differences)}",
        rule=f"the paired 95 % interval lies below 0 in every split; all above -{MARGIN} does not agree",
        verdict="agrees" if below else "does not agree" if above else "cannot be told",
    )


def _equal(differences: Sequence[PairedDifference]) -> Verdict:
    if all(one.low > -MARGIN and one.high < MARGIN for one in differences):
        return "agrees"
    if all(one.high < -MARGIN or one.low > MARGIN for one in differences):
        return "does not agree"
    return "cannot be told"


def _goal(rows: Sequence[Row]) -> float:
    best = max(value for row in rows for curve in row.curves for value in curve)
    return 0.5 + NEARLY * (best - 0.5)


def _tell(differences: Sequence[PairedDifference]) -> str:
    return "; ".join(f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in differences)
