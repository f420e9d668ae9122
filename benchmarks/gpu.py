"""What a GPU does: a search end to end, agreement with the CPU, throughput, and several trainings sharing it.

Run:  python benchmarks/gpu.py [--data DIR --weights FILE --label-col label --image-size 224]
      without --data it searches on the built-in phantoms only; with it, on those images too, from those
      weights (of --backbone, by default mobilenet_v2).
      --engines-only leaves all but the last kind of rows out
Stores results/gpu-<name>.json: rows of six kinds.
  search      wall seconds of search, export and verification, and the chosen cut
  predictions the same weights and images on CPU and GPU: largest difference in probability, flipped decisions
  losses      the first losses of one seeded training on both: largest relative difference; whether it repeats
  throughput  images per second of the product's loop, of a bare loop on the same batches under the same
              settings, and of the bare loop free to choose unrepeatable kernels; memory beside its estimate
  sharing     the same trainings one after the other and side by side: images per second, and whether they
              end in the same weights
  engines     per cut, precision (fp32, fp16, int8) and batch, through TensorRT, TensorRT for RTX and ONNX Runtime's
              CUDA provider, whichever is there: time on the GPU, with transfers, of the call, images per second; what
              is not there, or fails, is a row that says why; printed as a table
Exit code 6 without CUDA. `--device cpu --quick` runs a tiny version of everything, to try the script itself.
"""

import argparse
import gc
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from agreement import compare_losses, compare_predictions, deepest_cut, read_split, results_of, trained
from engines import Extent, draw_table, measure_engines
from results import store
from sharing import share
from training_loop import BATCH, Spent, bare_epochs, draw, interleave, make_trial, product_epochs

from ttl_deploy.data.cache import open_cache
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.models.cost.training_memory import estimate_training_bytes
from ttl_deploy.records.artifacts import VerifyReport
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import Augmentation, SearchSettings, TrainSettings, Trial
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.machine import usable_cores
from ttl_deploy.runtime.timing import TimingPlan
from ttl_deploy.runtime.verify import LabelledImages, verify
from ttl_deploy.search import shipping
from ttl_deploy.search.executors import Where
from ttl_deploy.search.study import run_study
from ttl_deploy.training import devices

Row = dict[str, object]
UNPRINTED = ("kind", "spread", "losses_cpu", "losses")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done. `loops` are backbones and image sides; `sharing` how many trainings run at once."""

    phantoms: str
    side: int
    epochs: int
    backbone: str
    loops: tuple[tuple[str, int], ...]
    images: int
    rounds: int
    compared: int
    steps: int
    sharing: tuple[int, ...]
    trainings: int
    engines: tuple[Extent, ...]


WHOLE = Size(
    phantoms="phantom:texture?patients=600&size=128&seed=3",
    side=128,
    epochs=4,
    backbone="mobilenet_v2",
    loops=tuple((name, side) for name in ("mobilenet_v2", "resnet50", "densenet121") for side in (128, 224)),
    images=512,
    rounds=2,
    compared=256,
    steps=10,
    sharing=(1, 2, 4),
    trainings=4,
    engines=tuple(
        Extent(
            backbone=name,
            side=224,
            batches=(1, 16),
            timing=TimingPlan(seconds=0.5, calls=100, limit_s=10, warmup_limit_s=3),
            processes=3,
        )
        for name in ("mobilenet_v2", "resnet50", "densenet121")
    ),
)
QUICK = Size(
    phantoms="phantom:texture?patients=30&size=32&seed=1",
    side=32,
    epochs=1,
    backbone="shufflenet_v2_x0_5",
    loops=(("shufflenet_v2_x0_5", 32),),
    images=64,
    rounds=1,
    compared=16,
    steps=2,
    sharing=(1, 2),
    trainings=2,
    engines=(
        Extent(
            backbone="shufflenet_v2_x0_5",
            side=32,
            batches=(2,),
            timing=TimingPlan(seconds=0.01, calls=3, warmup_seconds=0.01),
            processes=1,
            most_cuts=1,
        ),
    ),
)


class Silent:
    """Hears how a study goes on, and prints only its notes."""

    def step(self, stage: str, done: int, total: int) -> None: ...

    def plan(self, tasks: Sequence[Any]) -> None: ...

    def progress(self, task: Any, progress: Any) -> None: ...

    def ended(self, task: Any, outcome: Any) -> None: ...

    def note(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def search(settings: SearchSettings, run: RunFolder, device: torch.device) -> Row:
    """Search, export and verify through the library; returns what each took and what came of it."""
    started = time.perf_counter()
    found = run_study(
        settings, run, command="python benchmarks/gpu.py", where=Where(device=str(device)), reporter=Silent()
    )
    searched = time.perf_counter()
    shipped = shipping.ship(run)
    report = verify_test(run, shipped.folder)
    if found.choice is None:
        raise RuntimeError(f"{run.path} ended without a choice")
    return {
        "kind": "search",
        "data": "given" if Path(settings.data).exists() else settings.data,
        "backbone": settings.backbone,
        "image_size": settings.decode.image_size,
        "trials": len(trained(run)),
        "search_s": round(searched - started, 1),
        "training_s": round(sum(result.seconds for result in results_of(run)), 1),
        "precision": ", ".join(sorted({result.precision for result in results_of(run)})),
        "export_and_verify_s": round(time.perf_counter() - searched, 1),
        "chosen": found.choice.cut,
        "verified": report.passed,
        "flipped": report.parity.decisions_flipped if report.parity else None,
    }


def verify_test(run: RunFolder, artifact: Path) -> VerifyReport:
    """Verify an exported file with the run's own test split."""
    data = load_manifest(run.data)
    positions = data.of_split("test")
    samples = [data.samples[position] for position in positions]
    images = LabelledImages(
        images=open_cache(data, run.settings().decode).pixels(positions),
        labels=[sample.label for sample in samples],
        patients=[sample.patient_id for sample in samples],
        sha256s=[sample.sha256 for sample in samples],
        classes=data.classes,
        split="test",
    )
    return verify(open_artifact(artifact), images)


def agree(run: RunFolder, size: Size, device: torch.device) -> Iterator[Row]:
    """Yield how a run's trained models, and one training of its data, differ between CPU and device."""
    trials = trained(run)
    test = read_split(run, "test", most=size.compared)
    for trial in (trials[0], trials[-1]):
        yield {"kind": "predictions"} | compare_predictions(run, trial, test, device)
    trial = deepest_cut(trials)
    train = read_split(run, "train", most=size.steps * trial.train.batch_size)
    yield {"kind": "losses"} | compare_losses(trial, train, device)


def measure_loops(backbone: str, side: int, size: Size, device: torch.device) -> Row:
    """Measure the product's loop beside bare ones, and the memory of its first epoch."""
    trial = make_trial(backbone, Augmentation(), cut=FULL, side=side, precision="auto")
    data = draw(size.images, side)
    product = product_epochs(trial, data, device)
    memory = measure_memory(product, trial, device)
    loops = {
        "product": product,
        "bare": bare_epochs(trial, data, device),
        "free": unrepeatable(bare_epochs(trial, data, device)),
    }
    spent = interleave(loops, size.rounds)
    seconds = {name: median(wall for _, wall in spent[name]) for name in loops}
    row: Row = {
        "kind": "throughput",
        "backbone": backbone,
        "image_size": side,
        "batch": BATCH,
        "images_per_s": {name: round(size.images / wall, 1) for name, wall in seconds.items()},
        "ratio_to_bare": round(seconds["bare"] / seconds["product"], 3),
        "ratio_to_free": round(seconds["free"] / seconds["product"], 3),
        "spread": {name: [round(size.images / wall, 1) for _, wall in spent[name]] for name in loops},
    }
    return row | memory


def unrepeatable(epochs: Iterator[Spent]) -> Iterator[Spent]:
    """Let a loop's epochs choose the fastest kernels, repeatable or not."""
    while True:
        with fastest():
            spent = next(epochs)
        yield spent


@contextmanager
def fastest() -> Iterator[None]:
    """Let cuDNN try what is fastest, and every operator run as it likes."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=True)
        torch.backends.cudnn.benchmark = before[1]


def measure_memory(epochs: Iterator[Spent], trial: Trial, device: torch.device) -> Row:
    """Run one epoch; returns its peak on a GPU beside the estimate, and what lies outside of torch's allocator."""
    clear(device)
    next(epochs)
    if device.type != "cuda":
        return {}
    model = trial.model
    precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    free, total = torch.cuda.mem_get_info(device)
    return {
        "peak_bytes": torch.cuda.max_memory_allocated(device),
        "reserved_bytes": torch.cuda.max_memory_reserved(device),
        "estimated_bytes": estimate_training_bytes(model, batch_size=BATCH, precision=precision),
        "outside_allocator_bytes": total - free - torch.cuda.memory_reserved(device),
    }


def clear(device: torch.device) -> None:
    """Give back what earlier measurements left on a GPU."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def measure_all(given: argparse.Namespace, size: Size, device: torch.device, folder: Path) -> Iterator[Row]:
    """Yield all rows, the searches first."""
    phantoms = RunFolder(folder / "phantoms")
    yield search(describe_search(size.phantoms, "none", size, backbone=size.backbone), phantoms, device)
    runs = [phantoms]
    if given.data:
        settings = describe_search(given.data, given.weights or "imagenet", size, backbone=given.backbone)
        decode = replace(settings.decode, image_size=given.image_size)
        runs.append(RunFolder(folder / "given"))
        yield search(replace(settings, decode=decode, reading=Reading(label_col=given.label_col)), runs[-1], device)
    with devices.repeatable(usable_cores()):
        for run in runs:
            yield from agree(run, size, device)
    with devices.repeatable(1):
        for backbone, side in size.loops:
            yield measure_loops(backbone, side, size, device)
            clear(device)
    for run in runs:
        for row in share(run, device, trainings=size.trainings, at_once=size.sharing):
            yield {"kind": "sharing"} | row


def measure_wanted(given: argparse.Namespace, size: Size, device: torch.device, folder: Path) -> Iterator[Row]:
    """Yield the rows that are asked for."""
    if not given.engines_only:
        yield from measure_all(given, size, device, folder)
    for extent in size.engines:
        yield from measure_engines(extent)


def describe_search(data: str, weights: str, size: Size, *, backbone: str) -> SearchSettings:
    """Describe a search over the stages of a backbone."""
    return SearchSettings(
        backbone=backbone,
        data=data,
        weights=weights,
        decode=DecodeSettings(image_size=size.side),
        train=TrainSettings(epochs=size.epochs),
        profile_seconds=0.2,
    )


def describe_device(device: torch.device) -> dict[str, str | int]:
    """Name the GPU, its driver and libraries; nothing for a CPU, which is described anyway."""
    if device.type != "cuda":
        return {}
    found = torch.cuda.get_device_properties(device)
    return {
        "gpu": found.name,
        "gpu_memory_bytes": found.total_memory,
        "gpu_multiprocessors": found.multi_processor_count,
        "compute_capability": f"{found.major}.{found.minor}",
        "driver": ask_driver(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def ask_driver() -> str:
    """Return the driver's version, as nvidia-smi tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if not shutil.which(command[0]):
        return "unknown"
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0] or "unknown"


def name_file(device: torch.device, *, quick: bool) -> str:
    """Name the file of the results after the GPU, or say that it was a CPU."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}{'-quick' if quick else ''}"


def draw_row(row: Row) -> str:
    """Return a row for reading, one line per figure."""
    lines = [f"  {key:<28} {value}" for key, value in row.items() if key not in UNPRINTED]
    return "\n".join([str(row["kind"]), *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything, print it as it comes, and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="class folders, or a folder with labels.csv")
    parser.add_argument("--label-col", default="label")
    parser.add_argument("--weights", help="a .pth or .safetensors file for --data")
    parser.add_argument("--backbone", default="mobilenet_v2", help="for --data")
    parser.add_argument("--image-size", type=int, default=224, help="for --data")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engines-only", action="store_true", help="latency and throughput of exported cuts alone")
    parser.add_argument("--quick", action="store_true", help="a tiny version of everything")
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        line = "this benchmark needs a CUDA device, and torch finds none here (--device cpu --quick tries the script)"
        print(line, file=sys.stderr)
        return TargetUnavailableError.exit_code
    device = devices.pick_device(given.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in measure_wanted(given, QUICK if given.quick else WHOLE, device, Path(folder)):
            rows.append(row)
            print(draw_row(row), flush=True)
    print(draw_table([row for row in rows if row["kind"] == "engines"]))
    words = [
        *(["--data DIR --weights FILE"] if given.data else []),
        *(["--engines-only"] if given.engines_only else []),
    ]
    command = " ".join(["python benchmarks/gpu.py", *words])
    name = name_file(device, quick=given.quick) + ("-engines" if given.engines_only else "")
    store(name, command, rows, device=describe_device(device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
