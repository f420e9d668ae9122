"""What this machine can do, and what to do about what it cannot: never fails, whatever is broken.

Versions come from metadata. Everything that may crash, hang or take long is imported in a child process. At the top
stands only what Python and this package's light half have, so that a broken NumPy becomes a finding too.
"""

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ttl_deploy.errors import StorageError, TargetUnavailableError, TtlDeployError
from ttl_deploy.processes import Finished, run_isolated
from ttl_deploy.records.diagnosis import Ability, CacheState, Diagnosis, ExtraState, Problem, Processor, TargetState
from ttl_deploy.records.hardware import Gpu, JetsonState
from ttl_deploy.runtime.gpus import NO_DRIVER, find_gpus
from ttl_deploy.runtime.jetson import read_jetson, warn_of_state
from ttl_deploy.runtime.machine import PACKAGES, installed_versions
from ttl_deploy.runtime.processor import INSTRUCTIONS, examine_processor, explain_precision

T = TypeVar("T")
ROOT = Path("/")
REFERENCE = "onnxruntime-cpu"
BASE = {
    "numpy": "numpy",
    "PIL": "pillow",
    "onnxruntime": "onnxruntime",
    "rich": "rich",
    "jinja2": "jinja2",
    "filelock": "filelock",
    "msgspec": "msgspec",
    "packaging": "packaging",
}
"""What every installation needs, by module; the command line itself has already imported typer."""

_RISKY = {"train": ("torchvision", "onnx"), "trt": ("tensorrt",), "rtx": ("tensorrt_rtx",)}
"""Modules with native libraries that have been seen not to load although installed; torchvision brings torch."""

_PATIENCE_S = 120.0
_CHILDREN = 4
_ENOUGH_BYTES = 1_000_000_000
_TORCH_MISMATCH = "operator torchvision::nms does not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a child process has no answer; `foreseen` where it is ours to say, as that an extra is missing."""

    reason: str
    foreseen: bool


def diagnose(root: Path = ROOT) -> Diagnosis:
    """Examine this machine and its installation; `root` stands for `/`."""
    jetson, processor = read_jetson(root), examine_processor(root)
    broken = _find_broken()
    cache = CacheState(folder="", free_bytes=None, writable=False) if broken else examine_cache()
    extras, conflicts = ((), ()) if "packaging" in broken else _read_installation(jetson)
    with ThreadPoolExecutor(_CHILDREN) as pool:
        cards = pool.submit(_attempt, list_gpus)
        surveyed = [pool.submit(_survey, name, processor) for name in _target_names(broken)]
        tried = [pool.submit(try_extra, extra) for extra in extras if extra.installed]
    gpus, gpu_note = _cards_of(cards.result())
    targets = [future.result() for future in surveyed]
    return Diagnosis(
        host=platform.node() or "unknown",
        system=platform.platform(),
        python=platform.python_version(),
        processor=processor,
        gpus=gpus,
        gpu_note=gpu_note,
        jetson=jetson,
        packages={name: found for name, found in installed_versions(PACKAGES).items() if name != "python"},
        targets=tuple(state for state, _ in targets),
        extras=extras,
        cache=cache,
        problems=(
            *_judge_base(broken),
            *(problem for _, problem in targets if problem is not None),
            *(() if broken else _judge_cache(cache)),
            *_judge_extras(extras),
            *(problem for future in tried for problem in future.result()),
            *conflicts,
            *_judge_machine(processor, jetson, gpu_note),
        ),
    )


def import_modules(modules: Sequence[str]) -> None:
    """Import modules one after the other; done in a child process."""
    for module in modules:
        importlib.import_module(module)


def survey_target(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a target's runtime with version, and what it can run here; loads it, which is done in a child."""
    from ttl_deploy import plugins

    target: plugins.Target = plugins.load("targets", name)()
    return target.runtime, target.precisions()


def list_gpus() -> tuple[tuple[Gpu, ...], str]:
    """Ask the driver for its cards; done in a child process."""
    return find_gpus()


def examine_cache() -> CacheState:
    """Say where things are kept between runs, and what room there is; creates nothing."""
    from ttl_deploy.data.cache_root import cache_root

    try:
        folder = cache_root()
    except StorageError:
        return CacheState(folder="", free_bytes=None, writable=False)
    there = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        free = None
    return CacheState(
        folder=str(folder), free_bytes=free, writable=there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    )


def _attempt(function: Callable[..., T], *arguments: object) -> T | Failure:
    """Call a function in a child process."""
    try:
        outcome = run_isolated(function, *arguments, timeout_s=_PATIENCE_S)
    except TtlDeployError as error:
        return Failure(reason=str(error), foreseen=True)
    except OSError as error:  # no folder for temporary files, no more processes
        return Failure(reason=f"no child process can be started here ({error})", foreseen=False)
    if isinstance(outcome, Finished):
        return outcome.value
    last = outcome.log_tail.rpartition("\n")[2]
    return Failure(reason=f"its process {outcome.reason}{f' ({last})' if last else ''}", foreseen=False)


def _find_broken() -> dict[str, str]:
    """Return which packages of the base do not load, with the reason."""
    if not isinstance(_attempt(import_modules, tuple(BASE)), Failure):
        return {}
    tried = {package: _attempt(import_modules, (module,)) for module, package in BASE.items()}
    return {package: failure.reason for package, failure in tried.items() if isinstance(failure, Failure)}


def _read_installation(jetson: JetsonState | None) -> tuple[tuple[ExtraState, ...], tuple[Problem, ...]]:
    from ttl_deploy.runtime.extras import find_conflicts, read_extras

    return read_extras(jetson=jetson is not None), find_conflicts(jetson=jetson is not None)


def _target_names(broken: dict[str, str]) -> tuple[str, ...]:
    """Return the names of all targets; none where the base is broken, without which no table can be read."""
    if broken:
        return ()
    from ttl_deploy import plugins

    return plugins.names("targets")


def _survey(name: str, processor: Processor) -> tuple[TargetState, Problem | None]:
    """Return what a target can do here, and a problem where it should and does not."""
    found = _attempt(survey_target, name)
    if not isinstance(found, Failure):
        runtime, precisions = found
        on_cpu = name.endswith("-cpu")
        abilities = (
            explain_precision(one, processor) if on_cpu else Ability(precision=one, by="") for one in precisions
        )
        return TargetState(name=name, runtime=runtime, abilities=tuple(abilities)), None
    state = TargetState(name=name, problem=found.reason)
    if found.foreseen and name != REFERENCE:
        return state, None
    code = TargetUnavailableError.exit_code if name == REFERENCE else 0
    remedy = "install its runtime again: pip install --force-reinstall, with the package's name"
    return state, Problem(what=f"target {name} does not start: {found.reason}", remedy=remedy, exit_code=code)


def try_extra(extra: ExtraState) -> tuple[Problem, ...]:
    """Import what of an installed extra may fail to load."""
    tried = {module: _attempt(import_modules, (module,)) for module in _RISKY.get(extra.name, ())}
    return tuple(
        _explain_import(extra, module, failure.reason)
        for module, failure in tried.items()
        if isinstance(failure, Failure)
    )


def _explain_import(extra: ExtraState, module: str, reason: str) -> Problem:
    if _TORCH_MISMATCH not in reason:
        return Problem(
            what=f"the extra [{extra.name}] is installed, but {module} cannot be imported: {reason}",
            remedy=f"pip install --force-reinstall 'ttl-deploy[{extra.name}]'",
        )
    torch, torchvision = (extra.versions[name].partition("+")[0] for name in ("torch", "torchvision"))
    return Problem(
        what=f"torchvision {torchvision} was built for CUDA and torch {torch} was not ({_TORCH_MISMATCH}): our models "
        "load all the same, torchvision's own detection and image reading do not",
        remedy="a matched pair: pip install --index-url https://download.pytorch.org/whl/cpu "
        f"torch=={torch} torchvision=={torchvision}",
    )


def _cards_of(found: tuple[tuple[Gpu, ...], str] | Failure) -> tuple[tuple[Gpu, ...], str]:
    return ((), f"the driver cannot be asked: {found.reason}") if isinstance(found, Failure) else found


def _judge_base(broken: dict[str, str]) -> Iterator[Problem]:
    for package, reason in broken.items():
        yield Problem(
            what=f"{package}, which everything needs, does not load: {reason}",
            remedy=f"pip install --force-reinstall {package}",
            exit_code=TargetUnavailableError.exit_code,
        )


def _judge_extras(extras: tuple[ExtraState, ...]) -> Iterator[Problem]:
    """Name packages that are there and too old, or too new; a missing extra is no problem."""
    for extra in extras:
        unfit = [lack for lack in extra.lacking if extra.versions.get(lack.partition(" ")[0])]
        if unfit:
            yield Problem(what=f"for the extra [{extra.name}] {', '.join(unfit)} is installed", remedy=extra.command)


def _judge_cache(cache: CacheState) -> Iterator[Problem]:
    from ttl_deploy.data.cache_root import VARIABLE

    remedy = f"set {VARIABLE} to a folder on a disk that is writable and has room"
    if not cache.writable:
        what = f"nothing can be kept in {cache.folder}" if cache.folder else "there is no home folder to cache in"
        yield Problem(what=what, remedy=remedy, exit_code=StorageError.exit_code)
    elif cache.free_bytes is not None and cache.free_bytes < _ENOUGH_BYTES:
        yield Problem(what=f"{cache.free_bytes / 1e6:.0f} MB are free for {cache.folder}", remedy=remedy)


def _judge_machine(processor: Processor, jetson: JetsonState | None, gpu_note: str) -> Iterator[Problem]:
    known = processor.instructions or processor.lacking
    if not known and processor.architecture in INSTRUCTIONS and sys.platform == "linux":
        yield Problem(
            what="the processor's instructions cannot be read, so which precisions are fast is not known",
            remedy="make /proc/cpuinfo readable",
        )
    if jetson is not None:
        yield from (Problem(what=warning, remedy="") for warning in warn_of_state(jetson))
    elif gpu_note not in ("", NO_DRIVER):
        yield Problem(
            what=gpu_note,
            remedy="install or restart NVIDIA's driver; a container must be started with --gpus all",
        )
