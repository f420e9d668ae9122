"""What `build_on_target.sh` runs on the machine that a model is for: build, compare, measure, pack the results.

Standard library and Python 3.8 only, because JetPack 5 has no newer one. Where Python 3.11 with TensorRT and what
ttl-deploy needs is here, ttl-deploy itself does the work; else NVIDIA's `trtexec` does, and this file compares its
answers and writes its times down. Results appear whole or not at all. Exit codes are those of ttl-deploy.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from .kits import read_kit
from .refusals import STORAGE, USAGE, RefusedError, say
from .trtexec import run_trtexec
from .ways import choose_way, environment


def main(arguments: list[str] | None = None) -> int:
    """Do all of it; returns the exit code."""
    options = read_options(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        out = free_place(options)
        kit = read_kit(options.folder)
        way = choose_way(kit, options)
        with tempfile.TemporaryDirectory(prefix="ttl-deploy-kit-") as scratch:
            work = Path(scratch)
            if way.python:
                run_ttl_deploy(way.python, kit, options, work)
            else:
                run_trtexec(way.trtexec, kit, options, work)
            pack(work, out)
    except RefusedError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return refusal.code
    except OSError as error:
        print(f"error: {error}: free some space, or choose a writable place with --out", file=sys.stderr)
        return STORAGE
    print(out)
    say("copy that file to where the model was trained, and there: ttl-deploy report RUN --add FILE")
    return 0


def interrupt(number: int, frame: object) -> None:
    """End the script so that its temporary files are removed."""
    sys.exit(128 + number)


def read_options(arguments: Any) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="build_on_target.sh",
        description="Build this model's engine here, compare it with the recorded answers, measure it, pack results.",
        epilog="Exit codes: 0 ok, 2 usage, 4 damaged kit or wrong answers, 6 something is missing, 74 not writable.",
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    add("--out", type=Path, metavar="FILE.tar.gz", help="the results [results-HOST-TIME.tar.gz in this folder]")
    add("--batch", default="1", help="images per call, e.g. 1 or 1,8 [1]")
    add("--seconds", type=float, default=3.0, help="seconds of timing per batch size, all rounds together [3]")
    add("--rounds", type=int, default=5, help="fresh processes per batch size [5]")
    add("--threads", type=int, default=1, help="CPU threads of a call [1]")
    add("--way", choices=("auto", "ttl-deploy", "trtexec"), default="auto", help="what does the work [what is here]")
    add("--install", action="store_true", help="fetch what ttl-deploy needs, into kit/environment")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[1-9]\d{0,2}(,[1-9]\d{0,2})*", options.batch):
        parser.error(f"--batch {options.batch}: give sizes such as 1,8")
    if options.rounds < 1 or options.threads < 1 or not 0 < options.seconds < math.inf:
        parser.error("--rounds, --threads and --seconds must be above 0")
    options.batches = [int(size) for size in options.batch.split(",")]
    return options


def free_place(options: argparse.Namespace) -> Path:
    """Return where the results go, before minutes of work; nothing there is overwritten."""
    host = re.sub(r"[^A-Za-z0-9-]+", "_", platform.node() or "unknown")
    name = "results-{}-{}.tar.gz".format(host, time.strftime("%Y%m%dT%H%M%S", time.gmtime()))
    out: Path = options.out or Path(name)
    if out.exists():
        raise RefusedError(USAGE, f"{out} is there already: name another file with --out")
    if not out.parent.is_dir() or not os.access(str(out.parent), os.W_OK):
        raise RefusedError(STORAGE, f"{out.parent} is no folder that can be written: name another place with --out")
    return out


def run_ttl_deploy(python: str, kit: dict[str, Any], options: argparse.Namespace, work: Path) -> None:
    """Let ttl-deploy build, compare and measure, and write `results.json`."""
    named = ("batch", "seconds", "rounds", "threads")
    given = [f"--{name}={getattr(options, name)}" for name in named]
    command = [python, "-m", "ttl_deploy.runtime.kit.measuring", str(kit["folder"]), str(work / "results.json")]
    done = subprocess.run([*command, *given], env=environment(kit), check=False)
    if done.returncode or not (work / "results.json").is_file():
        code = done.returncode if done.returncode > 0 else 1
        raise RefusedError(code, "ttl-deploy could not do it, as said above; nothing was written")


def pack(work: Path, out: Path) -> None:
    """Write the results into one file that appears whole or not at all."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with tarfile.open(str(partial), "w:gz") as archive:
            for path in sorted(work.iterdir()):
                if path.name in ("results.json", "build.log") or path.name.startswith("times-"):
                    archive.add(str(path), arcname=path.name)
        partial.replace(out)
    finally:
        if partial.exists():
            partial.unlink()


if __name__ == "__main__":
    sys.exit(main())
