"""What grows with depth, as shares of the full network: the numbers behind the two pictures of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import CutProfile

_LEAST_APART = 1 / 28
"""Ticks closer than this share of the axis would run into each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One cost by depth: a share per cut, None where it was not measured; `noise` likewise, all None if exact.

    Colours are of Okabe and Ito's set, which people with any colour vision can tell apart.
    """

    name: str
    colour: str
    marker: str
    shares: tuple[float | None, ...]
    noise: tuple[float | None, ...]


def growths(cuts: Sequence[CutProfile]) -> tuple[Growth, ...]:
    """Return parameters, MACs and, where the full network was timed too, latency as shares of the last cut's."""
    nothing = (None,) * len(cuts)
    params = tuple(cut.params_share for cut in cuts)
    macs = tuple(cut.macs_share for cut in cuts)
    found = (
        Growth(name="parameters", colour="#d55e00", marker="o", shares=params, noise=nothing),
        Growth(name="MACs", colour="#0072b2", marker="s", shares=macs, noise=nothing),
    )
    full_s = next((cut.latency_s for cut in cuts if cut.cut == FULL), None)
    if full_s is None:
        return found
    latency = Growth(
        name="latency",
        colour="#009e73",
        marker="^",
        shares=tuple(None if cut.latency_s is None else cut.latency_s / full_s for cut in cuts),
        noise=tuple(None if cut.latency_noise_s is None else cut.latency_noise_s / full_s for cut in cuts),
    )
    return (*found, latency)


def seen_shares(cuts: Sequence[CutProfile], image_size: int | None) -> tuple[float | None, ...]:
    """Return the side of each cut's receptive field as a share of the image's, at most 1; None where unknown."""
    return tuple(
        None if cut.receptive_field is None or not image_size else min(1.0, cut.receptive_field / image_size)
        for cut in cuts
    )


def name_stages(cuts: Sequence[CutProfile]) -> dict[int, str]:
    """Return positions worth naming on the axis, with short names: the first cut, the stages, the full network.

    Where there is no room for all, later ones win: the first positions lie close together in most networks.
    """
    wanted = [i for i, cut in enumerate(cuts) if cut.stage or cut.cut == FULL or i in (0, len(cuts) - 1)]
    kept: list[int] = []
    for position in reversed(wanted):
        if not kept or kept[-1] - position >= _LEAST_APART * len(cuts):
            kept.append(position)
    names = {position: shorten(cuts[position].cut, cuts) for position in reversed(kept)}
    ends = {position: name.rpartition(".")[2] for position, name in names.items()}
    speak = all(end.isidentifier() for end in ends.values()) and len(set(ends.values())) == len(ends)
    return ends if speak else names


def shorten(name: str, cuts: Sequence[CutProfile]) -> str:
    """Drop the leading parts that all module paths share, such as `features.`, where words follow in all of them."""
    paths = [cut.cut.split(".") for cut in cuts if cut.cut != FULL]
    shared = 0
    while len(paths) > 1 and all(
        len(path) > shared + 1 and path[shared] == paths[0][shared] and path[shared + 1].isidentifier()
        for path in paths
    ):
        shared += 1
    return name if name == FULL else ".".join(name.split(".")[shared:])
