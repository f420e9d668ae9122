"""How numbers are written for readers: three digits, prefixes, intervals in brackets."""

import re
from collections.abc import Sequence

from ttl_deploy.records.scores import FrontPoint, PairedDifference, Score
from ttl_deploy.records.subgroups import RestDifference

MINUS = "−"
_SHORT = re.compile(r"^(\d+)(?:\.(\d+))?(?= \S)")


def format_score(score: Score) -> str:
    """Write a score as `0.962 [0.941, 0.978]`, or what is missing: the interval, or the score itself."""
    if score.value is None:
        return "undefined"
    if score.low is None or score.high is None:
        return f"{score.value:.3f} [no interval]"
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def format_difference(difference: PairedDifference | None) -> str:
    """Write a paired difference as `−0.006 [−0.014, +0.002]`; the best cut itself has none."""
    if difference is None:
        return "best"
    return format_rest(difference)


def format_rest(difference: PairedDifference | RestDifference) -> str:
    """Write a difference, such as a group's to all others, as `−0.006 [−0.014, +0.002]`."""
    value, low, high = (format_signed(one) for one in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]"


def format_seeds(point: FrontPoint) -> str:
    """Write the range of the seeds' validation AUROC, as `0.958 to 0.966 (3)`; one seed has no range."""
    return format_spread(point.seed_values)


def format_spread(values: Sequence[float | None]) -> str:
    """Write the range of seeds' scores as `0.958 to 0.966 (3)`; one seed has no range, and no seeds no text."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ("", "one")[len(values)] if len(values) < 2 else "undefined"
    return f"{min(known):.3f} to {max(known):.3f} ({len(known)})"


def format_signed(value: float) -> str:
    """Write a difference of scores with its sign; what rounds to zero has none."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", MINUS)


def format_quantity(value: float, unit: str = "") -> str:
    """Write a count with the prefix k, M or G: `23.5 M`, or with a unit `1.82 GMACs`."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if round_digits(value) >= size:
            return f"{_digits(value / size)} {prefix}{unit}"
    return f"{_digits(value)} {unit}".rstrip()


def format_latency(seconds: float | None) -> str:
    """Write a latency in milliseconds, as `5.12 ms`."""
    return "not measured" if seconds is None else f"{_digits(1e3 * seconds)} ms"


def format_duration(seconds: float) -> str:
    """Write how long something took, as `48 s`, `3 min 20 s` or `1 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_bytes(size: float) -> str:
    """Write a file size in megabytes of 10^6 bytes, as `14.2 MB`."""
    return f"{_digits(size / 1e6)} MB"


def format_share(share: float) -> str:
    """Write a share of the full network, as `34 %`."""
    return f"{_digits(100 * share)} %"


def pad_digits(text: str) -> str:
    """Fill a number before a unit up to three digits, as a column of them wants it: `37 M` becomes `37.0 M`."""
    found = _SHORT.match(text)
    if found is None or not float(found[0]):
        return text
    whole, after = found[1], found[2] or ""
    missing = 3 - len(f"{whole}{after}".lstrip("0"))
    return text if missing <= 0 else f"{whole}.{after}{'0' * missing}{text[found.end() :]}"


def round_digits(value: float) -> float:
    """Round to three significant digits."""
    return float(f"{value:.3g}")


def _digits(value: float) -> str:
    return f"{round_digits(value):g}" if value < 1e5 else f"{value:.0f}"
