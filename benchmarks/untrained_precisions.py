"""What each precision costs in time and on disk, for a truncated network with random weights: speed only.

    python benchmarks/untrained_precisions.py [--backbone densenet121] [--cut features.transition2]

CPU time of one image at 224 px, one thread, fresh processes, interleaved as in `precisions.py`. Ranges come from random
images, which changes no time; what 8 bits do to answers is for a trained network to show.
"""

import argparse
import random
import statistics
import tempfile
from pathlib import Path

import numpy as np
import precisions
import torch
from results import store

from ttl_deploy.errors import InconclusiveError
from ttl_deploy.export import openvino_ir, quantisation
from ttl_deploy.export.onnx_writer import export_for_timing
from ttl_deploy.models import truncation
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.models import ModelSpec

SIZE, RUNS, ROUNDS = 224, 20, 3
RECIPES = {"shared": quantisation.SHARED, "ort": quantisation.CPU, "ort-full": quantisation.CPU_FULL}
CANDIDATES = (
    ("onnx fp32", "single.onnx", "onnxruntime-cpu", "fp32"),
    ("openvino fp32", "single.xml", "openvino-cpu", "fp32"),
    ("openvino bf16", "single.xml", "openvino-cpu", "bf16"),
    ("onnx int8", "shared.onnx", "openvino-cpu", None),
    ("openvino int8", "shared.xml", "openvino-cpu", None),
    ("onnx int8", "shared.onnx", "onnxruntime-cpu", None),
    ("ort int8, Conv/Gemm/MatMul", "ort.onnx", "onnxruntime-cpu", None),
    ("ort int8, all layers", "ort-full.onnx", "onnxruntime-cpu", None),
)


def make_files(folder: Path, spec: ModelSpec) -> None:
    """Write all files of the candidates."""
    torch.manual_seed(0)
    export_for_timing(truncation.build(spec).eval(), spec.image_size, folder / "single.onnx")
    quantisation.prepare(folder / "single.onnx", folder / "prepared.onnx")
    images = np.random.default_rng(0).integers(0, 256, (8, spec.image_size, spec.image_size, 3), dtype=np.uint8)
    for name, recipe in RECIPES.items():
        quantisation.quantise(
            folder / "prepared.onnx",
            folder / f"{name}.onnx",
            recipe=recipe,
            ranges=folder / f"{name}.json",
            images=images,
        )
    for name in ("single", "shared"):
        openvino_ir.convert(folder / f"{name}.onnx", folder / f"{name}.xml")


def megabytes(path: Path) -> float:
    """Return the size of a model, of OpenVINO's with its weights."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    """Make the files, time them in turn, print and store a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="densenet121")
    parser.add_argument("--cut", default="features.transition2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, ModelSpec(backbone=given.backbone, cut=given.cut, classes=2, image_size=SIZE))
        samples: dict[int, list[tuple[float, str, str]]] = {}
        for _ in range(ROUNDS):
            for i in random.sample(range(len(CANDIDATES)), len(CANDIDATES)):
                _, file, target, precision = CANDIDATES[i]
                done = run_isolated(
                    precisions.time_file, target, folder / file, precision, RUNS, timeout_s=precisions.TIMEOUT_S
                )
                samples.setdefault(i, []).append(value_of(done, error=InconclusiveError, doing=f"cannot time {file}"))
        rows = [
            {
                "file": what,
                "target": target,
                "ran": samples[i][0][1],
                "megabytes": round(megabytes(folder / file), 2),
                "cpu_ms": round(statistics.median(value for value, *_ in samples[i]) * 1e3, 1),
            }
            for i, (what, file, target, _) in enumerate(CANDIDATES)
        ]
    for row in rows:
        print(*(f"{key} {value}" for key, value in row.items()), sep=", ")
    command = f"python benchmarks/untrained_precisions.py --backbone {given.backbone} --cut {given.cut}"
    store(f"untrained-precisions-{given.backbone}-{given.cut}", command, rows)


if __name__ == "__main__":
    main()
