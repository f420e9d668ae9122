"""Who goes to train, val and test: whole patients, classes in proportion, decided by a seed."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.labels import classes_of
from ttl_deploy.errors import DataError
from ttl_deploy.records.data import Label, Split

Part = TypeVar("Part", bound=Hashable)
SPLIT_WORDS: Mapping[str, Split] = MappingProxyType(
    {
        "train": "train",
        "training": "train",
        "val": "val",
        "valid": "val",
        "validation": "val",
        "test": "test",
        "testing": "test",
    }
)
"""What folders and tables call the splits, in any case."""


def group_samples(patients: Sequence[str], hashes: Sequence[str]) -> list[int]:
    """Number the groups of samples that must stay together.

    Samples with the same patient or the same content are together, and whatever hangs on them in
    turn (the connected components of both relations, by union-find).
    """
    parents = list(range(len(patients)))

    def find(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for keys in (patients, hashes):
        first: dict[str, int] = {}
        for position, key in enumerate(keys):
            parents[find(position)] = find(first.setdefault(key, position))
    return [find(position) for position in range(len(patients))]


def assign_splits(
    labels: Sequence[Label],
    groups: Sequence[int],
    *,
    keys: Sequence[str],
    classes: Sequence[str],
    fractions: Mapping[Part, float],
    seed: int,
) -> list[Part]:
    """Give each sample a split so that groups stay whole and every split has about its fraction of each class.

    Greedy: each split first gets one small group of every class it lacks, rarest class first; the
    other groups, large ones first, go where the distance to the wanted class counts shrinks most.
    `keys` (content hashes) make the result independent of the samples' order. Where images can have several
    classes, their number counts as one more class. Raises `DataError` where a class has fewer groups than there
    are splits; of several per image, such a class goes where the others lead it. Folds are divided in the same way.
    """
    members = _sorted_members(groups, keys, seed=seed)
    counts = _count_classes(labels, members, classes=len(classes))
    splits = tuple(fractions)
    if counts.shape[1] == len(classes):
        _require_groups(counts, splits, classes)
    else:
        counts = counts[:, counts.any(axis=0)]  # a class that no image has asks for nothing
    wanted = np.array([[fractions[split]] for split in splits]) * counts.sum(axis=0)
    chosen = _seed_classes(counts, len(splits))
    held = np.zeros_like(wanted)
    for group, split in chosen.items():
        held[split] += counts[group]
    for group in sorted(range(len(members)), key=lambda group: -int(counts[group].sum())):
        if group not in chosen:
            chosen[group] = _neediest(held, wanted, counts[group])
            held[chosen[group]] += counts[group]
    result: list[Part] = [splits[0]] * len(labels)
    for group, split in chosen.items():
        for position in members[group]:
            result[position] = splits[split]
    return result


def choose_groups(
    labels: Sequence[Label], groups: Sequence[int], *, keys: Sequence[str], limit: int, seed: int
) -> list[int]:
    """Return positions of at most `limit` samples: whole groups, classes in their old proportions."""
    members = _sorted_members(groups, keys, seed=seed)
    first = labels[0]
    counts = _count_classes(labels, members, classes=len(first) if isinstance(first, tuple) else _top(labels) + 1)
    room = _share(counts.sum(axis=0), limit / len(labels))
    kept: list[int] = []
    for positions, count in zip(members, counts, strict=True):
        if (count <= room).all():
            room = room - count
            kept.extend(positions)
    return sorted(kept)


def _top(labels: Sequence[Label]) -> int:
    return max(number for label in labels for number in classes_of(label))


def _count_classes(labels: Sequence[Label], members: Sequence[Sequence[int]], *, classes: int) -> NDArray[np.int64]:
    """Return the class counts of every group, `(groups, classes)`; with several per image one more for the images."""
    several = bool(labels) and isinstance(labels[0], tuple)
    counts = np.zeros((len(members), classes + several), dtype=np.int64)
    for group, positions in enumerate(members):
        for position in positions:
            for number in classes_of(labels[position]):
                counts[group, number] += 1
        if several:
            counts[group, classes] = len(positions)
    return counts


def _sorted_members(groups: Sequence[int], keys: Sequence[str], *, seed: int) -> list[list[int]]:
    """Return the positions of each group, the groups in an order that only content and seed decide."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    ordered = sorted(members.values(), key=lambda positions: min(keys[position] for position in positions))
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]


def _require_groups(counts: NDArray[np.int64], splits: Sequence[Part], classes: Sequence[str]) -> None:
    for name, present in zip(classes, (counts > 0).sum(axis=0), strict=True):
        if present < len(splits):
            raise DataError(
                f"class {name!r} has {present} patients (or distinct images); dividing it into "
                f"{_in_words(splits)} needs at least {len(splits)}: add images of this class, or leave it out"
            )


def _in_words(parts: Sequence[Hashable]) -> str:
    return ", ".join(map(str, parts)) if isinstance(parts[0], str) else f"{len(parts)} folds"


def _seed_classes(counts: NDArray[np.int64], splits: int) -> dict[int, int]:
    """Give every split a smallest group of each class that it lacks; rarest class first."""
    chosen: dict[int, int] = {}
    for label in np.argsort((counts > 0).sum(axis=0), kind="stable"):
        if (counts[:, label] > 0).sum() < splits:
            continue
        having = [int(group) for group in np.flatnonzero(counts[:, label])]
        having.sort(key=lambda group: int(counts[group].sum()))
        for split in reversed(range(splits)):
            if any(chosen.get(group) == split for group in having):
                continue
            free = [group for group in having if group not in chosen]
            if free:
                chosen[free[0]] = split
    return chosen


def _neediest(held: NDArray[np.float64], wanted: NDArray[np.float64], added: NDArray[np.int64]) -> int:
    """Return the split whose chi-squared distance to the wanted counts shrinks most.

    Dividing by `wanted` fills all splits evenly at every size of group; without it, the patients
    with many images would all go to train.
    """
    before = (held - wanted) ** 2 / wanted
    after = (held + added - wanted) ** 2 / wanted
    return int(np.argmin((after - before).sum(axis=1)))


def _share(totals: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Take a fraction of the classes' images, whole ones by largest remainder, at least one of each."""
    exact = totals * fraction
    shares: NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    spare = round(exact.sum()) - int(shares.sum())
    for label in np.argsort(np.floor(exact) - exact, kind="stable")[: max(spare, 0)]:
        shares[label] += 1
    return shares
