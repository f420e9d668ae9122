"""The rows a terminal prints."""

from dataclasses import replace

from ttl_deploy.records.scores import AXES
from ttl_deploy.report.listing import AXIS_WORDS, NEAR, explain_standings, fit_columns, front_rows
from ttl_deploy.report.numbers import format_score


def test_each_cut_is_one_row_with_scores_costs_and_axes(story):
    listing = front_rows(story.front, story.choice)
    assert len(listing.rows) == len(story.front.points)
    for row, point in zip(listing.rows, story.front.points, strict=True):
        cells = dict(zip(listing.columns, row, strict=True))
        assert cells["cut"] == point.cut
        assert cells["val AUROC"] == format_score(point.validation[0])
        assert cells["test AUROC"] == (format_score(point.test[0]) if point.test else "")
        assert cells["latency"] == f"{1e3 * point.latency_s:.3g} ms"
        axes = cells["on front by"].split(", ") if cells["on front by"] else []
        assert [axis for axis in axes if not axis.startswith(NEAR)] == [AXIS_WORDS[axis] for axis in point.on_front]
        near = [AXIS_WORDS[axis] for axis in AXES if point.standing(axis) == "not clearly worse"]
        assert [axis.removeprefix(NEAR) for axis in axes if axis.startswith(NEAR)] == near


def test_only_the_chosen_cut_is_marked(story):
    rows = front_rows(story.front, story.choice).rows
    assert [row[1] for row in rows if row[0]] == [story.choice.cut]
    assert not any(row[0] for row in front_rows(story.front).rows)


def test_columns_nobody_measured_are_left_out(story):
    points = tuple(replace(point, test=(), latency_s=None) for point in story.front.points)
    listing = front_rows(replace(story.front, points=points))
    assert "test AUROC" not in listing.columns
    assert "latency" not in listing.columns
    assert len(listing.columns) == len(listing.numeric) == len(listing.rows[0])


def near(story, *, clearly):
    """The front as if nobody off it were clearly worse, or, on an older run, as if that were not known."""
    points = tuple(replace(point, dominated_by=() if clearly else None) for point in story.front.points)
    return replace(story.front, points=points)


def test_the_mark_of_those_that_are_not_clearly_worse_is_explained_where_it_stands(story):
    for front, expected in ((near(story, clearly=True), True), (near(story, clearly=False), False)):
        marked = any(NEAR in cell for row in front_rows(front).rows for cell in row)
        assert marked == bool(explain_standings(front)) == expected


def test_verdicts_stand_beside_the_scores_they_are_of(story):
    listing = front_rows(story.front, story.choice)
    for row, point in zip(listing.rows, story.front.points, strict=True):
        verdict = dict(zip(listing.columns, row, strict=True))["verdict"]
        found = story.front.verdict(point.name)
        assert verdict == ("reference" if point.cut == "full" else found.verdict if found else "")
    assert "verdict" not in front_rows(replace(story.front, verdicts=None)).columns


def test_the_spread_over_seeds_stands_apart_for_both_splits_and_only_with_several(story):
    listing = front_rows(story.front)
    for row, point in zip(listing.rows, story.front.points, strict=True):
        cells = dict(zip(listing.columns, row, strict=True))
        assert cells["val seeds"] == f"{min(point.seed_values):.3f} to {max(point.seed_values):.3f} (2)"
        values = point.test[0].per_seed if point.test else ()
        assert cells["test seeds"] == (f"{min(values):.3f} to {max(values):.3f} (2)" if values else "")
    assert any(row[-1] for row in listing.rows)
    one = tuple(replace(point, seeds=(0,), seed_values=point.seed_values[:1]) for point in story.front.points)
    assert not {"val seeds", "test seeds"} & set(front_rows(replace(story.front, points=one)).columns)


def test_a_narrow_terminal_keeps_verdicts_longer_than_costs(story):
    listing, hidden = fit_columns(front_rows(story.front), width=55, gap=3)
    assert "verdict" in listing.columns
    assert "MACs" in hidden
