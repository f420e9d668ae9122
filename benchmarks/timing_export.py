"""Whether the file that a search times runs as fast as the file that is shipped, and what it saves.

A search times every candidate cut; torch's newer exporter, which writes the shipped file, would take most
of that time. Run:  python benchmarks/timing_export.py
Prints export seconds of both, and the ratio of their latencies in ONNX Runtime (median of interleaved
fresh processes, one image, one thread) beside the noise between processes.
"""

import tempfile
import time
from pathlib import Path

from results import store

from ttl_deploy.export.onnx_writer import export_for_timing, make_deployable, write_onnx
from ttl_deploy.models import truncation
from ttl_deploy.records.models import FULL, IMAGENET_INPUT, ModelSpec
from ttl_deploy.runtime.bench import BenchPlan, ModelTime, ModelToTime, profile_models

CASES = (
    *(("mobilenet_v2", 64), ("mobilenet_v2", 224), ("densenet121", 64), ("densenet121", 224), ("resnet50", 128)),
    *(("swin_t", 224), ("timm:vit_tiny_patch16_224", 224)),
)
NAMES = ("shipped", "timed")


def compare(backbone: str, image_size: int, folder: Path) -> dict[str, object]:
    """Export one network both ways, and time both files in turn."""
    model = truncation.build(ModelSpec(backbone=backbone, cut=FULL, classes=2, image_size=image_size))
    started = time.perf_counter()
    write_onnx(
        make_deployable(model, mean=IMAGENET_INPUT.mean, std=IMAGENET_INPUT.std),
        folder / "shipped.onnx",
        image_size=image_size,
        metadata={},
    )
    shipped_s = time.perf_counter() - started
    export_for_timing(model, image_size, folder / "timed.onnx")
    timed_s = time.perf_counter() - started - shipped_s
    files = [ModelToTime(name=n, path=folder / f"{n}.onnx", height=image_size, width=image_size) for n in NAMES]
    shipped, timed = profile_models(files, BenchPlan(seconds=6.0, rounds=4))
    if not isinstance(shipped, ModelTime) or not isinstance(timed, ModelTime):
        return {"model": backbone, "image_size": image_size, "failure": f"{shipped} {timed}"}
    return {
        "model": backbone,
        "image_size": image_size,
        "shipped_export_s": round(shipped_s, 2),
        "timed_export_s": round(timed_s, 2),
        "latency_ratio": round(timed.median_s / shipped.median_s, 3),
        "noise": round(max(shipped.noise_s, timed.noise_s) / shipped.median_s, 3),
    }


def main() -> None:
    """Compare all cases."""
    rows = []
    for backbone, image_size in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare(backbone, image_size, Path(folder)))
        print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
    store("timing_export", "python benchmarks/timing_export.py", rows)


if __name__ == "__main__":
    main()
