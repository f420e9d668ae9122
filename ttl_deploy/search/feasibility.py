"""Which candidates are worth training: what a limit rules out is known from their costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ttl_deploy.evidence.choice import check_feasible, over_limits
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.models import FULL, Cut
from ttl_deploy.records.trials import Profile, SearchSettings
from ttl_deploy.search.profile import describe_costs

_NAMED = 3
_LISTED = 5


def refuse_by_size(settings: SearchSettings, cuts: Sequence[Cut]) -> None:
    """Raise `InfeasibleError` where no cut meets the limits on parameters and MACs, which need no measurement."""
    limits = _limits(settings)
    limits.pop("max_latency_s")
    check_feasible([describe_costs(cut) for cut in cuts], **limits, remedy=_remedy(settings, cuts))


def keep_feasible(
    settings: SearchSettings, profile: Profile, cuts: Sequence[Cut], *, note: Callable[[str], None]
) -> tuple[Cut, ...]:
    """Return the cuts to train: those within the limits, and the full network as the reference, whatever it costs.

    Notes in one line what is left out and why. Raises `InfeasibleError` where no cut meets the limits.
    """
    check_feasible(profile.cuts, **_limits(settings), remedy=_remedy(settings, cuts))
    over = over_limits(profile.cuts, **_limits(settings))
    if over:
        note(". ".join(_name_left_out(over)))
    return tuple(cut for cut in cuts if cut.name == FULL or cut.name not in over)


def _name_left_out(over: Mapping[str, str]) -> Iterator[str]:
    left_out = [f"{cut}, {why}" for cut, why in over.items() if cut != FULL]
    if left_out:
        more = f"; and {len(left_out) - _LISTED} more" if len(left_out) > _LISTED else ""
        yield f"over the limit, and not trained: {'; '.join(left_out[:_LISTED])}{more}"
    if FULL in over:
        yield f"{FULL}, {over[FULL]}, is trained as the reference only"


def _limits(settings: SearchSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in ("max_latency_s", "max_params", "max_macs")}


def _remedy(settings: SearchSettings, cuts: Sequence[Cut]) -> str:
    """Say what else could be searched: the cuts before the shallowest candidate, if there are any."""
    known = list_cuts(settings.backbone, image_size=settings.decode.image_size, classes=2, pool=settings.pool)
    shallower = [cut.name for cut in known if cut.depth < min(candidate.depth for candidate in cuts)]
    if not shallower:
        return "These are the shallowest cuts: raise the limit, or take smaller images or another backbone"
    named = ",".join(shallower[-_NAMED:])
    return (
        f"{len(shallower)} shallower cuts are no candidates yet: name some, such as --cuts {named}, or all of them "
        f"with --cuts all (`ttl-deploy cuts --backbone {settings.backbone} --latency` times them); or raise the limit"
    )
