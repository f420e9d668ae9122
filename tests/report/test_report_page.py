"""The page: whole, offline, and deaf to markup in names; `test_report_browser.py` opens it."""

import base64
import hashlib
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ttl_deploy.errors import MissingExtraError
from ttl_deploy.records.benchmarks import BenchFailure, ColdStart, Comparison, Energy, ImportedTimes, Memory
from ttl_deploy.records.data import DataWarning
from ttl_deploy.report.front_plot import draw_front
from ttl_deploy.report.page import flatten_settings, render_page, write_page
from ttl_deploy.runtime.bench_rows import make_stretch

PAYLOAD = (
    """"'></script></title><script>document.title="owned"</script><img src=x onerror="document.title='owned'">{{7*7}}"""
)


class Outline(HTMLParser):
    """Collect the tags, the text outside scripts, and the scripts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.text, self.inside, self.rows = [], [], "", [], {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self.inside and self.inside[-1] == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif self.inside and self.inside[-1] != "style":
            self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(story):
    return render_page(story)


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def hostile(story):
    """Put a payload into every name that comes from data, files or a third party."""
    points = tuple(
        replace(point, cut=PAYLOAD, name=PAYLOAD) if point.cut == story.choice.cut else point
        for point in story.front.points
    )
    trials = tuple(
        replace(t, cut=PAYLOAD if t.cut == story.choice.cut else t.cut, key=t.key + PAYLOAD) for t in story.trials
    )
    manifest = replace(story.exports[0].manifest, name=PAYLOAD, classes=(PAYLOAD, "b"), intended_use=PAYLOAD)
    return replace(
        story,
        name=PAYLOAD,
        settings=replace(story.settings, backbone=PAYLOAD, data=PAYLOAD),
        fingerprint=replace(story.fingerprint, name=PAYLOAD, classes=(PAYLOAD, "b")),
        warnings=(DataWarning(kind="x", message=PAYLOAD),),
        front=replace(story.front, points=points, target=PAYLOAD),
        choice=replace(story.choice, cut=PAYLOAD, sentence=PAYLOAD),
        trials=trials,
        curves={key + PAYLOAD: curve for key, curve in story.curves.items()},
        exports=(replace(story.exports[0], manifest=manifest),),
        openings=(replace(story.openings[0], command=PAYLOAD, trials=(PAYLOAD,)),),
        versions={PAYLOAD: PAYLOAD},
        command=PAYLOAD,
    )


def test_the_page_tells_the_story_in_order(outline, story):
    titles = [
        "How many layers of mobilenet_v2 does it take to tell apart NORMAL and PNEUMONIA",
        "To know about these data",
        "What was left out",
        "What each cut costs",
        "FLOPs are 2 × MACs",
        story.choice.sentence,
        "Is a smaller cut as good?",
        "ROC and calibration",
        "Scores per class",
        "Validation AUROC by epoch",
        "Verification: passed",
        "Benchmark on ward-pc",
        "Failures and refusals",
        story.failures[0].reason,
        "When the test split was opened",
        "How to reproduce this",
        story.command,
    ]
    text = re.sub(r"\s+", " ", outline.text)
    text = text[text.index("Reproduce") :]  # past the contents
    places = [text.find(title) for title in titles]
    assert -1 not in places, titles[places.index(-1)]
    assert places == sorted(places)


def test_every_cut_trial_warning_and_hash_is_on_the_page(outline, story):
    for point in story.front.points:
        assert point.cut in outline.text
    for trial in story.trials:
        assert trial.key in outline.text
    for text in (story.warnings[0].message, story.failures[0].reason, story.fingerprint.sha256):
        assert text in outline.text


def test_what_the_models_start_from_is_told(page, story):
    assert story.weights.url in page
    assert story.weights.sha256 in page
    assert story.weights.input_in_words in page
    assert all(change in page for change in story.weights.changes)
    without = render_page(replace(story, weights=None))
    assert story.weights.sha256 not in without


def test_flops_stand_as_twice_the_macs_and_say_so(outline):
    assert "FLOPs are 2 × MACs" in outline.text
    assert "602 M" in outline.text  # 2 × 300,775,552 of the full network


def test_scripts_run_by_their_hashes_and_nothing_else_does(outline):
    policy = next(m["content"] for m in outline.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    allowed = re.search(r"script-src ([^;]*);", policy).group(1).split()
    code = [text for attributes, text in outline.scripts if "type" not in attributes]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in code]
    assert hashes == allowed
    assert len(code) == 2  # plotly once, and ours


def test_no_tag_loads_anything(outline):
    for tag, attributes in outline.tags:
        for name in ("src", "srcset", "href", "action", "data", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:,")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)


def test_tables_have_names_and_header_cells_their_scope(outline):
    assert len(outline.named("table")) >= 6
    assert all(table["aria-label"] for table in outline.named("table"))
    assert all(cell["scope"] in ("row", "col") for cell in outline.named("th"))
    assert len(outline.named("h1")) == 1
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_markup_in_names_adds_no_tag(page, story):
    clean, attacked = Outline(page), Outline(render_page(hostile(story)))
    assert not attacked.named("img")
    assert len(attacked.named("script")) == len(clean.named("script"))
    assert "{{7*7}}" in attacked.text
    assert "<" not in "".join(
        re.sub(r"</?b>|<br>", "", text)
        for trace in draw_front(hostile(story), hostile(story).front)["data"]
        for text in (trace.get("name", ""), *trace.get("text", ()))
    )


def test_a_run_without_choice_exports_or_warnings_has_a_page(story):
    bare = replace(story, choice=None, exports=(), warnings=(), openings=(), versions={})
    text = Outline(render_page(bare)).text
    assert "No cut was chosen" in text
    assert "It was not opened." in text
    assert "Exports" not in text


def test_a_run_in_which_nothing_finished_has_a_page(story):
    bare = replace(story, front=None, choice=None, profile=None, exports=(), trials=story.failures, curves={})
    text = Outline(render_page(bare)).text
    assert "No trial has finished yet" in text
    assert story.failures[0].reason in text


def test_an_export_that_was_neither_verified_nor_timed_says_so(story):
    export = replace(story.exports[0], verification=None, benchmarks=())
    assert "Not verified yet." in Outline(render_page(replace(story, exports=(export,)))).text


def test_a_benchmark_shows_the_rows_of_this_artifact_only(story):
    export = story.exports[0]
    other = replace(export.benchmarks[0].rows[0], artifact_sha256="0" * 64, target="another-target")
    shared = replace(export.benchmarks[0], rows=(*export.benchmarks[0].rows, other))
    foreign = replace(shared, rows=(other,), machine=replace(shared.machine, host="another-host"))
    both = replace(story, exports=(replace(export, benchmarks=(shared, foreign)),))
    text = Outline(render_page(both)).text
    assert "Benchmark on ward-pc" in text
    assert "another-target" not in text
    assert "another-host" not in text


def test_a_benchmark_shows_what_was_measured_beside_the_latency(story):
    export = story.exports[0]
    bench = export.benchmarks[0]
    row = replace(
        bench.rows[0],
        mode="throughput",
        streams=2,
        start=ColdStart(interpreter_s=9.0, import_s=0.1, open_s=0.02, first_run_s=0.003),
        memory=Memory(before_bytes=30_000_000, peak_bytes=83_000_000),
        energy=(
            Energy(
                counter="RAPL package-0",
                per_image_j=0.0125,
                per_image_above_idle_j=0.01,
                images=10,
                seconds=1.0,
                idle_w=5.0,
            ),
        ),
        notes=("87 runs, fewer than asked for",),
    )
    comparison = Comparison(
        first=0, second=1, basis="cpu", reason="shared", ratio=0.5, low=0.45, high=0.55, floor=0.04, verdict="faster"
    )
    failure = BenchFailure(
        artifact=row.artifact,
        artifact_sha256=row.artifact_sha256,
        target="other-cpu",
        batch=1,
        threads=1,
        mode="latency",
        boundary=row.boundary,
        reason="the process gave no answer within 9 s",
    )
    shown = replace(bench, rows=(bench.rows[0], row), comparisons=(comparison,), failures=(failure,))
    text = Outline(render_page(replace(story, exports=(replace(export, benchmarks=(shown,)),)))).text
    for words in (
        "throughput, 2 streams",
        "123 ms",  # without the interpreter
        "83.0 MB",
        "12.5 mJ (RAPL package-0)",
        "87 runs, fewer than asked for",
        "takes 0.500 times as long as",
        "by CPU time): faster",
        "On other-cpu, batch 1, it could not be measured: the process gave no answer within 9 s",
    ):
        assert words in text


def test_times_on_a_gpu_and_another_tools_stand_beside_each_other(story):
    export = story.exports[0]
    bench = export.benchmarks[0]
    stretch = make_stretch("GPU: the network alone, between events", [[0.0031] * 70, [0.0035] * 70])
    ours = replace(bench.rows[0], target="tensorrt", stretches=(stretch,))
    kit = replace(
        bench.rows[0], target="tensorrt (trtexec)", boundary="GPU: the network alone, by trtexec", median_s=0.0011
    )
    told = make_stretch("GPU with transfers: by trtexec", [[0.0045] * 30])
    imported = ImportedTimes(told_by="trtexec 10.3.0", source="t", source_sha256="0" * 64, batch=1, stretches=(told,))
    shown = (replace(bench, rows=(ours,), imported=(imported,)), replace(bench, rows=(kit,)))
    page = render_page(replace(story, exports=(replace(export, benchmarks=shown),)))
    assert "Times by another tool, beside ours" in Outline(page).text
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page[page.index("Benchmark on ward-pc") :]))
    assert "GPU: the network alone, between events" in text
    for cells in (
        "tensorrt fp32 1 140 3.10 ms 3.50 ms too few samples",
        "GPU with transfers 1 not measured there trtexec 10.3.0 30 4.50 ms too few samples too few samples none",
        "GPU 1 tensorrt, fp32 140 3.10 ms 3.50 ms too few samples trtexec, onnxruntime 1.30.0 1 2.60 ms 3.10 ms "
        "too few samples 3.000",
    ):
        assert cells in text, cells
    assert "beside ours" not in Outline(render_page(story)).text


def test_unknown_patients_are_named_as_a_weakness(story):
    unknown = replace(story, fingerprint=replace(story.fingerprint, patients_known=False))
    assert "intervals may be too narrow" in Outline(render_page(unknown)).text


def test_settings_are_flattened_in_their_order(story):
    flat = flatten_settings(story.settings)
    assert flat["backbone"] == "mobilenet_v2"
    assert flat["seeds"] == "0, 1"
    assert flat["train.augmentation.flip"] == "True"
    assert flat["max_params"] == "none"


def test_without_plotly_the_missing_extra_is_named(tmp_path, story, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.delitem(sys.modules, "plotly.offline", raising=False)
    with pytest.raises(MissingExtraError, match=r"the report's plots needs the extra \[train\]"):
        write_page(tmp_path / "report.html", story)
    assert list(tmp_path.iterdir()) == []
