"""A whole run in records, as a search on chest radiographs would leave it."""

import numpy as np
import pytest

from ttl_deploy.evidence.choice import choose
from ttl_deploy.evidence.front import LabelledSplit, add_test_scores, build_front, pareto_members
from ttl_deploy.records.artifacts import ArtifactManifest, FileEntry, InputSpec, Parity, VerifyReport
from ttl_deploy.records.benchmarks import BenchReport, BenchRow, Machine, Percentile, Timing
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.data import DataFingerprint, DataWarning, DecodeSettings, SplitCount
from ttl_deploy.records.models import InputConvention, ModelSpec
from ttl_deploy.records.trials import (
    CutProfile,
    EpochRecord,
    Profile,
    SearchSettings,
    TestOpening,
    TrialFailure,
    TrialResult,
)
from ttl_deploy.records.weights import WeightsUsed
from ttl_deploy.report.model_curves import Predicted, trace_models
from ttl_deploy.report.story import ExportStory, RunStory

# cut, parameters, MACs, layers, latency in ms, how well it separates the classes
CUTS = (
    ("features.3", 8_000, 30_000_000, 6, 0.9, 1.1),
    ("features.6", 57_000, 71_000_000, 14, 1.9, 1.9),
    ("features.10", 250_000, 110_000_000, 26, 2.6, 2.6),
    ("features.13", 560_000, 164_000_000, 35, 3.5, 2.9),
    ("features.16", 1_500_000, 250_000_000, 47, 4.6, 2.85),
    ("full", 2_226_434, 300_775_552, 53, 5.6, 2.8),
)
SEEDS = (0, 1)
DIGEST = "3f" * 32


def make_profile():
    return Profile(
        target="onnxruntime-cpu",
        runtime="onnxruntime 1.30.0",
        precision="fp32",
        threads=1,
        batch=1,
        machine="Neoverse-V1, 2 cores",
        cuts=tuple(
            CutProfile(
                cut=cut,
                params=params,
                macs=macs,
                layers=layers,
                params_share=params / CUTS[-1][1],
                macs_share=macs / CUTS[-1][2],
                size_bytes=4 * params + 60_000,
                latency_s=ms / 1e3,
                latency_noise_s=ms / 4e4,
            )
            for cut, params, macs, layers, ms, _ in CUTS
        ),
    )


def make_predictions(split, cuts, *, patients, seed):
    """Draw labels, patients of two images each, and correlated predictions of every cut and seed."""
    generator = np.random.default_rng(seed)
    labels = np.repeat((generator.random(patients) < 0.6).astype(int), 2)
    shared = np.repeat(generator.normal(size=patients), 2)
    strength = {cut: how_well for cut, *_, how_well in CUTS}
    predictions = {}
    for cut in cuts:
        logits = {
            s: strength[cut] * labels + 0.8 * shared + 0.6 * generator.normal(size=2 * patients) - 1 for s in SEEDS
        }
        positive = {s: 1 / (1 + np.exp(-one)) for s, one in logits.items()}
        predictions[Candidate(cut, "full")] = {s: np.stack([1 - one, one], axis=1) for s, one in positive.items()}
    return predictions, LabelledSplit(split=split, labels=labels, patients=np.repeat(np.arange(patients), 2))


def make_front(profile):
    predictions, validation = make_predictions("val", [one[0] for one in CUTS], patients=180, seed=1)
    front = build_front(profile, predictions, validation, replicates=200)
    opened = sorted({*pareto_members(front), "full"})
    return add_test_scores(front, *make_predictions("test", opened, patients=300, seed=2), replicates=200)


def make_trials():
    finished = [
        TrialResult(
            key=f"{cut}__full__s{seed}",
            cut=cut,
            strategy="full",
            seed=seed,
            best_epoch=3 + seed,
            epochs_run=6,
            val_auroc=round(0.97 - 0.2 / layers**0.5 + 0.01 * seed, 4),
            params=params,
            weights_sha256=DIGEST,
            weights_note="imagenet trunk; layers past the cut were not in the file",
            precision="bf16",
            device="NVIDIA H200",
            seconds=95.0 + 40 * seed,
        )
        for cut, params, _, layers, *_ in CUTS
        for seed in SEEDS
    ]
    failed = TrialFailure(
        key="features.18__full__s0",
        cut="features.18",
        strategy="full",
        seed=0,
        kind="numerical",
        reason="the loss was not a number in epoch 2: lower --lr",
    )
    return (*finished, failed)


def make_curve(trial):
    return tuple(
        EpochRecord(
            epoch=epoch,
            train_loss=0.7 / epoch,
            val_loss=0.8 / epoch,
            val_auroc=trial.val_auroc - 0.02 * abs(epoch - trial.best_epoch) / epoch,
            lr=1e-4,
            seconds=20.0,
            data_wait_share=0.03,
        )
        for epoch in range(1, trial.epochs_run + 1)
    )


def make_fingerprint():
    counts = (
        SplitCount(split="train", images=1500, patients=1410, per_class=(402, 1098)),
        SplitCount(split="val", images=360, patients=180, per_class=(140, 220)),
        SplitCount(split="test", images=600, patients=300, per_class=(234, 366)),
    )
    return DataFingerprint(
        name="cxr_kermany",
        reader="folder",
        sha256=DIGEST,
        classes=("NORMAL", "PNEUMONIA"),
        counts=counts,
        patients_known=True,
    )


def make_export(front, choice):
    point = front.point(choice.cut)
    manifest = ArtifactManifest(
        name=f"mobilenet_v2-{choice.cut}",
        format="onnx",
        precision="fp32",
        model=ModelSpec(backbone="mobilenet_v2", cut=choice.cut, classes=2, image_size=128),
        classes=("NORMAL", "PNEUMONIA"),
        decode=DecodeSettings(image_size=128),
        input=InputSpec(
            name="images",
            height=128,
            width=128,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            max_batch=64,
        ),
        output="probabilities",
        decision="argmax",
        threshold=None,
        scores=point.validation,
        params=point.params,
        macs=point.macs,
        data=make_fingerprint(),
        strategy="full",
        seed=choice.seed,
        weights_sha256=DIGEST,
        weights_note="imagenet trunk",
        versions={"torch": "2.13.0"},
        opset=20,
        ir_version=10,
        created="2026-01-05T10:00:00Z",
        intended_use="Research use only; not a medical device.",
        files=(FileEntry(name="model.onnx", size_bytes=2_310_000, sha256=DIGEST),),
    )
    verification = VerifyReport(
        artifact=manifest.name,
        artifact_sha256=DIGEST,
        target="onnxruntime-cpu",
        split="test",
        images=600,
        parity=Parity(
            images=600,
            max_difference=3.1e-6,
            mean_difference=2e-7,
            decisions_flipped=0,
            limit=1e-4,
            reference="torch 2.13.0",
        ),
        file_scores=point.test,
        model_scores=point.test,
        passed=True,
    )
    return ExportStory(manifest=manifest, verification=verification, benchmarks=(make_benchmark(manifest.name),))


def make_benchmark(artifact):
    row = BenchRow(
        artifact=artifact,
        artifact_sha256=DIGEST,
        target="onnxruntime-cpu",
        runtime="onnxruntime 1.30.0",
        precision="fp32",
        batch=1,
        threads=1,
        boundary="session call",
        percentiles=(
            Percentile(percent=50, value_s=0.0026, low_s=0.0025, high_s=0.0027),
            Percentile(percent=90, value_s=0.0031, low_s=0.003, high_s=0.0033),
            Percentile(percent=99, value_s=None, low_s=None, high_s=None),
        ),
        minimum_s=0.0024,
        variation=0.02,
        noise_s=0.00006,
        throughput=384.6,
        verdict="stable",
        timings=(Timing(round=0, load_s=0.1, warmup_s=(0.01,), samples_s=(0.0026,), cpu_samples_s=(0.0026,)),),
    )
    machine = Machine(
        host="ward-pc",
        system="Linux 6.1",
        processor="Neoverse-V1",
        cores=2,
        memory_bytes=8_000_000_000,
        governor="performance",
        load_before=0.2,
        load_after=0.9,
    )
    return BenchReport(machine=machine, rows=(row,), calibration_before_s=0.01, calibration_after_s=0.0101)


def make_model_curves(choice):
    predictions, split = make_predictions("test", [choice.cut, "full"], patients=300, seed=2)
    models = [
        Predicted(
            role=role,
            key=f"{cut}__full__s{choice.seed}",
            probabilities=predictions[Candidate(cut, "full")][choice.seed],
            temperature=temperature,
        )
        for role, cut, temperature in (("chosen", choice.cut, 1.7), ("reference", "full", 1.0))
    ]
    classes = ("NORMAL", "PNEUMONIA")
    return trace_models(models, split.labels, split.patients, classes=classes, split="test", replicates=100)


@pytest.fixture(scope="session")
def story():
    """The run, complete: trained, chosen, exported, verified, benchmarked."""
    profile, trials = make_profile(), make_trials()
    front = make_front(profile)
    choice = choose(front, "smallest-within-interval")
    return RunStory(
        name="kermany-1",
        settings=SearchSettings(backbone="mobilenet_v2", data="cxr_kermany", seeds=SEEDS),
        fingerprint=make_fingerprint(),
        warnings=(DataWarning(kind="shortcut", message="Image size alone separates the classes with AUROC 0.71."),),
        profile=profile,
        front=front,
        choice=choice,
        trials=trials,
        curves={trial.key: make_curve(trial) for trial in trials if isinstance(trial, TrialResult)},
        exports=(make_export(front, choice),),
        model_curves=make_model_curves(choice),
        weights=WeightsUsed(
            weights="imagenet",
            url="https://example.org/mobilenet_v2-7ebf99e0.pth",
            path="/cache/mobilenet_v2-7ebf99e0.pth",
            sha256="7e" * 32,
            changes=("first convolution adapted from 1 to 3 channels",),
            file_input=InputConvention(mean=(0.5,), std=(0.25,)),
            input=InputConvention(mean=(0.5,) * 3, std=(0.25,) * 3),
            input_in_words="(pixel / 255 - 0.5) / 0.25",
        ),
        openings=(
            TestOpening(
                split="test",
                command="ttl-deploy search --backbone mobilenet_v2 --data cxr_kermany",
                trials=tuple(f"{cut}__full__s0" for cut in ("features.10", "full")),
            ),
        ),
        versions={"ttl-deploy": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        command="ttl-deploy search --backbone mobilenet_v2 --data cxr_kermany --seeds 0,1",
    )
