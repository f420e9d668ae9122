"""The similarity of pairs of networks, cut by cut."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ttl_deploy.analysis import similarity
from ttl_deploy.analysis.features import AtCut, Network, collect_by_cut
from ttl_deploy.analysis.similarity import Directions
from ttl_deploy.records.analysis import LayerSimilarity, Pair
from ttl_deploy.records.models import Cut
from ttl_deploy.training.batches import LabelledPixels

NOISE_SEED = 0


def compare_layers(
    networks: Mapping[str, Network],
    pairs: Mapping[Pair, tuple[str, str]],
    cuts: Sequence[Cut],
    data: LabelledPixels,
    *,
    positions: Mapping[str, NDArray[np.int64]],
    device: torch.device,
    progress: Callable[[int, int], None],
) -> tuple[LayerSimilarity, ...]:
    """Compare pairs of networks, named by what they are in `networks`, at every cut that both have.

    Results are ordered by pair, and within one shallow to deep.
    """
    found: dict[Pair, list[LayerSimilarity]] = {pair: [] for pair in pairs}
    for cut, features in collect_by_cut(networks, cuts, data, positions=positions, device=device, progress=progress):
        for one in _compare_at(cut, features, pairs):
            found[one.pair].append(one)
    return tuple(one for rows in found.values() for one in rows)


def _compare_at(
    cut: Cut, features: Mapping[str, AtCut], pairs: Mapping[Pair, tuple[str, str]]
) -> Iterator[LayerSimilarity]:
    here = {pair: names for pair, names in pairs.items() if all(name in features for name in names)}
    kept = {
        name: similarity.find_directions(features[name].positions) for name in {n for two in here.values() for n in two}
    }
    for pair, (one, other) in here.items():
        yield compare_features(pair, cut.name, (kept[one], kept[other]), (features[one].pooled, features[other].pooled))


def compare_features(
    pair: Pair, cut: str, kept: tuple[Directions, Directions], pooled: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> LayerSimilarity:
    """Compare two networks at a cut by their directions (SVCCA) and averaged features (CKA)."""
    cka = similarity.debiased_cka(*pooled)
    reason = similarity.explain_undefined(*kept)
    samples, counts = kept[0].samples, (kept[0].count, kept[1].count)
    return LayerSimilarity(
        pair=pair,
        cut=cut,
        samples=samples,
        directions=counts,
        svcca=None if reason else float(similarity.correlate(*kept).mean()),
        svcca_noise=None if reason else float(similarity.correlate_noise(samples, counts, seed=NOISE_SEED).mean()),
        noise_edge=None if reason else similarity.noise_edge(samples, counts),
        svcca_reason=reason,
        cka=cka,
        cka_reason="the features are the same for all images" if cka is None else "",
    )
