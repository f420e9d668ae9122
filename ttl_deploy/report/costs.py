"""What the search itself cost, in trainings of the full network: a sentence, and a row per stage."""

from dataclasses import dataclass

from ttl_deploy.records.stages import Stage, StageCosts
from ttl_deploy.records.trials import SearchSettings

STAGE_WORDS: dict[Stage, str] = {
    "profile": "counts and times what every cut costs",
    "probe": "reads every cut of the frozen backbone with a linear classifier",
    "joint": "trains all cuts as one network with a head at each",
    "confirm": "trains cuts by themselves",
    "vary": "trains finalists at other widths and input sizes",
    "test": "scores the front on the locked test split",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One stage: `full_trainings` in trainings of the full network, `exhaustive_share` of training everything."""

    stage: Stage
    did: str
    trials: int
    macs: float
    full_trainings: float
    exhaustive_share: float
    seconds: float | None
    told: str


def cost_rows(costs: StageCosts) -> tuple[CostRow, ...]:
    """Return a row per stage that a search has had, in their order."""
    return tuple(
        CostRow(
            stage=one.stage,
            did=STAGE_WORDS[one.stage],
            trials=one.trials,
            macs=one.macs,
            full_trainings=one.macs / costs.full_macs,
            exhaustive_share=one.macs / costs.exhaustive_macs,
            seconds=one.seconds,
            told=one.told,
        )
        for one in costs.stages
    )


def tell_cost(costs: StageCosts, settings: SearchSettings) -> str:
    """Say in a sentence what a search cost, or has cost so far, beside training everything."""
    trainings = format_trainings(costs.macs / costs.full_macs)
    share = format_part((costs.macs - costs.vary_macs) / costs.exhaustive_macs)
    verb, so_far = ("cost", "") if costs.finished else ("has cost", " so far")
    varied = costs.vary_macs / costs.full_macs
    less = f", {format_count(varied)} of them at other widths and input sizes; the others are" if varied else ","
    exhaustive = describe_exhaustive(settings)
    return f"This search {verb} {trainings} of the full network{so_far}{less} {share} of {exhaustive}."


def describe_exhaustive(settings: SearchSettings) -> str:
    """Name what the search is compared with: `training every cut on every seed for all 10 epochs`."""
    epochs = settings.train.epochs
    words = [
        "training every cut",
        *(["by every strategy"] if len(settings.strategies) > 1 else []),
        *(["on every seed"] if len(settings.seeds) > 1 else []),
        f"for all {epochs} epochs" if epochs > 1 else "for an epoch",
    ]
    return " ".join(words)


def format_trainings(count: float) -> str:
    """Write a number of trainings with its word: `4.1 trainings`, `0.03 trainings`, `1 training`."""
    number = format_count(count)
    return f"{number} training{'' if number == '1' else 's'}"


def format_count(count: float) -> str:
    """Write a number of trainings with one digit behind the point, below 1 with two digits that count."""
    text = f"{count:.1f}" if count >= 1 or count == 0 else f"{count:.2g}" if count >= 1e-3 else "under 0.001"
    return text.removesuffix(".0")


def format_part(share: float) -> str:
    """Write a share of all trainings in whole per cent, below one with a digit: `35 %`, `0.3 %`."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "under 0.1 %"
    return f"{percent:.0f} %" if percent >= 1 or percent == 0 else f"{percent:.1f} %"
