"""From stored predictions to a calibrated file: labels are drawn so that the right temperature is known."""

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss, roc_curve

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 # torch may be missing

from ttl_deploy.data.manifest import prepare  # noqa: E402 # torch may be missing
from ttl_deploy.data.manifest_files import save_manifest  # noqa: E402 # torch may be missing
from ttl_deploy.errors import UsageError  # noqa: E402 # torch may be missing
from ttl_deploy.models import truncation  # noqa: E402 # torch may be missing
from ttl_deploy.models.weights import save_weights  # noqa: E402 # torch may be missing
from ttl_deploy.pixels import decode  # noqa: E402 # torch may be missing
from ttl_deploy.records import codec  # noqa: E402 # torch may be missing
from ttl_deploy.records.data import DecodeSettings, Manifest  # noqa: E402 # torch may be missing
from ttl_deploy.records.models import ModelSpec  # noqa: E402 # torch may be missing
from ttl_deploy.records.scores import Choice, Front, FrontPoint, Score  # noqa: E402 # torch may be missing
from ttl_deploy.records.trials import SearchSettings, TrainSettings, Trial, TrialResult  # noqa: E402 # torch may be missing
from ttl_deploy.runs.folder import RunFolder  # noqa: E402 # torch may be missing
from ttl_deploy.runtime.artifact import open_artifact  # noqa: E402 # torch may be missing
from ttl_deploy.runtime.predict import Prediction, predict  # noqa: E402 # torch may be missing
from ttl_deploy.runtime.verify import LabelledImages, verify  # noqa: E402 # torch may be missing
from ttl_deploy.search.shipping import ship  # noqa: E402 # torch may be missing
from ttl_deploy.training.batches import normalise  # noqa: E402 # torch may be missing
from ttl_deploy.training.evaluation import save_predictions  # noqa: E402 # torch may be missing

SIDE, CUT, TRUE_TEMPERATURE = 32, "stage2.0", 2.5
SIZES = {"train": 20, "val": 300, "test": 300}
DECODE = DecodeSettings(image_size=SIDE)


def write_images(folder: Path) -> list[str]:
    """Write smooth random images; returns their names in order of path."""
    generator = np.random.default_rng(0)
    names = [f"{split}_{number:03d}.png" for split, count in SIZES.items() for number in range(count)]
    for name in sorted(names):
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse.repeat(8, axis=0).repeat(8, axis=1)).save(folder / name)
    return sorted(names)


def make_model(spec: ModelSpec, trial: Trial, images: NDArray[np.uint8]) -> tuple[nn.Module, NDArray[np.float32]]:
    """Build a model and stretch its logits `(N, 2)`, so that their difference spreads by 2.5 times 2."""
    torch.manual_seed(0)
    model = truncation.build(spec).eval()
    pixels = normalise(torch.from_numpy(images).permute(0, 3, 1, 2), trial.input)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        nn.init.zeros_(last.bias)
        gap = model(pixels).diff(dim=1)
        last.weight *= 2 * TRUE_TEMPERATURE / gap.std()
        last.bias[1] -= gap.mean() * 2 * TRUE_TEMPERATURE / gap.std()
        return model, model(pixels).numpy()


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    return torch.softmax(torch.from_numpy(logits), dim=1).numpy()


def lay_out(folder: Path) -> tuple[RunFolder, NDArray[np.float32], Manifest]:
    """Lay out a finished run of one cut by hand; returns it with the logits of all images, by path."""
    data = folder / "data"
    data.mkdir()
    names = write_images(data)
    images = np.stack([decode(data / name, DECODE) for name in names])
    spec = ModelSpec(backbone="shufflenet_v2_x0_5", cut=CUT, classes=2, image_size=SIDE)
    trial = Trial(model=spec, weights="none", strategy="full", seed=0, train=TrainSettings())
    model, logits = make_model(spec, trial, images)
    drawn = np.random.default_rng(1).random(len(names)) < softmax(logits / TRUE_TEMPERATURE)[:, 1]
    rows = [
        (name, ("normal", "finding")[int(drawn[i])], f"{name[:5]}{i // 2}", name.split("_")[0])
        for i, name in enumerate(names)
    ]
    with (data / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "patient_id", "split"), *rows])
    manifest = prepare(str(data))
    assert manifest.classes == ("normal", "finding")
    assert [sample.path for sample in manifest.samples] == names
    run = RunFolder(folder / "run")
    run.path.mkdir()
    save_manifest(manifest, run.data)
    codec.save(run.config, SearchSettings(backbone=spec.backbone, data=str(data), decode=DECODE))
    write_trial(run, trial, model, logits, manifest)
    return run, logits, manifest


def write_trial(
    run: RunFolder, trial: Trial, model: nn.Module, logits: NDArray[np.float32], manifest: Manifest
) -> None:
    folder = run.trial(trial.key)
    folder.mkdir(parents=True)
    labels = np.array([sample.label for sample in manifest.samples])
    for split in ("val", "test"):
        rows = list(manifest.of_split(split))  # type: ignore[arg-type] # two of the splits
        save_predictions(folder / f"predictions_{split}.npz", predicted=softmax(logits[rows]), labels=labels[rows])
    result = TrialResult(
        key=trial.key, cut=CUT, strategy="full", seed=0, best_epoch=0, epochs_run=1, val_auroc=0.8, params=1,
        weights_sha256=save_weights(model, folder / "best.safetensors"), weights_note="", precision="fp32",
        device="cpu", seconds=1.0,
    )  # fmt: skip # a table of fields
    score = Score(
        metric="auroc", split="val", value=0.8, low=None, high=None, level=0.95, images=1, patients=1,
        per_class=(0.8,), defined=1, method="",
    )  # fmt: skip # a table of fields
    point = FrontPoint(
        name=CUT, cut=CUT, strategy="full", params=1, macs=1, layers=1, params_share=1.0, macs_share=1.0,
        latency_s=None, latency_noise_s=None, validation=(score,), test=(), seeds=(0,), seed_values=(0.8,),
        to_best=None, on_front=(),
    )  # fmt: skip # a table of fields
    choice = Choice(
        cut=CUT, strategy="full", seed=0, rule="best", max_latency_s=None, max_params=None, max_macs=None, sentence=""
    )
    codec.save(folder / "trial.json", trial)
    codec.save(folder / "result.json", result)
    codec.save(run.front, Front(best=CUT, reference=None, target="t", points=(point,)))
    codec.save(run.chosen, choice)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, NDArray[np.float32], Manifest]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTL_DEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        return lay_out(tmp_path_factory.mktemp("laid_out"))


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "cache"))


def split_of(manifest: Manifest, split: str) -> tuple[list[int], NDArray[np.int64]]:
    rows = [i for i, sample in enumerate(manifest.samples) if sample.split == split]
    return rows, np.array([manifest.samples[i].label for i in rows])


def labelled(manifest: Manifest, split: str) -> LabelledImages:
    chosen = [sample for sample in manifest.samples if sample.split == split]
    return LabelledImages(
        images=np.stack([decode(Path(manifest.root) / sample.path, DECODE) for sample in chosen]),
        labels=[sample.label for sample in chosen],
        patients=[sample.patient_id for sample in chosen],
        sha256s=[sample.sha256 for sample in chosen],
        classes=manifest.classes,
        split=split,  # type: ignore[arg-type] # one of the splits
    )


def value(scores: tuple[Score, ...], metric: str, split: str) -> float | None:
    return next(score.value for score in scores if (score.metric, score.split) == (metric, split))


def test_the_file_is_calibrated_decides_by_its_threshold_and_verifies(
    laid_out: tuple[RunFolder, NDArray[np.float32], Manifest],
) -> None:
    run, logits, manifest = laid_out
    shipped = ship(run, operating_rule="sensitivity=0.9")
    described = shipped.manifest
    rows, labels = split_of(manifest, "val")

    best = minimize_scalar(lambda t: log_loss(labels, softmax(logits[rows] / t)), bounds=(0.1, 8), method="bounded")
    assert described.temperature == pytest.approx(best.x, rel=1e-3)
    assert described.temperature == pytest.approx(TRUE_TEMPERATURE, rel=0.3)
    assert described.calibration is not None
    assert described.calibration.images == SIZES["val"]
    for effect in described.calibration.effects:
        assert effect.nll_after < effect.nll_before
        assert effect.error_before is not None
        assert effect.error_after is not None
        assert (effect.error_after.value or 1) < (effect.error_before.value or 0)

    scores = softmax(logits / described.temperature)[:, 1]
    false, true, _ = roc_curve(labels, scores[rows], drop_intermediate=False)
    assert described.threshold is not None
    assert value(described.scores, "specificity", "val") == pytest.approx(1 - false[true >= 0.9].min())
    tested, truth = split_of(manifest, "test")
    found = (scores[tested] >= described.threshold)[truth == 1].mean()
    assert value(described.scores, "sensitivity", "test") == pytest.approx(found)
    assert described.operating_point is not None
    assert value(described.operating_point.scores, "sensitivity", "test") == pytest.approx(found)

    artifact = open_artifact(shipped.folder)
    report = verify(artifact, labelled(manifest, "test"))
    assert report.passed
    assert report.parity is not None
    assert report.parity.images == SIZES["test"]
    assert report.threshold == described.threshold
    assert value(report.file_scores, "sensitivity", "test") == pytest.approx(found)
    near = np.abs(scores[tested] - described.threshold)
    assert report.near_threshold == (near <= 1e-4).sum()

    answers = list(predict(artifact, [Path(manifest.root) / manifest.samples[i].path for i in tested]))
    for index, answer in zip(tested, answers, strict=True):
        assert isinstance(answer, Prediction)
        assert answer.probabilities[1] == pytest.approx(scores[index], abs=1e-5)
        assert answer.predicted == manifest.classes[int(scores[index] >= described.threshold)]

    card = (shipped.folder / "model_card.md").read_text(encoding="utf-8")
    for words in (
        f"divided by the temperature {described.temperature:.4g}",
        "fitted on 300 validation images of",
        "Of all thresholds with a sensitivity of at least 0.9",
        f"from the probability {described.threshold:.9g} on (95% interval: ",
        "where the scores are therefore too good",
        "The probabilities were calibrated on data like those above",
    ):
        assert words in card


def test_without_calibration_and_by_argmax_the_file_is_as_before(
    laid_out: tuple[RunFolder, NDArray[np.float32], Manifest],
) -> None:
    run, logits, manifest = laid_out
    shipped = ship(run, calibrate=False)
    described = shipped.manifest
    assert (described.calibration, described.temperature) == (None, 1.0)
    assert (described.decision, described.threshold) == ("argmax", None)
    artifact = open_artifact(shipped.folder)
    rows, _ = split_of(manifest, "val")
    known = artifact.references()
    given = np.stack([known[manifest.samples[i].sha256] for i in rows])
    np.testing.assert_array_equal(given, softmax(logits[rows]))
    assert verify(artifact, labelled(manifest, "test")).passed
    assert "were not calibrated" in (shipped.folder / "model_card.md").read_text(encoding="utf-8")


def test_a_tensorrt_without_metadata_stands_in_no_ones_way(
    laid_out: tuple[RunFolder, NDArray[np.float32], Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("")  # as JetPack's own, which is no installed distribution
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = ship(laid_out[0]).manifest.versions
    assert "tensorrt" not in versions
    assert versions["onnx"]


def test_a_rule_that_makes_no_sense_is_refused_before_anything_is_exported(
    laid_out: tuple[RunFolder, NDArray[np.float32], Manifest],
) -> None:
    run, _, _ = laid_out
    before = sorted(run.path.rglob("*"))
    with pytest.raises(UsageError, match="above 0 and below 1"):
        ship(run, operating_rule="sensitivity=90")
    assert sorted(run.path.rglob("*")) == before
