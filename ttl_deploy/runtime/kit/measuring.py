"""What a kit's script starts where ttl-deploy itself can run: build the engine, ask the golden images, measure."""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ttl_deploy
from ttl_deploy.errors import ArtifactError, GateError, TargetUnavailableError, TtlDeployError
from ttl_deploy.files import sha256_bytes
from ttl_deploy.records import codec
from ttl_deploy.records.engines import EngineManifest, EngineRequest
from ttl_deploy.records.target_results import TargetEngine, TargetResults
from ttl_deploy.runtime.artifact import Artifact, open_artifact, precision_to_ask
from ttl_deploy.runtime.bench import BenchPlan, bench, inconclusive_rows
from ttl_deploy.runtime.inference import open_safely, run_batches
from ttl_deploy.runtime.kit.writing import DESCRIPTION, KIT
from ttl_deploy.runtime.tensorrt.engines import build_beside, for_this_machine
from ttl_deploy.runtime.verify import compare_golden


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the artifact in a folder, and write `results.json`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ttl_deploy.runtime.kit.measuring")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", default="1")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    say(f"ttl-deploy {ttl_deploy.__version__} from {Path(ttl_deploy.__file__).parent}")
    try:
        kit = json.loads((given.folder / KIT / DESCRIPTION).read_text(encoding="utf-8"))
        plan = BenchPlan(
            targets=(_target_to_ask(kit),),
            batches=tuple(int(size) for size in given.batch.split(",")),
            seconds=given.seconds,
            rounds=given.rounds,
            threads=given.threads,
            limit_s=max(60.0, given.seconds),
        )
        codec.save(given.out, measure_artifact(open_artifact(given.folder), kit, plan))
    except TtlDeployError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


def measure_artifact(artifact: Artifact, kit: dict[str, Any], plan: BenchPlan) -> TargetResults:
    """Build where the kit says so, compare with the golden answers, measure; raises what each of these does."""
    engine = _build(artifact, kit["request"]) if kit["request"] else None
    images, _ = artifact.golden()
    target: str = kit["target"]
    say(f"comparing {target} with the golden answers")
    model = artifact.model_path
    session = open_safely(target, model, threads=plan.threads, precision=precision_to_ask(artifact.manifest))
    answers = run_batches(session, images, max_batch=artifact.manifest.input.max_batch)
    parity = compare_golden(artifact, answers, target=target)
    if not parity.passed:
        raise GateError(f"{target} does not compute the model: against {parity.reference}, {parity.failures[0]}")
    say(f"measuring {', '.join(plan.targets)}")
    report = bench([artifact], plan)
    if report.failures:
        raise TargetUnavailableError(f"{target} could not be measured: {report.failures[0].reason}")
    if disturbed := inconclusive_rows(report):
        say(f"{len(disturbed)} of {len(report.rows)} rows are inconclusive: close other programs, then do it again")
    return TargetResults(
        artifact=artifact.manifest.name,
        artifact_sha256=artifact.model_sha256,
        golden_sha256=sha256_bytes(np.ascontiguousarray(images).tobytes()),
        way="ttl-deploy",
        target=target,
        runtime=session.runtime,
        precision=session.precision,
        probabilities=_as_rows(answers),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        engine=engine,
        bench=report,
    )


def say(sentence: str) -> None:
    """Print a line for people on stderr."""
    print(sentence, file=sys.stderr, flush=True)


def _target_to_ask(kit: dict[str, Any]) -> str:
    """Return the target as benchmarks name it: with the precision where the file alone does not say it."""
    return f"{kit['target']}:bf16" if kit["precision"] == "bf16" else str(kit["target"])


def _build(artifact: Artifact, request: Any) -> TargetEngine:
    wanted = codec.from_builtins(EngineRequest, request, source=f"{artifact.folder / KIT / DESCRIPTION}")
    manifest = build_beside(artifact, for_this_machine(wanted), say=say)
    if manifest.model.sha256 != artifact.model_sha256:
        raise ArtifactError(f"{artifact.model_path} changed while its engine was built: do it again")
    return _describe(manifest)


def _describe(manifest: EngineManifest) -> TargetEngine:
    gpu = manifest.gpu
    words = "" if gpu is None else f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver}"
    return TargetEngine(
        size_bytes=manifest.engine.size_bytes,
        sha256=manifest.engine.sha256,
        tensorrt=manifest.tensorrt,
        build_s=manifest.build_s,
        gpu=words,
        command=f"ttl-deploy build . --flavour {manifest.flavour}",
    )


def _as_rows(answers: NDArray[np.float32]) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(float(value) if np.isfinite(value) else None for value in row) for row in answers)


if __name__ == "__main__":
    sys.exit(main())
