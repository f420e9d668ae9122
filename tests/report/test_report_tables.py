"""The CSV files, read back with the standard library."""

import csv
from dataclasses import replace

import pytest

from ttl_deploy.errors import StorageError
from ttl_deploy.records.scores import METRICS
from ttl_deploy.records.trials import TrialResult
from ttl_deploy.report import tables
from ttl_deploy.report.evidence import gather_evidence
from ttl_deploy.report.file_sizes import find_sizes


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number(cell):
    return None if cell == "" else float(cell)


def test_every_trial_has_a_row_with_its_costs(tmp_path, story):
    tables.write_results_csv(tmp_path / "results.csv", story)
    rows = read(tmp_path / "results.csv")
    assert tuple(rows[0]) == tables.RESULT_COLUMNS
    assert [row["key"] for row in rows] == [trial.key for trial in story.trials]
    for row, trial in zip(rows, story.trials, strict=True):
        if not isinstance(trial, TrialResult):
            continue
        cost = story.cost(trial.cut)
        assert row["status"] == "finished"
        assert (number(row["val_auroc"]), int(row["params"]), int(row["macs"])) == (
            trial.val_auroc,
            trial.params,
            cost.macs,
        )
        assert number(row["latency_p50_ms"]) == pytest.approx(1e3 * cost.latency_s)
        assert number(row["gmacs"]) == cost.macs / 1e9


def test_a_failed_trial_has_its_reason_and_no_score(tmp_path, story):
    tables.write_results_csv(tmp_path / "results.csv", story)
    row = next(row for row in read(tmp_path / "results.csv") if row["status"] == "failed")
    assert (row["failure"], row["val_auroc"], row["best_epoch"]) == ("numerical", "", "")
    assert row["reason"] == story.failures[0].reason


def test_results_without_a_profile_leave_costs_empty(tmp_path, story):
    tables.write_results_csv(tmp_path / "results.csv", replace(story, profile=None))
    row = read(tmp_path / "results.csv")[0]
    assert (row["macs"], row["latency_p50_ms"]) == ("", "")
    assert row["params"] == str(story.trials[0].params)


def test_every_cut_has_a_row_with_every_score_and_interval(tmp_path, story):
    tables.write_front_csv(tmp_path / "front.csv", story.front)
    rows = read(tmp_path / "front.csv")
    assert [row["cut"] for row in rows] == [point.cut for point in story.front.points]
    for row, point in zip(rows, story.front.points, strict=True):
        for score in (*point.validation, *point.test):
            name = f"{score.split}_{score.metric}"
            cells = (number(row[f"{name}{end}"]) for end in ("", "_low", "_high", "_images", "_patients"))
            assert tuple(cells) == (score.value, score.low, score.high, score.images, score.patients)
        if not point.test:
            assert all(row[f"test_{metric}"] == "" for metric in METRICS)
        assert tuple(row["on_front"].split()) == point.on_front
        assert number(row["latency_s"]) == point.latency_s
        assert number(row["to_best_high"]) == (point.to_best and point.to_best.high)
        assert number(row["val_auroc_seed_min"]) == min(point.seed_values)
        assert (row["best"] == "yes") == (point.cut == story.front.best)


def test_the_front_by_file_size_is_in_the_csv_where_sizes_are_known(tmp_path, story):
    tables.write_front_csv(tmp_path / "front.csv", story.front)
    assert {row["on_front_by_file_size"] for row in read(tmp_path / "front.csv")} == {""}
    sizes = find_sizes(story, story.front)
    tables.write_front_csv(tmp_path / "front.csv", story.front, sizes=sizes)
    rows = [(int(row["size_bytes"]), number(row["val_auroc"])) for row in read(tmp_path / "front.csv")]
    assert [size for size, _ in rows] == [cut.size_bytes for cut in story.profile.cuts]
    best = [not any(a <= x and b >= y and (a, b) != (x, y) for a, b in rows) for x, y in rows]
    assert [row["on_front_by_file_size"] == "yes" for row in read(tmp_path / "front.csv")] == best
    listing = gather_evidence(story.front, story.choice, ("NORMAL", "PNEUMONIA"), sizes=sizes).standings
    assert listing.columns[-1] == "by file size"
    assert [row[-1] == "on the front" for row in listing.rows] == best


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", " =cmd|' /C calc'!A0"])
def test_text_that_looks_like_a_formula_is_defused(tmp_path, story, text):
    failure = replace(story.failures[0], reason=text)
    tables.write_results_csv(tmp_path / "results.csv", replace(story, trials=(failure,)))
    assert read(tmp_path / "results.csv")[0]["reason"] == f"'{text}"


def test_negative_numbers_and_plain_text_stay_as_they_are():
    assert [tables.defuse(cell) for cell in (-0.5, 3, None, "a=b", "")] == [-0.5, 3, None, "a=b", ""]


def test_commas_quotes_and_line_breaks_survive(tmp_path, story):
    text = 'lost "half", and\nthe rest'
    failure = replace(story.failures[0], reason=text)
    tables.write_results_csv(tmp_path / "results.csv", replace(story, trials=(failure,)))
    assert read(tmp_path / "results.csv")[0]["reason"] == text


def test_a_folder_that_does_not_exist_is_a_storage_error(tmp_path, story):
    with pytest.raises(StorageError, match=r"cannot write .*front\.csv"):
        tables.write_front_csv(tmp_path / "absent" / "front.csv", story.front)
