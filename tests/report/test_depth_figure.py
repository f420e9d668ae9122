"""The pictures of cost by depth: true to the records, the same bytes each time, no legend to look up."""

import io
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from ttl_deploy.errors import MissingExtraError, StorageError, UsageError
from ttl_deploy.records.trials import CutProfile
from ttl_deploy.report import depth_figure
from ttl_deploy.report.depth import growths, name_stages, seen_shares, shorten
from ttl_deploy.report.depth_figure import check_path, write_figure
from ttl_deploy.report.plots import draw_depth
from ttl_deploy.report.story import RunStory
from ttl_deploy.report.tables import left_out

SIGNATURES = {"svg": b"<?xml", "png": b"\x89PNG\r\n", "pdf": b"%PDF-"}


def make_cuts(number: int = 6, *, latency: bool = True, prefix: str = "features.block") -> tuple[CutProfile, ...]:
    """Make cuts that grow evenly; every second one ends a stage."""
    return tuple(
        CutProfile(
            cut="full" if i == number else f"{prefix}{i}",
            params=100 * i**2,
            macs=1000 * i,
            layers=i,
            params_share=(i / number) ** 2,
            macs_share=i / number,
            size_bytes=400 * i**2,
            latency_s=0.002 * i if latency else None,
            latency_noise_s=0.0001 if latency else None,
            stage=i % 2 == 0 and i < number,
            receptive_field=8 * i,
            peak_bytes=1000,
        )
        for i in range(1, number + 1)
    )


CUTS = make_cuts()


def drawn_lines(panel: Any) -> dict[str, list[float]]:
    return {str(line.get_color()): list(line.get_ydata()) for line in panel.lines if len(line.get_xdata()) > 2}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_each_format_is_written_and_is_the_same_twice(tmp_path: Path, kind: str) -> None:
    for name in ("one", "two"):
        write_figure(tmp_path / "new" / f"{name}.{kind}", CUTS, title="net at 32 px", image_size=32)
    one, two = ((tmp_path / "new" / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
    assert one.startswith(SIGNATURES[kind])
    assert one == two


def test_an_svg_names_no_date(tmp_path: Path) -> None:
    write_figure(tmp_path / "depth.svg", CUTS, title="net", image_size=32)
    assert "<dc:date>" not in (tmp_path / "depth.svg").read_text(encoding="utf-8")


def test_the_lines_are_the_shares_of_the_records() -> None:
    figure = depth_figure._draw(CUTS, title="net", image_size=32)
    upper, lower = figure.axes
    assert list(drawn_lines(upper).values()) == [
        [cut.params_share for cut in CUTS],
        [cut.macs_share for cut in CUTS],
        [pytest.approx(cut.latency_s / CUTS[-1].latency_s) for cut in CUTS],
    ]
    (seen,) = drawn_lines(lower).values()
    assert seen == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_figure_names_the_machine_only_where_something_was_measured() -> None:
    def texts(measured_on: str) -> str:
        upper = depth_figure._draw(CUTS, title="net", measured_on=measured_on, image_size=32).axes[0]
        return " ".join(text.get_text() for text in upper.texts)

    assert "latency: onnxruntime on a ward PC; band" in texts("onnxruntime on a ward PC")
    assert "band" not in texts("")


def test_every_line_is_labelled_where_it_stands_and_not_in_a_legend() -> None:
    figure = depth_figure._draw(CUTS, title="net", image_size=32)
    upper, lower = figure.axes
    assert upper.get_legend() is None
    assert {text.get_text(): text.get_color() for text in upper.texts} == {
        one.name: one.colour for one in growths(CUTS)
    }
    assert [text.get_text() for text in lower.texts] == ["the whole image from block4 on"]


def test_no_line_runs_through_a_label() -> None:
    steep = tuple(replace(cut, params_share=share) for cut, share in zip(CUTS, (0, 0, 0, 0.3, 0.95, 1), strict=True))
    figure = depth_figure._draw(steep, title="net", image_size=32)
    figure.savefig(io.BytesIO(), format="png")
    upper = figure.axes[0]
    for text in upper.texts:
        box = text.get_window_extent()
        for line in upper.lines[-3:]:
            assert not line.get_path().transformed(line.get_transform()).intersects_bbox(box, filled=False)


def test_what_was_not_measured_is_not_drawn() -> None:
    bare = tuple(replace(cut, receptive_field=None) for cut in make_cuts(latency=False))
    figure = depth_figure._draw(bare, title="net", image_size=32)
    assert len(figure.axes) == 1
    assert [one.name for one in growths(bare)] == ["parameters", "MACs"]
    plot = draw_depth(make_profile(bare))
    assert [trace["name"] for trace in plot["data"]] == ["parameters", "MACs"]
    assert "yaxis2" not in plot["layout"]


def test_one_cut_without_a_latency_leaves_a_gap_and_nothing_else() -> None:
    cuts = (*CUTS[:2], replace(CUTS[2], latency_s=None, latency_noise_s=None), *CUTS[3:])
    latency = growths(cuts)[-1]
    assert latency.shares[2] is None
    figure = depth_figure._draw(cuts, title="net", image_size=32)
    assert len(list(drawn_lines(figure.axes[0]).values())[-1]) == len(cuts) - 1


def test_the_axis_has_room_for_a_cut_that_is_slower_than_the_full_network() -> None:
    cuts = (*CUTS[:-2], replace(CUTS[-2], latency_s=0.018, latency_noise_s=0.003), CUTS[-1])
    upper = depth_figure._draw(cuts, title="net", image_size=32).axes[0]
    assert upper.get_ylim()[1] > 21 / 12


def test_stages_are_named_by_their_last_word_where_that_is_clear() -> None:
    assert name_stages(CUTS) == {0: "block1", 1: "block2", 3: "block4", 5: "full"}
    assert list(name_stages(make_cuts(prefix="features.")).values()) == [
        "features.1",
        "features.2",
        "features.4",
        "full",
    ]


def test_ticks_that_would_run_into_each_other_are_left_out() -> None:
    many = tuple(replace(cut, stage=True) for cut in make_cuts(200))
    positions = list(name_stages(many))
    assert positions[-1] == 199
    assert min(b - a for a, b in pairwise(positions)) >= 200 / 28


def test_only_a_prefix_of_all_paths_is_dropped() -> None:
    assert shorten("features.block1", CUTS) == "block1"
    assert shorten("full", CUTS) == "full"
    assert shorten("features.block1", (*CUTS, replace(CUTS[0], cut="conv1"))) == "features.block1"


def test_a_receptive_field_larger_than_the_image_is_the_whole_image() -> None:
    assert seen_shares(CUTS[-2:], 32) == (1.0, 1.0)
    assert seen_shares(CUTS[:1], None) == (None,)


def test_another_kind_of_file_and_a_missing_matplotlib_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(UsageError, match=r"depth\.gif: the name must end in \.svg, \.png, \.pdf"):
        check_path(tmp_path / "depth.gif")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"--plot needs the extra \[train\]"):
        check_path(tmp_path / "depth.svg")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_figure(tmp_path / "file" / "depth.svg", CUTS, title="net", image_size=32)


def make_profile(cuts: tuple[CutProfile, ...]) -> Any:
    from ttl_deploy.records.trials import Profile

    return Profile(target="t", runtime="r", precision="fp32", threads=1, batch=1, machine="m", cuts=cuts, image_size=32)


def test_plotly_accepts_the_interactive_picture_and_it_shows_the_same_numbers() -> None:
    plot = draw_depth(make_profile(CUTS))
    go.Figure({"data": plot["data"], "layout": plot["layout"]})
    by_name = {trace["name"]: trace["y"] for trace in plot["data"]}
    assert by_name["MACs"] == [cut.macs_share for cut in CUTS]
    assert by_name["receptive field"] == list(seen_shares(CUTS, 32))
    assert plot["data"][2]["error_y"]["array"] == pytest.approx([0.0001 / 0.012] * len(CUTS))


def test_markup_in_a_name_stays_out_of_the_interactive_picture() -> None:
    plot = draw_depth(make_profile((replace(CUTS[0], cut="<img src=x>&"), *CUTS[1:])))
    texts = [text for trace in plot["data"] for text in trace["text"]] + plot["layout"]["xaxis"]["ticktext"]
    assert not any("<" in re.sub(r"</?b>|<br>", "", text) or "&" in text for text in texts)


def test_cuts_over_the_limit_are_told_apart_from_failures(story: RunStory) -> None:
    assert left_out(story) == {}
    limited = replace(story, settings=replace(story.settings, max_latency_s=0.002))
    assert left_out(limited) == {}  # all of them were trained
    untrained = replace(limited, trials=tuple(trial for trial in story.trials if trial.cut != "features.13"))
    assert left_out(untrained) == {"features.13": "3.5 ms per image (75 % over)"}
