"""The rows a terminal prints."""

from dataclasses import replace

from ttl_deploy.report.listing import front_rows
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
        assert cells["on front by"].count(",") == max(0, len(point.on_front) - 1)


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
