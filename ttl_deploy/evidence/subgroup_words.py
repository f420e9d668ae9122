"""What subgroups say, in sentences; needs no more than the record."""

from collections.abc import Iterator

from ttl_deploy.evidence.columns import clean_name
from ttl_deploy.records.subgroups import EqualityTest, SubgroupColumn, Subgroups


def explain(subgroups: Subgroups) -> tuple[str, ...]:
    """Say what the numbers are of, how they were made, and how not to read them."""
    return tuple(f"{sentence.rstrip('.')}." for sentence in _explain(subgroups))


def tell_columns(subgroups: Subgroups) -> str:
    """Say which columns make no groups, and why; or that there are none."""
    if not subgroups.columns and not subgroups.left_out:
        return "The data set has no columns besides path, label, patient and split, so there are no subgroups."
    told = "; ".join(f"{clean_name(one.column)} ({one.reason})" for one in subgroups.left_out)
    return f"Columns left out: {told}." if told else ""


def tell_tests(subgroups: Subgroups) -> tuple[str, ...]:
    """Say what the tests of equality found, a sentence per tested column; and why others were not tested."""
    tested = [(column, column.test) for column in subgroups.columns if column.test]
    found = [_tell_test(column, test, columns=len(tested)) for column, test in tested]
    reasons: dict[str, list[str]] = {}
    for column in subgroups.columns:
        if column.test is None:
            reasons.setdefault(column.untested, []).append(clean_name(column.column))
    untested = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
    if found:
        found.append("A large p does not show that groups are alike: small groups hide large differences")
    if untested:
        found.append(f"Not tested for an AUROC that is the same in all groups: {untested}")
    return tuple(found)


def _tell_test(column: SubgroupColumn, test: EqualityTest, *, columns: int) -> str:
    left = "" if len(test.groups) == len(column.groups) else f" ({', '.join(test.groups)})"
    corrected = f", {test.p_holm:.2g} corrected for {columns} columns" if columns > 1 else ""
    return f"{clean_name(column.column)}: p = {test.p:.2g}{corrected} for an AUROC that is the same in all groups{left}"


def _explain(subgroups: Subgroups) -> Iterator[str]:
    split = "validation" if subgroups.split == "val" else "test"
    beside = f", beside {subgroups.reference}" if subgroups.reference else ""
    yield f"Scores of {subgroups.model}{beside} on the {split} split ({subgroups.why_split}), of one seed's weights"
    yield (
        f"{100 * subgroups.level:g} % intervals resample the patients of the group. Decision: {subgroups.decision}. "
        f"A group with fewer than {subgroups.fewest} patients with, or without, a class is too small to judge: its "
        "scores are shown without interval"
    )
    yield (
        f"{subgroups.looked_at} groups were looked at: among so many some look worse, or better, by chance alone. "
        f"Of {round(1 / (1 - subgroups.level))} intervals about one misses the truth; believe a single group when "
        "other data show the same"
    )
    for column in subgroups.columns:
        if column.shared_patients:
            yield (
                f"{clean_name(column.column)}: patients with images in several groups count in each of them "
                f"({column.shared_patients} here), so these groups are not compared with each other"
            )
    yield from tell_tests(subgroups)
    if not subgroups.patients_known:
        yield "Patients are not known, so every image counts as one: with several per patient, intervals are too narrow"
    if left_out := tell_columns(subgroups):
        yield left_out
