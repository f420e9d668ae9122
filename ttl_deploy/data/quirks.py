"""What does not stop a run and should be known when its numbers are read."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ttl_deploy.data.labels import classes_of, name_label
from ttl_deploy.records.data import SPLITS, DataWarning, Sample, Split

_WORTH_NAMING_RATIO = 2.5
_WORTH_NAMING_SHIFT = 0.1
_FEW_IMAGES = 10


def find_quirks(samples: Sequence[Sample], classes: Sequence[str], *, patients_known: bool) -> Iterator[DataWarning]:
    """Yield a warning for everything remarkable; `kind` is a stable word."""
    if not patients_known:
        yield DataWarning(
            kind="no-patient-ids",
            message="the source names no patients: every distinct image counts as a patient of its own, so images "
            "of one patient may stand in several splits and intervals may be too narrow",
        )
    yield from _find_copies(samples, classes)
    yield from _find_imbalance(samples, classes)


def _find_copies(samples: Sequence[Sample], classes: Sequence[str]) -> Iterator[DataWarning]:
    by_content: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_content[sample.sha256].append(sample)
    copies = [same for same in by_content.values() if len(same) > 1]
    if not copies:
        return
    several = sum(1 for same in copies if len({sample.patient_id for sample in same}) > 1)
    yield DataWarning(
        kind="identical-images",
        message=f"{len(copies)} groups of byte-identical files ({several} of them under different patients); "
        f"such as {copies[0][0].path} and {copies[0][1].path}. Copies stay in one split",
    )
    torn = [same for same in copies if len({sample.label for sample in same}) > 1]
    if torn:
        named = " and ".join(f"{sample.path} ({name_label(sample.label, classes)})" for sample in torn[0][:4])
        yield DataWarning(
            kind="conflicting-labels",
            message=f"{len(torn)} groups of byte-identical files have different labels; such as {named}",
        )


def _find_imbalance(samples: Sequence[Sample], classes: Sequence[str]) -> Iterator[DataWarning]:
    by_split = {split: [sample for sample in samples if sample.split == split] for split in SPLITS}
    counts = {split: Counter(n for sample in by_split[split] for n in classes_of(sample.label)) for split in SPLITS}
    images = {split: len(by_split[split]) for split in SPLITS}
    for split in SPLITS:
        yield from _find_rare_classes(split, counts[split], classes)
    train = counts["train"]
    largest, smallest = (pick(range(len(classes)), key=lambda label: train[label]) for pick in (max, min))
    ratio = train[largest] / max(train[smallest], 1)
    if ratio >= _WORTH_NAMING_RATIO:
        yield DataWarning(
            kind="class-imbalance",
            message=f"train holds {ratio:.1f} times as many images of {classes[largest]!r} ({train[largest]}) "
            f"as of {classes[smallest]!r} ({train[smallest]})",
        )
    yield from _find_shift(counts, images, classes)


def _find_rare_classes(split: Split, counts: Counter[int], classes: Sequence[str]) -> Iterator[DataWarning]:
    for label, name in enumerate(classes):
        if counts[label] == 0:
            yield DataWarning(
                kind="class-missing",
                message=f"{split} holds no image of class {name!r}: its scores are undefined there",
            )
        elif counts[label] < _FEW_IMAGES:
            yield DataWarning(kind="few-images", message=f"{split} holds only {counts[label]} images of class {name!r}")


def _find_shift(
    counts: Mapping[Split, Counter[int]], images: Mapping[Split, int], classes: Sequence[str]
) -> Iterator[DataWarning]:
    if not images["train"] or not images["test"]:
        return
    for label, name in enumerate(classes):
        before, after = (counts[split][label] / images[split] for split in ("train", "test"))
        if abs(after - before) >= _WORTH_NAMING_SHIFT:
            yield DataWarning(
                kind="prevalence-shift",
                message=f"class {name!r} makes {before:.0%} of train and {after:.0%} of test: "
                "a threshold fitted on one may not suit the other",
            )
            return
