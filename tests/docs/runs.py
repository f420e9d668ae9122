"""The runs and exports that the documents name, all of them copies of one small search."""

import os
import re
import shlex
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from tests.docs.tables import as_typed_here
from tests.docs.typed_commands import Typed, split_as_a_shell

SEARCH = shlex.split(
    "search --backbone resnet18 --data cxr --cuts layer3.1 --policy exhaustive --epochs 2 --lr 2e-3 -o base"
)
"""What makes the run that all others are copies of, in a world."""
NAMES = (
    *("runs/my", "runs/cxr", "runs/NAME", "runs/densenet121-cxr-1a2b3c", "kermany", "kermany-search", "mobilenet"),
    *("run", "RUN"),
)
ARTIFACTS = ("ARTIFACT", "FOLDER")
SMALL = {
    "TTL_DEPLOY_WEIGHTS": "none",
    "TTL_DEPLOY_IMAGE_SIZE": "32",
    "TTL_DEPLOY_VAL_FRACTION": "0.3",
    "TTL_DEPLOY_TEST_FRACTION": "0.3",
    "TTL_DEPLOY_EPOCHS": "2",
    "TTL_DEPLOY_BATCH_SIZE": "16",
    "TTL_DEPLOY_LIMIT_TRAIN": "32",
    "TTL_DEPLOY_PROFILE_SECONDS": "0.01",
    "TTL_DEPLOY_BENCH_SECONDS": "0.02",
    "TTL_DEPLOY_BENCH_ROUNDS": "2",
    "TTL_DEPLOY_ANALYZE_IMAGES": "12",
    "TTL_DEPLOY_PROGRESS": "no",
    "OMP_NUM_THREADS": "1",
}
"""What makes every command small without another word in it: what is typed beats these."""
FEW_RUNS = {"TTL_DEPLOY_BENCH_RUNS": "2"}
"""For benchmarks on this machine: the script on another one has no such option."""
LEFT_OUT = {
    "TTL_DEPLOY_SEARCH_BACKBONE": "resnet18",
    "TTL_DEPLOY_SEARCH_DATA": "cxr",
    "TTL_DEPLOY_PROBE_BACKBONE": "resnet18",
    "TTL_DEPLOY_PROBE_DATA": "cxr",
    "TTL_DEPLOY_CUTS_BACKBONE": "resnet18",
}
"""What a sentence leaves out of a command that it names; a command in a block has to be whole."""


def variables_for(typed: Typed) -> dict[str, str]:
    """Return the variables that a command is typed under."""
    few = {} if "--ssh" in typed.words else FEW_RUNS
    return SMALL | few | ({} if typed.fenced else LEFT_OUT)


def put_runs(base: Path, here: Path, typed: Iterable[Typed], leave_out: Collection[str] = ()) -> None:
    """Put copies of the base run where the commands of a page want runs and artifacts, but for the names left out."""
    words = [word for one in typed for word in split_as_a_shell(as_typed_here(one), cwd=here)]
    wanted = [name for name in NAMES if any(word == name or word.startswith(f"{name}/") for word in words)]
    for name in sorted(set(wanted) - set(leave_out)) or ["runs/densenet121-cxr-1a2b3c"]:
        copy_run(base, here / name)
    for name in ARTIFACTS:
        if name in words:
            (export,) = (base / "exports").iterdir()
            shutil.copytree(export, here / name)
    for word in words:
        for trial in re.findall(r"\S*/trials/[^/]+", word):
            if trial.partition("/trials/")[0] not in leave_out:
                complete(here / trial)


def copy_run(base: Path, target: Path) -> None:
    """Copy a run; weights, which are written once, are linked."""
    shutil.copytree(base, target, copy_function=_link_or_copy)


def complete(trial: Path) -> None:
    """See that a trial that a page names has test predictions: those of the full network, where it has none."""
    if not (trial / "predictions_test.npz").exists():
        trial.mkdir(parents=True, exist_ok=True)
        shutil.copy2(trial.parent / "full__full__s0" / "predictions_test.npz", trial)


def _link_or_copy(source: str, target: str) -> str:
    if source.endswith(".safetensors"):
        os.link(source, target)
        return target
    return shutil.copy2(source, target)
