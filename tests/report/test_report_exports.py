"""What the page says of exports: all in one table, calibration, operating point and benchmarks of each."""

import re
from dataclasses import replace

import pytest

from ttl_deploy.records.artifacts import Calibration, CalibrationEffect, OperatingPoint
from ttl_deploy.records.scores import Score
from ttl_deploy.report.artifacts import describe_calibration, describe_operating_point
from ttl_deploy.report.exports_listing import list_exports
from ttl_deploy.report.page import render_page


def score(metric, split, value):
    return Score(
        metric=metric,
        split=split,
        value=value,
        low=value - 0.05,
        high=value + 0.05,
        level=0.95,
        images=500,
        patients=400,
        per_class=(value,),
        defined=1,
        method="percentile bootstrap over 400 patients, 2000 replicates",
    )


CALIBRATION = Calibration(
    temperature=1.75,
    split="val",
    images=500,
    patients=400,
    effects=tuple(
        CalibrationEffect(
            split=split,
            images=500,
            patients=400,
            nll_before=before,
            nll_after=after,
            error_before=score("calibration_error", split, 0.151),
            error_after=score("calibration_error", split, 0.062),
        )
        for split, before, after in (("val", 0.4111, 0.3222), ("test", 0.5333, 0.4444))
    ),
)
POINT = OperatingPoint(
    rule="sensitivity",
    target=0.9,
    threshold=0.25,
    low=0.2,
    high=0.31,
    level=0.95,
    split="val",
    images=500,
    patients=400,
    method="the rule repeated",
    sentence="Of all thresholds the best.",
    scores=tuple(
        score(metric, split, value)
        for split, values in (("val", (0.911, 0.822)), ("test", (0.877, 0.766)))
        for metric, value in zip(("sensitivity", "specificity"), values, strict=True)
    ),
)


@pytest.fixture
def rows(story):
    """The text of every table row of the page with a calibrated export."""
    manifest = replace(
        story.exports[0].manifest,
        calibration=CALIBRATION,
        operating_point=POINT,
        decision="threshold",
        threshold=POINT.threshold,
    )
    page = render_page(replace(story, exports=(replace(story.exports[0], manifest=manifest),)))
    assert "calibrated by the temperature 1.75" in page
    assert POINT.sentence in page
    cells = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    return [re.sub(r"<[^>]+>", "|", row).replace("||", "|").strip("|") for row in cells]


def test_both_splits_stand_side_by_side_with_their_intervals(rows):
    assert "Score|Validation|Test" in rows
    assert "Sensitivity|0.911 [0.861, 0.961]|0.877 [0.827, 0.927]" in rows
    assert "Specificity|0.822 [0.772, 0.872]|0.766 [0.716, 0.816]" in rows
    assert "test|500|0.5333|0.4444|0.151 [0.101, 0.201]|0.062 [0.012, 0.112]" in rows


def test_sentences_say_what_was_done_and_what_was_not():
    assert describe_calibration(None) == "probabilities not calibrated"
    note = "the temperature was left at 1: all 9 validation images are of one class"
    left = replace(CALIBRATION, temperature=1.0, note=note)
    assert describe_calibration(left) == f"probabilities not calibrated: {note}"
    assert "fitted on 500 validation images of 400 patients" in describe_calibration(CALIBRATION)
    (val, test) = CALIBRATION.effects
    missed = replace(CALIBRATION, effects=(replace(val, error_after=score("calibration_error", "val", 0.2)), test))
    assert "shifted towards a class" in describe_calibration(missed)
    assert "shifted" not in describe_calibration(replace(CALIBRATION, effects=(replace(val, error_after=None), test)))
    told = "class 1 from probability 0.25 on [0.200, 0.310], chosen on val for a sensitivity of at least 0.9"
    assert describe_operating_point(POINT) == told
    youden = replace(POINT, rule="youden", target=None, low=None, high=None)
    assert describe_operating_point(youden).endswith("no interval, chosen on val for Youden's index")
    argmax = replace(POINT, rule="argmax", target=None, threshold=None)
    assert describe_operating_point(argmax) == "the most probable class"


def test_one_table_tells_what_every_file_is_how_near_verified_and_fast(story):
    export = story.exports[0]
    bench = export.benchmarks[0]
    noisy = replace(bench, rows=(replace(bench.rows[0], verdict="inconclusive: others used the cores"),))
    failed = replace(export.verification, passed=False)
    alone = replace(export, verification=None, benchmarks=())
    shown = list_exports((export, replace(export, verification=failed, benchmarks=(bench, noisy)), alone))
    assert shown.columns == ("artifact", "format", "size", "decisions as the model's", "verified", "latency")
    name = export.manifest.name
    assert shown.rows == (
        (name, "onnx, fp32", "2.31 MB", "not recorded", "passed, 600 test images", "2.60 ms on ward-pc"),
        (name, "onnx, fp32", "2.31 MB", "not recorded", "failed, 600 test images", "2.60 ms on ward-pc, inconclusive"),
        (name, "onnx, fp32", "2.31 MB", "not recorded", "not yet", "not measured"),
    )
    kept = replace(export, parity=replace(export.verification.parity, decisions_flipped=6))
    assert list_exports((kept,)).rows[0][3] == "594 of 600"


def test_an_unsteady_benchmark_says_so_in_its_row_and_why_below(story):
    export = story.exports[0]
    bench = export.benchmarks[0]
    noisy = replace(bench, rows=(replace(bench.rows[0], verdict="inconclusive: others used the cores"),))
    page = render_page(replace(story, exports=(replace(export, benchmarks=(noisy,)),)))
    assert "<td>inconclusive</td>" in page
    assert "batch 1: inconclusive: others used the cores</li>" in page
