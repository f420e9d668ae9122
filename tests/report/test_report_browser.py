"""The page in a real browser: it draws, answers hover, keys and switches, asks nobody for anything, and stays text."""

import io
import itertools
import re
from dataclasses import replace

import pytest
from PIL import Image

from ttl_deploy.records import codec
from ttl_deploy.report.analysis_page import read_analysis
from ttl_deploy.report.page import write_page
from ttl_deploy.runs.folder import RunFolder

from .analysed import make_analysis
from .browser import CHROMIUM, Browser
from .hostile import PAYLOADS, RTL, hostile, with_findings

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

CONTROLS = 'a[href], button, select, input, summary, [tabindex="0"]'
FRONT = "document.querySelector('[data-plot=\"front-plot\"]')"
FOLDED = "document.querySelectorAll('details:not([open], [data-paper=no])').length"
FIRST_POINT = """(() => {
    const plot = document.querySelector('[data-plot="front-plot"]');
    plot.scrollIntoView({block: "center"});
    const box = plot.querySelector(".scatterlayer .points path").getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
})()"""
HOVER_TEXT = """new Promise((done) => {
    const end = Date.now() + 10000;
    const look = () => {
        const label = document.querySelector('[data-plot="front-plot"] .hoverlayer .hovertext');
        label || Date.now() > end ? done(label?.textContent ?? "") : setTimeout(look, 30);
    };
    look();
})"""
OVERFLOWING = """[...document.querySelectorAll("body *")]
    .filter((one) => !one.closest("svg") && !one.closest(".told") && !one.closest(".skip"))
    .filter((one) => INSIDE || !one.parentElement.closest(".scroll"))
    .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 60)}`)"""
PALE = """(() => {
    const read = (text) => {
        const numbers = text.match(/[\\d.]+/g).map(Number);
        if (!text.startsWith("color(srgb")) return [...numbers, 1].slice(0, 4);
        return [...numbers.slice(0, 3).map((n) => 255 * n), numbers[3] ?? 1];
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((n) => (n / 255 <= 0.04045 ? n / 255 / 12.92 : ((n / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (one) => {
        const layers = [];
        for (let at = one; at; at = at.parentElement) layers.push(read(getComputedStyle(at).backgroundColor));
        const paint = (under, [r, g, b, a]) => under.map((n, i) => a * [r, g, b][i] + (1 - a) * n);
        return layers.reverse().reduce(paint, [255, 255, 255]);
    };
    const pale = [];
    for (const one of document.querySelectorAll("body *")) {
        const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(one.tagName) || !one.getClientRects().length) continue;
        if (one.closest(".hoverlayer") || one.matches(":disabled")) continue;
        const style = getComputedStyle(one);
        const ink = read(one.closest("svg") ? style.fill : style.color);
        const [a, b] = [light(ink.slice(0, 3)), light(behind(one))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const name = `${one.tagName} ${one.getAttribute("class")} ${one.textContent.slice(0, 40)}`;
        if (ratio < (large ? 3 : 4.5)) pale.push(`${name}: ${ratio.toFixed(2)}`);
    }
    return pale;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all tests here."""
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    """An analysis with a picture, read to be embedded."""
    folder = tmp_path_factory.mktemp("analysed")
    found = make_analysis()
    codec.save(folder / "analysis.json", found)
    picture = io.BytesIO()
    Image.new("RGB", (90, 30), (90, 120, 150)).save(picture, "PNG")
    (folder / "analysis").mkdir()
    (folder / found.cams.images[0].file).write_bytes(picture.getvalue())
    return read_analysis(RunFolder(folder), embed_images=True)


@pytest.fixture(scope="module")
def page(browser, story, analysis, tmp_path_factory):
    """The report of a run, open in a wide window."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    # A second axis, for what a position sees, has colours of its own to be tested.
    cuts = tuple(replace(cut, receptive_field=8 * number) for number, cut in enumerate(story.profile.cuts, 1))
    told = replace(story, profile=replace(story.profile, cuts=cuts, image_size=64), analysis=analysis)
    write_page(path, with_findings(told, ("effusion", "mass", "nodule")))
    browser.show_as(width=1200)
    browser.open(path.as_uri())
    return browser


def complaints(browser):
    """Return what a browser logged, asked for besides the page, and opened."""
    quiet = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening"}
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    outside = [url for url in asked[1:] if not url.startswith("data:image/png;base64,")]
    return [e for e in browser.events if e["method"] in quiet], outside


def test_every_plot_is_drawn_without_a_complaint_or_a_request(page):
    plots = page.run("[...document.querySelectorAll('.plot')].map((one) => one.querySelectorAll('.trace').length)")
    assert len(plots) >= 5
    assert all(plots)
    assert complaints(page) == ([], [])


def test_a_point_of_the_front_tells_under_the_mouse_what_it_is(page, story):
    page.move(*page.run(FIRST_POINT))
    told = page.run(HOVER_TEXT)
    point = next(one for one in story.front.points if told.startswith(one.cut))
    for words in (f"validation AUROC {point.validation[0].value:.3f} [", "latency", "ONNX file", "MACs"):
        assert words in told
    verdict = story.front.verdict(point.name)
    assert verdict is None or f"verdict on test: {verdict.verdict}" in told


@pytest.mark.parametrize("axis", ["params", "latency_s", "size_bytes", "macs"])
def test_a_button_changes_the_axis(page, axis):
    page.run(f"document.querySelector('[data-value={axis}]').click()")
    title = {"params": "parameters", "latency_s": "latency on", "size_bytes": "ONNX file", "macs": "MMACs"}[axis]
    assert title in page.run(f"{FRONT}.querySelector('.xtitle').textContent")
    shown = page.run(f"{FRONT}.data.filter((one) => one.visible).map((one) => one.meta.axis)")
    assert set(shown) == {axis}
    pressed = page.run(
        "[...document.querySelectorAll('button[data-set=axis][aria-pressed=true]')].map((one) => one.dataset.value)"
    )
    assert pressed == [axis]


def test_seeds_and_exported_files_are_shown_on_demand_where_they_stand(page, story):
    names = f"{FRONT}.data.filter((one) => one.visible).map((one) => one.name)"
    tick = "document.querySelector('[data-show=\"{}\"]').click()"
    before = page.run(names)
    assert "single seeds" not in before
    assert page.run("document.querySelector('[data-show=\"file fp32\"]').disabled")  # no such thing as MACs of a file
    page.run("document.querySelector('[data-value=latency_s]').click()")
    page.run(tick.format("seeds"))
    page.run(tick.format("file fp32"))
    after = page.run(names)
    assert {"single seeds", "exported file, fp32"} <= set(after)
    for layer in ("seeds", "file fp32"):
        page.run(tick.format(layer))
    page.run("document.querySelector('[data-value=macs]').click()")
    assert page.run(names) == before


def test_the_selector_shows_the_curves_of_another_class(page):
    shown = (
        "document.querySelector('[data-plot=\"{}\"]').data.filter((t) => t.visible !== false && t.meta)"
        ".map((t) => t.meta.class)"
    )
    for value in ("2", "0"):
        page.run(f"document.querySelector('select').value = '{value}'")
        page.run("document.querySelector('select').dispatchEvent(new Event('change'))")
        for plot in ("roc-plot", "reliability-plot"):
            assert set(page.run(shown.format(plot))) == {value}


def test_the_tab_key_reaches_every_control_in_the_order_of_the_page(page):
    page.run(f"""
        document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0);
        window.controls = [...document.querySelectorAll('{CONTROLS}')]
            .filter((one) => one.checkVisibility() && !one.disabled);
        0
    """)
    count = page.run("controls.length")
    reached = []
    for _ in range(count + 1):
        page.press("Tab")
        reached.append(page.run("controls.indexOf(document.activeElement)"))
    start = reached.index(0)
    assert start <= 1  # the browser's own frame may come first
    assert reached[start : start + count] == list(range(count))[: len(reached) - start]


def test_arrow_keys_read_the_points_aloud(page, story):
    page.run(f"{FRONT}.focus()")
    told = []
    for _ in range(2):
        page.press("ArrowRight")
        told.append(page.run(f"{FRONT}.nextElementSibling.textContent"))
    assert told[0] != told[1]
    for one in told:
        assert any(one.startswith(f"{point.cut}, validation AUROC") for point in story.front.points)


def test_every_figure_can_be_read_by_keys(page):
    for number in range(page.run("document.querySelectorAll('.plot').length")):
        plot = f"document.querySelectorAll('.plot')[{number}]"
        page.run(f"{plot}.focus()")
        page.press("ArrowRight")
        told = page.run(f"{plot}.nextElementSibling.textContent")
        assert len(told) > 8, plot
        for broken in ("undefined", "%{", "null", "NaN", "<", "[object"):
            assert broken not in told


def test_the_analysis_switches_its_measure_and_shows_its_picture(page):
    button = "document.querySelector('button[data-value={}]')"
    for measure in ("cka", "svcca"):
        page.run(f"{button.format(measure)}.focus()")
        page.press("Enter")
        shown = page.run(
            "document.querySelector('[data-plot=\"analysis-plot\"]').data"
            ".filter((t) => t.visible).map((t) => t.meta.measure)"
        )
        assert set(shown) == {measure}
        assert page.run(f"{button.format(measure)}.getAttribute('aria-pressed')") == "true"
    picture = "document.querySelector('#why img')"
    assert page.run(f"[{picture}.naturalWidth, {picture}.complete, {picture}.alt.length > 8]") == [90, True, True]


def test_enter_and_space_work_what_has_the_focus(page):
    def press(selector, key, told):
        page.run(f"document.querySelector('{selector}').focus()")
        page.press(key)
        return page.run(told)

    axes = f"[...new Set({FRONT}.data.filter((t) => t.visible).map((t) => t.meta.axis))]"
    assert press("button[data-value=params]", " ", axes) == ["params"]
    assert press("button[data-value=macs]", "Enter", axes) == ["macs"]
    ticked = "document.querySelector('[data-show=seeds]').checked"
    assert [press("[data-show=seeds]", " ", ticked) for _ in range(2)] == [True, False]
    opened = "document.querySelector('#front details').open"
    assert [press("#front summary", key, opened) for key in ("Enter", " ")] == [True, False]


@pytest.mark.parametrize("dark", [False, True])
def test_what_has_the_focus_is_seen(page, dark):
    page.show_as(width=1200, dark=dark)
    unseen = page.run(
        PALE.partition("const pale")[0]
        + f"""const unseen = [];
        for (const one of document.querySelectorAll('{CONTROLS}')) {{
            if (!one.checkVisibility() || one.disabled) continue;
            one.focus({{ focusVisible: true }});
            const style = getComputedStyle(one);
            const ring = light(read(style.outlineColor).slice(0, 3));
            const [a, b] = [ring, light(behind(one.parentElement))].sort((x, y) => y - x);
            if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2 || (a + 0.05) / (b + 0.05) < 3)
                unseen.push(one.outerHTML.slice(0, 80));
        }}
        return unseen;
    }})()"""
    )
    assert unseen == []


def test_the_page_has_the_bones_that_assistive_technology_walks_along(page):
    outline = page.run("""({
        lang: document.documentElement.lang,
        title: document.title.length > 0,
        landmarks: ["header", "nav[aria-label]", "main"].map((one) => document.querySelectorAll(one).length),
        levels: [...document.querySelectorAll("h1, h2, h3, h4")].map((one) => Number(one.tagName[1])),
        unscoped: [...document.querySelectorAll("th:not([scope])")].length,
        headless: [...document.querySelectorAll("table")].filter((one) => !one.tHead || !one.ariaLabel).length,
        unnamed: [...document.querySelectorAll("section")]
            .filter((one) => !document.getElementById(one.getAttribute("aria-labelledby"))).length,
        mute: [...document.querySelectorAll("img:not([alt]), .plot:not([aria-label]), .scroll[role]:not([aria-label])")]
            .length,
        twice: [...document.querySelectorAll("[id]")]
            .map((one) => one.id).filter((one, i, all) => all.indexOf(one) < i),
        dead: [...document.querySelectorAll("a")]
            .filter((one) => !document.querySelector(one.getAttribute("href"))).length,
    })""")
    levels = outline.pop("levels")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert outline == {
        "lang": "en", "title": True, "landmarks": [1, 1, 1], "unscoped": 0, "headless": 0, "unnamed": 0, "mute": 0,
        "twice": [], "dead": 0,
    }  # fmt: skip # a table of findings


def test_only_tables_that_scroll_are_stops_and_regions(page):
    page.show_as(width=390)
    page.run("new Promise((done) => setTimeout(done, 200))")
    wrong = page.run("""[...document.querySelectorAll(".scroll")]
        .filter((one) => (one.scrollWidth > one.clientWidth + 1) !== (one.tabIndex === 0))
        .map((one) => one.ariaLabel)""")
    stops = page.run("document.querySelectorAll('.scroll[tabindex][role=region]').length")
    page.show_as(width=1200)
    assert wrong == []
    assert stops > 0


def test_every_control_and_plot_has_a_name(page):
    unnamed = page.run(
        f"""[...document.querySelectorAll('{CONTROLS}')]
            .filter((one) => !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []


@pytest.fixture
def unfolded(page):
    """The page with everything unfolded, and folded again afterwards."""
    page.run(
        "window.folded = [...document.querySelectorAll('details:not([open])')]; folded.forEach((d) => d.open = true)"
    )
    yield page
    page.run("folded.forEach((d) => d.open = false)")
    page.show_as(width=1200)


@pytest.mark.parametrize(("dark", "media"), [(False, ""), (True, ""), (True, "print")])
def test_all_text_stands_out_from_its_ground(unfolded, dark, media):
    unfolded.show_as(width=1200, dark=dark, media=media)
    assert unfolded.run(PALE) == []


@pytest.mark.parametrize(("width", "media"), [(320, ""), (390, ""), (1200, ""), (718, "print")])
def test_nothing_is_wider_than_the_window_or_the_paper(unfolded, width, media):
    unfolded.show_as(width=width, media=media)
    unfolded.run("new Promise((done) => setTimeout(done, 200))")
    assert unfolded.run("document.documentElement.scrollWidth") <= width
    # On a screen wide tables scroll in a frame of their own; paper does not scroll.
    assert unfolded.run(OVERFLOWING.replace("INSIDE", "true" if media else "false")) == []


def test_paper_holds_what_is_folded_on_screen(page):
    assert page.run(FOLDED) > 0
    page.run(f"addEventListener('beforeprint', () => {{ window.folded = {FOLDED}; }})")
    paper = page.print_pdf()
    assert paper.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", paper)) <= 40
    assert page.run("window.folded") == 0
    assert page.run(FOLDED) > 0


def test_hostile_names_stay_text(browser, story, tmp_path):
    write_page(tmp_path / "report.html", hostile(story))
    browser.show_as(width=390)
    browser.open((tmp_path / "report.html").as_uri())
    browser.move(*browser.run(FIRST_POINT))
    browser.run(HOVER_TEXT)
    assert complaints(browser) == ([], [])
    assert browser.run("document.querySelectorAll('img, svg a, iframe, object, embed').length") == 0
    assert browser.run("[...document.querySelectorAll('a')].every((one) => one.getAttribute('href').startsWith('#'))")
    text = browser.run("document.body.innerText")
    for payload in PAYLOADS[:4]:
        assert payload in text
    assert "gnihtyna" in text
    assert RTL not in browser.run("document.documentElement.outerHTML")
    assert browser.run("document.documentElement.scrollWidth") <= 390
