"""Numbers as readers see them."""

import pytest

from ttl_deploy.records.scores import PairedDifference, Score
from ttl_deploy.report import numbers


def score(**changes):
    fields = {"value": 0.9624, "low": 0.9406, "high": 0.9781, "reason": "", **changes}
    return Score(
        metric="auroc",
        split="val",
        level=0.95,
        images=10,
        patients=5,
        per_class=(None,),
        defined=1,
        method="percentile bootstrap",
        **fields,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (score(), "0.962 [0.941, 0.978]"),
        (score(low=None, high=None), "0.962 [no interval]"),
        (score(value=None, low=None, high=None, reason="one class"), "undefined"),
    ],
)
def test_a_score_is_written_with_its_interval_or_what_is_missing(given, expected):
    assert numbers.format_score(given) == expected


def test_a_difference_carries_its_signs_and_no_sign_on_zero():
    difference = PairedDifference(reference="full", value=-0.0061, low=-0.0142, high=0.0004, level=0.95)
    assert numbers.format_difference(difference) == "−0.006 [−0.014, 0.000]"
    assert numbers.format_difference(None) == "best"
    assert numbers.format_signed(0.002) == "+0.002"
    assert numbers.format_signed(-0.0001) == "0.000"


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "", "0"),
        (999, "", "999"),
        (1000, "", "1 k"),
        (23_508_032, "", "23.5 M"),
        (999_600, "", "1 M"),
        (1_818_228_160, "MACs", "1.82 GMACs"),
        (4.2e12, "", "4200 G"),
        (7, "images", "7 images"),
    ],
)
def test_quantities_have_three_digits_and_a_prefix(value, unit, expected):
    assert numbers.format_quantity(value, unit) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, "not measured"), (0.00512, "5.12 ms"), (1.2345, "1230 ms"), (0.0, "0 ms")]
)
def test_latencies_are_in_milliseconds(seconds, expected):
    assert numbers.format_latency(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (4320, "1 h 12 min"),
        (3599.7, "1 h 0 min"),
    ],
)
def test_durations_roll_over(seconds, expected):
    assert numbers.format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("given", "padded"),
    [
        ("37 M", "37.0 M"),
        ("1.4 ms", "1.40 ms"),
        ("2.5 %", "2.50 %"),
        ("0.7 ms", "0.700 ms"),
        ("100 %", "100 %"),
        ("0.0676 MB", "0.0676 MB"),
        ("1230 ms", "1230 ms"),
        ("0 %", "0 %"),
        ("7 images", "7.00 images"),
        ("12", "12"),
        ("not measured", "not measured"),
    ],
)
def test_in_columns_numbers_with_units_have_all_three_digits(given, padded):
    assert numbers.pad_digits(given) == padded


def test_sizes_and_shares():
    assert numbers.format_bytes(14_213_000) == "14.2 MB"
    assert numbers.format_share(0.3441) == "34.4 %"
    assert numbers.format_share(1.0) == "100 %"
