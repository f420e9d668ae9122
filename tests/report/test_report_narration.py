"""The question, what was left out, the commands, what failed, and which predictions the curves are of."""

import shlex
from dataclasses import replace

import numpy as np
import pytest

from ttl_deploy.data.manifest_files import save_manifest
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import Attempt, Calibration, CalibrationImages, Gate, OperatingPoint, Quantisation
from ttl_deploy.records.benchmarks import BenchFailure
from ttl_deploy.records.data import Manifest, Reading, Sample
from ttl_deploy.report.front_plot import draw_front
from ttl_deploy.report.narration import ask, reproduction, tell_gap, tell_omissions
from ttl_deploy.report.refusals import list_refusals
from ttl_deploy.report.run_curves import read_curves
from ttl_deploy.runs.folder import RunFolder


def test_the_question_names_network_classes_and_margin(story):
    asked = ask(replace(story, settings=replace(story.settings, margin=0.03)))
    for words in ("mobilenet_v2", "NORMAL and PNEUMONIA", "0.03", "tell apart"):
        assert words in asked
    findings = replace(story.fingerprint, classes=("a", "b", "c"), multilabel=True)
    assert "find a, b and c" in ask(replace(story, fingerprint=findings))


def test_what_was_left_out_is_told_without_a_path(story):
    assert tell_omissions(story) == ("Nothing that is recorded.",)
    settings = replace(
        story.settings, limit_train=40, reading=Reading(classes={"VIRUS": "", "BACTERIA": "ILL"}, labels=("x",))
    )
    told = " ".join(tell_omissions(replace(story, settings=settings, unusable={"is truncated": 2, "is empty": 1})))
    for words in (
        "decode: 3",
        "is truncated (2)",
        "is empty (1)",
        "left out on demand: VIRUS.",
        "kept: x.",
        "40 images",
    ):
        assert words in told


def test_labels_that_nobody_knows_are_counted(story):
    counts = tuple(replace(one, unknown=(1, 2)) for one in story.fingerprint.counts)
    told = tell_omissions(replace(story, fingerprint=replace(story.fingerprint, counts=counts, multilabel=True)))
    assert "nobody knows: 9; they are masked" in told[0]


def test_the_commands_are_quoted_and_name_what_was_exported(story):
    export = story.exports[0]
    calibration = Calibration(temperature=1.2, split="val", images=9, patients=9, effects=())
    manifest = replace(export.manifest, strategy="l2-sp?alpha=1&beta=2", calibration=calibration)
    commands = reproduction(replace(story, exports=(replace(export, manifest=manifest),)))
    assert commands[0] == story.command
    given = shlex.split(commands[1])
    assert given[:3] == ["ttl-deploy", "export", "RUN"]
    assert dict(zip(given[3::2], given[4::2], strict=True)) == {
        "--format": "onnx",
        "--precision": "fp32",
        "--cut": story.choice.cut,
        "--strategy": "l2-sp?alpha=1&beta=2",
        "--seed": str(story.choice.seed),
    }


def test_what_an_export_was_asked_for_besides_is_in_its_command(story):
    export = story.exports[0]
    point = OperatingPoint(
        rule="sensitivity", target=0.95, threshold=0.3, low=None, high=None, level=0.95, split="val", images=9,
        patients=9, method="", sentence="",
    )  # fmt: skip # a table of fields
    manifest = replace(export.manifest, precision="int8", operating_point=point, gate=Gate(max_drop=0.02))
    (_, command, *_) = reproduction(replace(story, exports=(replace(export, manifest=manifest),)))
    assert command.endswith(" --operating-point sensitivity=0.95 --no-calibrate --max-drop 0.02")


def test_every_artifact_is_verified_where_it_lies(story):
    export = story.exports[0]
    other = replace(export, manifest=replace(export.manifest, name=f"{export.manifest.name}-ort-int8"))
    commands = reproduction(replace(story, exports=(export, other)))
    folders = [f"RUN/exports/{story.choice.cut}{end}" for end in ("", "-ort-int8")]
    assert commands[3:5] == tuple(f"ttl-deploy verify {one} --data {story.settings.data}" for one in folders)
    assert commands[5:] == (f"ttl-deploy bench {' '.join(folders)}", "ttl-deploy report RUN")


@pytest.mark.parametrize(
    ("name", "said"),
    [("r-layer3-trt-fp16", ""), ("r-layer3-rtx-fp16", "--flavour rtx"), ("r-l-trt-jetpack5-fp16", "--target jetpack5")],
)
def test_engines_are_asked_for_in_their_flavour(story, name, said):
    export = story.exports[0]
    manifest = replace(export.manifest, name=name, format="trt", precision="fp16")
    (_, command, *_) = reproduction(replace(story, exports=(replace(export, manifest=manifest),)))
    assert command.partition(" --no-calibrate")[2].strip() == said


def test_the_question_counts_many_classes_instead_of_naming_them(story):
    many = replace(story.fingerprint, classes=tuple("abcdefgh"))
    assert "tell apart 8 classes, if" in ask(replace(story, fingerprint=many))
    assert "find 8 findings, if" in ask(replace(story, fingerprint=replace(many, multilabel=True)))


def test_failed_trainings_are_told_with_the_answer(story):
    assert tell_gap(story).startswith(f"1 of {len(story.trials)} trainings failed")
    assert tell_gap(replace(story, trials=story.results)) == ""


def failing(story):
    """Return the story with an int8 try that was refused, a failed verification and a benchmark that crashed."""
    export = story.exports[0]
    attempt = Attempt(
        recipe="S8S8",
        kept=(),
        size_bytes=9,
        max_difference=0.3,
        sqnr_db=9.0,
        agreement=0.9,
        auroc_difference=-0.02,
        auroc_low=-0.04,
        passed=False,
    )
    images = CalibrationImages(split="train", images=4, patients=4, per_class=(2, 2), seed=0, sha256="0" * 64)
    quantisation = Quantisation(
        recipe="S8U8",
        calibration=images,
        kept=(),
        attempts=(attempt, replace(attempt, recipe="S8U8", passed=True)),
        single_size_bytes=36,
    )
    failure = BenchFailure(
        artifact=export.manifest.name,
        artifact_sha256=export.manifest.files[0].sha256,
        target="other-cpu",
        batch=1,
        threads=1,
        mode="latency",
        boundary="b",
        reason="crashed",
    )
    changed = replace(
        export,
        manifest=replace(export.manifest, quantisation=quantisation),
        verification=replace(export.verification, passed=False, note="flipped"),
        earlier=(replace(export.verification, target="a-gpu", passed=False, note="gone wrong"), export.verification),
        benchmarks=(replace(export.benchmarks[0], failures=(failure, replace(failure, artifact_sha256="0" * 64))),),
    )
    return replace(story, exports=(changed,), settings=replace(story.settings, max_params=100))


def test_everything_that_failed_or_was_refused_is_listed(story):
    found = list_refusals(failing(story))
    told = [(one.what, one.why) for one in found]
    assert ("trial, numerical", story.failures[0].reason) in told
    assert [why for what, why in told if what == "verification"] == ["gone wrong", "flipped"]
    assert [why for what, why in told if what == "benchmark"] == ["crashed"]
    tries = [why for what, why in told if what == "try at lower precision"]
    assert len(tries) == 1
    assert "S8S8" in tries[0]


def test_files_stand_at_their_benchmarked_median_and_their_size(story):
    manifest, row = story.exports[0].manifest, story.exports[0].benchmarks[0].rows[0]
    drawn = {
        trace["meta"]["axis"]: trace
        for trace in draw_front(story, story.front)["data"]
        if trace["meta"].get("file fp32")
    }
    assert set(drawn) == {"latency_s", "size_bytes"}
    assert drawn["latency_s"]["x"] == pytest.approx([1e3 * row.percentiles[0].value_s])
    assert drawn["size_bytes"]["x"] == pytest.approx([manifest.files[0].size_bytes / 1e6])
    score = story.front.point(story.choice.cut).validation[0].value
    assert drawn["latency_s"]["y"] == drawn["size_bytes"]["y"] == [score]


def test_nobody_off_the_line_by_size_is_smaller_and_better(story):
    traces = [t for t in draw_front(story, story.front)["data"] if t["meta"] == {"axis": "size_bytes"}]
    line = next(trace for trace in traces if trace["mode"] == "lines")
    on = list(zip(line["x"], line["y"], strict=True))
    everybody = [(story.cost(point.cut).size_bytes / 1e6, point.validation[0].value) for point in story.front.points]
    best = [(x, y) for x, y in everybody if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in everybody)]
    assert on == sorted(best)


@pytest.fixture
def run(tmp_path, story):
    """A run folder with settings, a manifest, and stored predictions of the choice and the reference."""
    folder = RunFolder(tmp_path / "run")
    folder.data.mkdir(parents=True)
    codec.save(folder.config, story.settings)
    samples = tuple(
        Sample(
            path=f"{split}{i}.png", label=i % 2, patient_id=f"p{split}{i // 2}", split=split, sha256=f"{n:02x}{i:062x}"
        )
        for n, split in enumerate(("train", "val", "test"))
        for i in range(12)
    )
    manifest = Manifest(
        name="m", root="/r", reader="folder", classes=("NORMAL", "PNEUMONIA"), samples=samples, patients_known=True
    )
    save_manifest(manifest, folder.data)
    return folder


def store(run, cut, seed, split, *, shift=0.0):
    folder = run.trial(f"{cut}__full__s{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    positive = np.linspace(0.1, 0.9, 12) - shift
    np.savez(folder / f"predictions_{split}.npz", probabilities=np.stack([1 - positive, positive], axis=1))


def test_curves_are_of_the_shipped_seed_on_test_where_that_was_opened_else_on_validation(run, story):
    choice = story.choice
    assert read_curves(run, story.front, choice) is None
    for cut in (choice.cut, "full"):
        store(run, cut, choice.seed, "val")
    assert read_curves(run, story.front, choice).split == "val"
    store(run, choice.cut, choice.seed, "test")
    alone = read_curves(run, story.front, choice)
    assert (alone.split, [one.role for one in alone.models]) == ("test", ["chosen"])
    store(run, "full", choice.seed, "test", shift=0.05)
    both = read_curves(run, story.front, choice)
    assert [one.key for one in both.models] == [f"{cut}__full__s{choice.seed}" for cut in (choice.cut, "full")]
    assert (both.images, both.patients) == (12, 6)
    assert both.models[0].classes[0].scores[0].value == pytest.approx(21 / 36)
