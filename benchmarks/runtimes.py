"""What each CPU runtime and precision costs: one network, one image, one thread, against eager PyTorch.

Run:  OMP_NUM_THREADS=1 python benchmarks/runtimes.py [backbone] [image size]
Prints the median CPU milliseconds of a call, the quartiles, the gain over eager PyTorch, and what the layers
really ran in as the runtime itself says. All configurations are in memory and take turns, in a new order each
round; CPU time of the whole process is what is counted, which other programs hardly move. Weights and images
are random: speed does not depend on them.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from results import store

from ttl_deploy import plugins
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx
from ttl_deploy.export.quantisation import CPU, CPU_FULL, SHARED, prepare, quantise
from ttl_deploy.models import truncation
from ttl_deploy.records.models import FULL, IMAGENET_INPUT, ModelSpec

ROUNDS, CALLS = 40, 3
RECIPES = {"S8S8": SHARED, "U8S8": CPU, "U8S8 full": CPU_FULL}
CONFIGURATIONS = (
    ("onnxruntime-cpu", "fp32", None),
    ("onnxruntime-cpu", "S8S8", None),
    ("onnxruntime-cpu", "U8S8", None),
    ("onnxruntime-cpu", "U8S8 full", None),
    ("openvino-cpu", "fp32", None),
    ("openvino-cpu", "fp32", "bf16"),
    ("openvino-cpu", "S8S8", None),
)
"""Target, file, and the precision that is asked for where it is not the file's own."""

Call = Callable[[], object]


def main(backbone: str = "densenet121", image_size: str = "224") -> None:
    """Time all configurations and store the table."""
    torch.set_num_threads(1)
    side = int(image_size)
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    model = truncation.build(ModelSpec(backbone=backbone, cut=FULL, classes=2, image_size=side))
    eager = make_deployable(model, mean=IMAGENET_INPUT.mean, std=IMAGENET_INPUT.std)
    rows: list[dict[str, object]] = [{"runtime": f"torch {torch.__version__}", "file": "eager", "layers": {}}]
    calls: list[Call] = [lambda: eager(torch.from_numpy(image))]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        files = write_files(eager, Path(folder), side)
        for target, file, precision in CONFIGURATIONS:
            if precision in (None, *plugins.load("targets", target)().precisions()):
                row, call = opened(target, files[file], precision, image)
                rows.append({"file": file, **row})
                calls.append(call)
        samples = time_in_turn(calls)
    for row, ms in zip(rows, samples, strict=True):
        quartiles = np.percentile(ms, (25, 50, 75))
        row |= {"backbone": backbone, "image_size": side, "batch": 1, "threads": 1, "samples": len(ms)}
        row |= dict(zip(("low_ms", "median_ms", "high_ms"), quartiles.round(2).tolist(), strict=True))
        row["gain"] = round(float(np.median(samples[0]) / quartiles[1]), 2)
        print(*(f"{key} {value}" for key, value in row.items()), sep=", ", flush=True)
    name = "runtimes" if (backbone, side) == ("densenet121", 224) else f"runtimes-{backbone}-{side}"
    store(name, f"OMP_NUM_THREADS=1 python benchmarks/runtimes.py {backbone} {side}", rows)


def write_files(eager: torch.nn.Module, folder: Path, side: int) -> dict[str, Path]:
    """Write the network in fp32, and in int8 by each recipe."""
    files = {"fp32": folder / "fp32.onnx"} | {name: folder / f"{name}.onnx" for name in RECIPES}
    write_onnx(eager, files["fp32"], image_size=side, metadata={})
    prepared = folder / "prepared.onnx"
    prepare(files["fp32"], prepared)
    images = np.random.default_rng(1).integers(0, 256, (8, side, side, 3), dtype=np.uint8)
    for name, recipe in RECIPES.items():
        quantise(prepared, files[name], recipe=recipe, ranges=folder / f"{name}.ranges", images=images)
    return files


def opened(target: str, file: Path, precision: str | None, image: np.ndarray) -> tuple[dict[str, object], Call]:
    """Open a file, and return what ran and a call to time."""
    session = plugins.load("targets", target)().open(file, threads=1, precision=precision)
    said = {"runtime": session.runtime, "precision": session.precision, "layers": dict(session.layers)}
    return said, lambda: session.run(image)


def time_in_turn(calls: list[Call]) -> list[list[float]]:
    """Return CPU milliseconds of each call, warm; every round takes them in another order."""
    samples: list[list[float]] = [[] for _ in calls]
    order, rng = list(range(len(calls))), random.Random(0)
    for number in range(ROUNDS + 2):
        rng.shuffle(order)
        for index in order:
            for _ in range(CALLS):
                started = time.process_time_ns()
                calls[index]()
                if number >= 2:  # rounds 0 and 1 warm up
                    samples[index].append((time.process_time_ns() - started) / 1e6)
    return samples


if __name__ == "__main__":
    main(*sys.argv[1:])
