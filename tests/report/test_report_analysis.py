"""The section on why a depth is enough: there only after an analysis, with patients' images only where asked."""

from dataclasses import replace
from pathlib import Path

import pytest

from ttl_deploy.errors import DataError
from ttl_deploy.records import codec
from ttl_deploy.records.analysis import Analysis
from ttl_deploy.report.analysis_listing import explain, list_tables
from ttl_deploy.report.analysis_page import read_analysis
from ttl_deploy.report.analysis_plot import draw_similarity
from ttl_deploy.report.page import render_page
from ttl_deploy.report.story import RunStory
from ttl_deploy.runs.folder import RunFolder

from .analysed import make_analysis


@pytest.fixture
def found() -> Analysis:
    """An analysis of one cut beside the full network, with one picture."""
    return make_analysis()


@pytest.fixture
def analysed(found: Analysis, tmp_path: Path) -> RunFolder:
    """A run folder that holds the analysis and its picture."""
    codec.save(tmp_path / "analysis.json", found)
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis/gradcam-1.png").write_bytes(b"a picture")
    return RunFolder(tmp_path)


def test_a_record_comes_back_as_it_was(found: Analysis, analysed: RunFolder) -> None:
    read = read_analysis(analysed)
    assert read is not None
    assert read.found == found


def test_without_an_analysis_there_is_no_section(story: RunStory, tmp_path: Path) -> None:
    assert read_analysis(RunFolder(tmp_path)) is None
    assert 'id="why"' not in render_page(story)


def test_the_page_shows_it_without_patients_images(story: RunStory, analysed: RunFolder) -> None:
    page = render_page(replace(story, analysis=read_analysis(analysed)))
    assert 'id="why"' in page
    assert 'href="#why"' in page
    section = page.partition('id="why"')[2].partition("</section>")[0]
    assert "<img" not in section
    assert "--embed-images" in section
    assert "features.6__full__s0" in section


def test_embedded_images_are_announced_and_names_stay_text(story: RunStory, analysed: RunFolder) -> None:
    page = render_page(replace(story, analysis=read_analysis(analysed, embed_images=True)))
    section = page.partition('id="why"')[2].partition("</section>")[0]
    assert "This page holds patients&#39; images" in section or "This page holds patients' images" in section
    assert section.count("<img ") == 1
    assert "data:image/png;base64,YSBwaWN0dXJl" in section
    assert "&lt;img src=x&gt;, both right: probability 0.91 by the full network, 0.87" in section


def test_a_picture_that_is_gone_or_elsewhere_is_refused(analysed: RunFolder, found: Analysis) -> None:
    (analysed.path / "analysis/gradcam-1.png").unlink()
    with pytest.raises(DataError, match="is missing"):
        read_analysis(analysed, embed_images=True)
    assert found.cams is not None
    moved = replace(found.cams, images=(replace(found.cams.images[0], file="config.json"),))
    (analysed.path / "config.json").write_text("{}")
    codec.save(analysed.path / "analysis.json", replace(found, cams=moved))
    with pytest.raises(DataError, match="is missing"):
        read_analysis(analysed, embed_images=True)


def test_tables_leave_undefined_empty_and_absent_apart(found: Analysis) -> None:
    svcca, cka, fields, curves = (one.listing for one in list_tables(found))
    assert svcca.columns == ("cut", "cut-full", "random", "noise")
    assert svcca.rows[1] == ("features.6", "0.70", "0.25", "0.12")
    assert svcca.rows[2] == ("full", "", "–", "–")
    assert cka.rows[0] == ("features.3", "0.50", "0.00")
    assert cka.rows[1][2] == "−0.05"
    assert fields.rows[0] == ("features.3", "10.0%", "14 × 14", "20", "36%", "50% of it", "10.0")
    assert fields.rows[1][5] == "whole"
    assert fields.rows[2][3:] == ("not known", "", "not known", "0.7")
    assert curves.rows == (("full__full__s0", "4", "0.900", "3"),)


def test_sentences_say_what_is_undefined_and_how_it_was_made(found: Analysis) -> None:
    told = " ".join(explain(found))
    assert "SVCCA at full is undefined: 9 samples are too few for 8 + 8 directions." in told
    assert "40 of 50 validation images" in told
    assert "seeds 1, 2" in told
    assert told.endswith("One note.")


def test_the_figure_has_a_line_per_pair_and_measure(found: Analysis) -> None:
    plot = draw_similarity(found)
    shown = [trace for trace in plot["data"] if trace["visible"]]
    names = ["truncated model and full network", "two random networks", "Gaussian noise"]
    assert [trace["name"] for trace in shown] == names
    assert shown[0]["y"] == [0.9, 0.7, None]
    assert {trace["meta"]["measure"] for trace in plot["data"]} == {"svcca", "cka"}
