"""What does the work here: ttl-deploy itself where a Python has all it needs, else NVIDIA's trtexec."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .commands import last_lines, run_logged
from .refusals import ABSENT, RefusedError, say

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
REMEDIES = {
    "tensorrt": "on a Jetson it comes with JetPack (apt-get install nvidia-jetpack), elsewhere with NVIDIA's container "
    "or `pip install tensorrt`",
    "tensorrt_rtx": "pip install tensorrt-rtx",
}
_LEAST_PYTHON = (3, 11)
_PROBE = (
    "import importlib.util as i, json, sys; f = lambda names: any(i.find_spec(n) for n in names.split('|')); "
    "print(json.dumps([list(sys.version_info[:2]), [n for n in sys.argv[1:] if not f(n)]]))"
)


class Way(NamedTuple):
    """How the work is done here: a Python that can run ttl-deploy, or trtexec."""

    python: str = ""
    trtexec: str = ""


def choose_way(kit: dict[str, Any], options: argparse.Namespace) -> Way:
    """Choose what does the work by what is here; a way that is not possible says why."""
    reasons = []
    if options.way != "trtexec":
        python, reason = find_python(kit, options)
        if python:
            say("ttl-deploy itself does the work, by " + python)
            return Way(python=python)
        reasons.append(reason)
    if options.way != "ttl-deploy":
        trtexec, reason = find_trtexec(kit)
        if trtexec:
            say("; ".join([*reasons, "trtexec does the work: " + trtexec]))
            return Way(trtexec=trtexec)
        reasons.append(reason)
    raise RefusedError(ABSENT, "; ".join(reasons))


def find_python(kit: dict[str, Any], options: argparse.Namespace) -> Any:
    """Return a Python that has all that ttl-deploy needs, or `""` and why there is none."""
    reasons, seen = [], []
    for name in (str(inside(kit)), sys.executable, *PYTHONS):
        path = shutil.which(name)
        if not path or path in seen:
            continue
        seen.append(path)
        reason = why_not(path, kit, options)
        if not reason:
            return path, ""
        reasons.append(reason)
        if options.install and "lacks" in reason and kit["wheel"]:
            return install(path, kit), ""
    return "", "; ".join(reasons)


def why_not(python: str, kit: dict[str, Any], options: argparse.Namespace) -> str:
    """Say why a Python cannot run ttl-deploy; nothing where it can."""
    wanted = list(kit["requires"]) + ([] if kit["wheel"] else ["ttl_deploy"])
    run = subprocess.run(
        [python, "-c", _PROBE, *wanted, *kit["modules"]],
        env=environment(kit),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    try:
        version, missing = json.loads(run.stdout.decode())
    except ValueError:
        return f"{python} does not answer"
    if tuple(version) < _LEAST_PYTHON:
        return f"{python} is Python {version[0]}.{version[1]}, and ttl-deploy needs 3.11"
    gone = [name for name in kit["modules"] if name in missing]
    if gone:
        return "{} has no module {}: {}".format(
            python, ", ".join(gone), REMEDIES.get(gone[0], "pip install " + gone[0])
        )
    if missing and "ttl_deploy" in missing:
        return f"{python} lacks ttl-deploy: pip install ttl-deploy=={kit['version']}"
    if missing:
        return f"{python} lacks {', '.join(missing)}: let --install fetch them into kit/environment"
    return ""


def install(python: str, kit: dict[str, Any]) -> str:
    """Install ttl-deploy from the kit, and what it needs from the network, beside the kit's files; returns a Python."""
    place = inside(kit).parent.parent
    say(f"installing into {place}")
    made = run_logged([python, "-m", "venv", "--system-site-packages", str(place)])
    if made.returncode == 0:
        wheel = kit["folder"] / "kit" / kit["wheel"]
        made = run_logged([str(inside(kit)), "-m", "pip", "install", "-q", str(wheel), *kit["install"]])
    if made.returncode:
        shutil.rmtree(str(place), ignore_errors=True)
        raise RefusedError(ABSENT, f"cannot install what ttl-deploy needs (is there a network?): {last_lines(made)}")
    return str(inside(kit))


def inside(kit: dict[str, Any]) -> Path:
    """Return where the Python lies that `--install` makes."""
    place: Path = kit["folder"] / "kit" / "environment" / "bin" / "python"
    return place


def environment(kit: dict[str, Any]) -> dict[str, str]:
    """Return the environment with the kit's copy of ttl-deploy in the path."""
    paths = [str(kit["folder"] / "kit" / kit["wheel"])] if kit["wheel"] else []
    paths += [path for path in [os.environ.get("PYTHONPATH", "")] if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def find_trtexec(kit: dict[str, Any]) -> Any:
    """Return the path of trtexec, or `""` and why it cannot be used."""
    if kit["target"] != "tensorrt":
        return "", "trtexec measures the target tensorrt only, and this is for {}".format(kit["target"])
    found = shutil.which("trtexec") or (TRTEXEC if os.access(TRTEXEC, os.X_OK) else "")
    remedy = "on a Jetson: apt-get install tensorrt; elsewhere it is in NVIDIA's TensorRT container"
    return found, "" if found else f"there is no trtexec in PATH or at {TRTEXEC} ({remedy})"
