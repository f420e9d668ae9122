"""What `bench --trtexec` reads: times that NVIDIA's tool told, checked against what is about to be measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttl_deploy.records.benchmarks import ImportedTimes
    from ttl_deploy.runtime.artifact import Artifact
    from ttl_deploy.runtime.bench import BenchPlan


def import_times(
    paths: Sequence[Path], artifacts: "Sequence[Artifact]", plan: "BenchPlan"
) -> "tuple[ImportedTimes, ...]":
    """Read the files before minutes of measuring; raises where they could not stand beside what the plan measures."""
    if not paths:
        return ()
    from ttl_deploy.errors import UsageError
    from ttl_deploy.runtime.tensorrt.devices import find_gpu
    from ttl_deploy.runtime.tensorrt.trtexec import Expected, read_trtexec

    if len(artifacts) > 1:
        raise UsageError("--trtexec does not say of which artifact its times are: name one artifact")
    if plan.mode != "latency":
        raise UsageError("--trtexec goes with --mode latency: streams at once have no times of their own on the GPU")
    if not all(one.startswith("tensorrt") for one in plan.targets):
        raise UsageError(
            f"--trtexec goes with --target tensorrt, not {','.join(plan.targets)}: it tells times on a GPU"
        )
    size = artifacts[0].manifest.input
    batch = plan.batches[0] if len(plan.batches) == 1 else None
    expected = Expected(height=size.height, width=size.width, batch=batch)
    imported = tuple(read_trtexec(path, expected) for path in paths)
    gpu = find_gpu()
    for one in imported:
        if one.batch not in plan.batches:
            raise UsageError(f"{one.source} is of batches of {one.batch}: give --batch {one.batch}")
        if gpu is not None and one.device and one.device != gpu.name:
            raise UsageError(f"{one.source} was made on {one.device}, and here is {gpu.name}: run trtexec here")
    return imported
