"""What finetuning for 8 bits regains where static quantisation of all layers loses: decisions, AUROC, signal to noise.

    python benchmarks/qat.py RUN [--cut CUT] [--epochs 3] [--rates 1e-5,1e-4,1e-3] [--seed 0]

Takes a trained model of a run, quantises it with all layers in 8 bits by the recipe that OpenVINO and TensorRT share,
then finetunes it at every rate, each time from the trained weights, and quantises it by the same recipe again. Every
file is compared on validation with what the trained model says there, as `ttl-deploy export` compares it. Seconds are
CPU seconds of the finetuning.
"""

import argparse
import copy
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import store

from ttl_deploy import plugins
from ttl_deploy.data.cache import open_cache
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.evidence.calibration import apply_temperature, fit_temperature
from ttl_deploy.export import quantisation
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx
from ttl_deploy.models import truncation, weights
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import Gate, Parity
from ttl_deploy.records.trials import Trial
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.parity import Truth, answer, compare
from ttl_deploy.search import findings, proving
from ttl_deploy.search.qat import pixels_of
from ttl_deploy.training.loop import WEIGHTS
from ttl_deploy.training.quantisation_aware import finetune

GATE = Gate(max_drop=0.005)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trained model with the images to finetune, quantise and judge it by."""

    run: RunFolder
    trial: Trial
    proof: plugins.Proof
    temperature: float

    @property
    def model(self) -> truncation.TruncatedModel:
        """The model, built anew with its trained weights."""
        model = truncation.build(self.trial.model)
        weights.load_weights(model, self.run.trial(self.trial.key) / WEIGHTS)
        return model.eval()


def main() -> None:
    """Quantise without finetuning, then at every rate; print a table, store JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cut", default="full")
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rates", default="1e-5,1e-4,1e-3")
    given = parser.parse_args()
    case = read_case(RunFolder(given.run), f"{given.cut}__{given.strategy}__s{given.seed}")
    rows = [judge(case, case.model) | {"epochs": 0, "rate": None}]
    show(rows[0])
    for rate in map(float, given.rates.split(",")):
        rows.append(finetune_and_judge(case, epochs=given.epochs, rate=rate))
        show(rows[-1])
    options = f"--cut {given.cut} --epochs {given.epochs} --rates {given.rates}"
    name = f"qat-{given.run.name}-{given.cut}"
    store(name, f"python benchmarks/qat.py {given.run.name} {options}", rows)


def read_case(run: RunFolder, key: str) -> Case:
    """Read a trial, and the images that an export would use."""
    trial = codec.load(Trial, run.trial(key) / "trial.json")
    data = load_manifest(run.data)
    truth = findings.labelled_split(run.data, "val")
    said = findings.read_probabilities(run, key, "val")
    temperature = fit_temperature(said, truth.labels).value
    cache = open_cache(data, replace(run.settings().decode, image_size=trial.model.image_size))
    proof = proving.gather(
        data,
        cache,
        apply_temperature(said, temperature),
        precision="int8",
        gate=GATE,
        progress=lambda stage, done, total: None,
    )
    return Case(run=run, trial=trial, proof=proof, temperature=temperature)


def finetune_and_judge(case: Case, *, epochs: int, rate: float) -> dict[str, Any]:
    """Finetune a copy of the model and quantise that."""
    data = load_manifest(case.run.data)
    cache = open_cache(data, replace(case.run.settings().decode, image_size=case.trial.model.image_size))
    model, begun = case.model, time.process_time()
    found = finetune(
        model,
        case.trial,
        train=pixels_of(data, cache, "train"),
        val=pixels_of(data, cache, "val"),
        calibration=case.proof.calibration,
        epochs=epochs,
        device=torch.device("cpu"),
        lr=rate,
    )
    seconds = time.process_time() - begun
    row = judge(case, model)
    simulated: dict[str, Any] = {
        "simulated_before": found.before,
        "simulated_after": found.after,
        "best_epoch": found.best_epoch,
    }
    return row | simulated | {"epochs": epochs, "rate": rate, "cpu_seconds": seconds}


def judge(case: Case, model: truncation.TruncatedModel) -> dict[str, Any]:
    """Quantise all layers, run the file over validation, and compare."""
    given = case.trial.input
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        deployable = make_deployable(copy.deepcopy(model), mean=given.mean, std=given.std, temperature=case.temperature)
        write_onnx(deployable, here / "single.onnx", image_size=case.trial.model.image_size, metadata={})
        quantisation.prepare(here / "single.onnx", here / "prepared.onnx")
        quantisation.quantise(
            here / "prepared.onnx",
            here / "int8.onnx",
            recipe=quantisation.SHARED,
            ranges=here / "ranges.json",
            images=case.proof.calibration,
        )
        target = "openvino-cpu"
        answered = answer(target, here / "int8.onnx", case.proof.images, 16, 1, None)
    return describe(compare_with_trained(case, answered.probabilities)) | {"target": answered.execution.runtime}


def compare_with_trained(case: Case, said: np.ndarray[Any, np.dtype[np.float32]]) -> Parity:
    """Compare a file's answers on validation with the trained model's."""
    return compare(
        said,
        case.proof.probabilities,
        DecidesByLargest(),  # type: ignore[arg-type] # all that is asked of a manifest here
        reference="",
        truth=Truth(labels=case.proof.labels, patients=case.proof.patients, split="val"),
        gate=GATE,
    )


@dataclass(frozen=True, slots=True)
class DecidesByLargest:
    """What `decide` asks of a manifest: the largest probability decides."""

    decision: str = "argmax"
    threshold: float | None = None


def describe(parity: Parity) -> dict[str, Any]:
    """Return a row of figures."""
    drop = parity.auroc
    assert drop is not None
    assert drop.difference is not None
    return {
        "images": parity.images,
        "agreement": parity.agreement,
        "sqnr_db": parity.sqnr_db,
        "auroc_file": drop.file,
        "auroc_model": drop.model,
        "auroc_difference": drop.difference.value,
        "auroc_low": drop.difference.low,
        "auroc_high": drop.difference.high,
        "passed": parity.passed,
    }


def show(row: dict[str, Any]) -> None:
    """Print one row of the table."""
    how = "not finetuned" if row["rate"] is None else f"{row['epochs']} epochs at {row['rate']:g}"
    print(
        f"| {how} | {row['sqnr_db']:.1f} dB | {row['agreement']:.2%} | {row['auroc_difference']:+.4f} "
        f"({row['auroc_low']:+.4f}, {row['auroc_high']:+.4f}) | {'passed' if row['passed'] else 'failed'} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
