"""The report's exports: what precision was asked for and ran, what was tried, and what it was published on."""

from dataclasses import replace

from ttl_deploy.records.artifacts import (
    Attempt,
    AurocDrop,
    CalibrationImages,
    Execution,
    Gate,
    Parity,
    Quantisation,
)
from ttl_deploy.records.scores import PairedDifference
from ttl_deploy.report.page import render_page
from ttl_deploy.runtime.precision_words import describe_parity, describe_precision

DIFFERENCE = PairedDifference(reference="the trained model", value=-0.001, low=-0.004, high=0.002, level=0.95)
PARITY = Parity(
    images=200,
    max_difference=0.25,
    mean_difference=0.01,
    decisions_flipped=3,
    limit=1.0,
    reference="the torch model, 200 validation images",
    percentiles=(0.001, 0.05, 0.2),
    sqnr_db=22.34,
    auroc=AurocDrop(file=0.95, model=0.951, difference=DIFFERENCE, images=200, patients=150),
    gate=Gate(max_drop=0.005),
)


def lowered(manifest):
    """Describe an 8-bit file with one layer kept, by the second try."""
    attempt = Attempt(
        recipe="S8S8",
        kept=(),
        size_bytes=2_000_000,
        max_difference=0.9,
        sqnr_db=9.1,
        agreement=0.94,
        auroc_difference=-0.01,
        auroc_low=-0.02,
        passed=False,
    )
    images = CalibrationImages(split="train", images=300, patients=280, per_class=(150, 150), seed=0, sha256="ab")
    return replace(
        manifest,
        format="openvino",
        precision="int8",
        gate=PARITY.gate,
        executed=Execution(
            target="openvino-cpu", runtime="openvino 1", precision="int8", layers={"int8": 52, "fp32": 1}
        ),
        quantisation=Quantisation(
            recipe="S8S8",
            calibration=images,
            kept=("features.<1>",),
            attempts=(attempt, replace(attempt, kept=("features.<1>",), agreement=0.99, passed=True)),
            single_size_bytes=8_000_000,
        ),
    )


def test_the_page_says_what_ran_what_was_tried_and_on_what_it_was_published(story):
    export = story.exports[0]
    page = render_page(replace(story, exports=(replace(export, manifest=lowered(export.manifest), parity=PARITY),)))
    for words in (
        "openvino 1 really ran int8 (convolutions and matrix products: 52 in int8, 1 in fp32)",
        "1 sensitive layers kept in fp32: features.&lt;1&gt;",
        "<dt>Try 1</dt><dd>S8S8: 2.00 MB, 94.00% of decisions the same, ",
        "AUROC difference at least -0.0200, 9.1 dB; failed",
        "<dt>Try 2</dt>",
        "<dt>Published on</dt><dd>the torch model, 200 validation images",
        "signal to noise of the logits 22.3 dB",
    ):
        assert words in page
    assert "features.<1>" not in page


def test_a_gate_is_told_with_what_it_asked_for():
    told = "\n".join(describe_parity(PARITY))
    assert "decisions flipped 3 of 200 (98.50% the same, asked for 98%)" in told
    assert "difference -0.0010, 95% interval -0.0040 to +0.0020 (200 images, 150 patients)" in told
    assert "a loss of 0.005 must be excluded" in told
    assert "median 0.001, 95 % below 0.050, 99 % below 0.200" in told


def test_an_older_artifact_says_only_what_it_knows(story):
    manifest = replace(story.exports[0].manifest, executed=None)
    assert describe_precision(manifest) == ("onnx in fp32",)
    assert describe_parity(
        Parity(**{**plain(PARITY), "gate": None, "limit": 1e-4, "auroc": None, "percentiles": None})
    ) == (
        "largest difference in probability 0.250 (allowed 0.0001)",
        "decisions flipped 3 of 200",
    )


def plain(record):
    return {name: getattr(record, name) for name in record.__slots__}
