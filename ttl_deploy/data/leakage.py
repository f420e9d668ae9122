"""The check that stops a run: nobody and no image stands in two splits."""

from collections import defaultdict
from collections.abc import Sequence

from ttl_deploy.errors import LeakageError
from ttl_deploy.records.data import SPLITS, Sample, Split

_NAMED = 5


def check(samples: Sequence[Sample], *, patients_known: bool = True) -> None:
    """Raise `LeakageError` naming the patients, or the identical files, that stand in more than one split.

    Without known patients `patient_id` only repeats the content, so the files are named.
    """
    if patients_known:
        _check_patients(samples)
    _check_images(samples)


def _check_patients(samples: Sequence[Sample]) -> None:
    splits: defaultdict[str, set[Split]] = defaultdict(set)
    for sample in samples:
        splits[sample.patient_id].add(sample.split)
    torn = [patient for patient, where in splits.items() if len(where) > 1]
    if torn:
        named = [f"patient {patient!r} is in {_in_words(splits[patient])}" for patient in sorted(torn)]
        raise LeakageError(
            f"{_listed(named)}. A patient may stand in one split only: correct the splits, or leave them out "
            "and they are made by patient"
        )


def _check_images(samples: Sequence[Sample]) -> None:
    copies: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        copies[sample.sha256].append(sample)
    torn = [same for same in copies.values() if len({sample.split for sample in same}) > 1]
    if torn:
        named = ["identical files " + _with_splits(same) for same in torn]
        raise LeakageError(
            f"{_listed(sorted(named))}. An image may stand in one split only: take out the copies, or leave the "
            "splits out and they are made so that copies stay together"
        )


def _with_splits(same: Sequence[Sample]) -> str:
    one_per_split = {sample.split: sample.path for sample in same}
    return " and ".join(f"{one_per_split[split]} ({split})" for split in SPLITS if split in one_per_split)


def _in_words(splits: set[Split]) -> str:
    return " and ".join(split for split in SPLITS if split in splits)


def _listed(named: Sequence[str]) -> str:
    more = len(named) - _NAMED
    return "; ".join(named[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
