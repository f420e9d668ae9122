"""A machine to type the documents' commands on: a shell, a board behind ssh, TensorRT and trtexec by stand-ins."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.runs import LEFT_OUT, complete, copy_run, variables_for
from tests.docs.typed_commands import Typed, split_as_a_shell
from tests.runtime.kit.conftest import SCP, SSH, STAND_IN, Board, write_command
from tests.runtime.tensorrt.test_trtexec import PRINTED
from ttl_deploy.runs.folder import newest_run

HOST = "user@orin"
RESULTS = "results-orin-20260101T120000.tar.gz"
ON_STAND_IN = ("ttl-deploy build FOLDER", "ttl-deploy build ARTIFACT", "--target tensorrt", "--trtexec")
"""What needs NVIDIA's TensorRT, which no registry has; with `--flavour rtx` the real one builds."""
PROFILED = ("--max-latency", "--speedup", "--config search.toml", "search --backbone densenet121 --data cxr/ --margin")
"""Searches that time their cuts; the others leave that out, since it takes half a minute each."""
PLACEHOLDERS = ("runs/NAME", "runs/densenet121-cxr-1a2b3c")
"""Names of a run that the search above them on the page made under a name of its own."""


class Machine:
    """Types commands in a page's folder, one after the other."""

    def __init__(self, here: Path, environment: Mapping[str, str]) -> None:
        self.here = here
        self._searched = False
        tools = here / "tools"
        tools.mkdir()
        self.board = Board(here / "board").with_python().with_trtexec()
        for name, text in (("ssh", SSH), ("scp", SCP)):
            write_command(tools / name, text.replace("LOCAL", str(tools)).replace("ward@board", HOST))
        pairs = (f"{name}={value}" for name, value in self.board.environment.items())
        (tools / "pairs").write_text(" ".join(pairs))
        path = os.pathsep.join((str(tools), str(Path(sys.executable).parent), "/usr/bin", "/bin"))
        (here / "home").mkdir()
        self._environment = {
            **os.environ,
            **environment,
            "PATH": path,
            "HOME": str(here / "home"),
            "SHELL": "/bin/bash",
        }

    def type_in(self, typed: Typed, text: str) -> subprocess.CompletedProcess[str]:
        """Type a line into bash, where what it needs from elsewhere was put before."""
        self._prepare(text)
        environment = self._environment | variables_for(typed)
        if any(part in typed.text for part in ON_STAND_IN) and "--flavour rtx" not in typed.text:
            environment["PYTHONPATH"] = os.pathsep.join((str(STAND_IN), environment.get("PYTHONPATH", "")))
        if not any(part in typed.text for part in (*PROFILED, "--skip")):
            environment["TTL_DEPLOY_SEARCH_SKIP"] = "profile"
        done = subprocess.run(
            ["bash", "-c", f"{text}\nexit $?"],  # two lines: for one alone bash would make way, and be no shell to find
            cwd=self.here,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self._searched |= typed.words[1] == "search" and not {"-o", "--out", "--dry-run"} & set(typed.words)
        return done

    def _prepare(self, text: str) -> None:
        words = split_as_a_shell(text, cwd=self.here)
        for name in PLACEHOLDERS:
            if self._searched and any(word.startswith(name) for word in words):
                self._name_newest(name)
        for trial in re.findall(r"\S*/trials/[^/\s]+", " ".join(words)):
            complete(self.here / trial)
        if "trtexec.txt" in words:
            (self.here / "trtexec.txt").write_text(PRINTED.replace("64x64", "32x32").replace("Orin", "Stand-in GPU"))
        if RESULTS in words:
            self._measure_on_the_board(self.here / "RUN")
        if "OUT" in words:
            self._cross_validate()

    def _name_newest(self, name: str) -> None:
        """Give the run of the page's last search the name that the page gives it."""
        newest, named = newest_run(self.here).path, self.here / name
        if newest.name != named.name:
            shutil.rmtree(named, ignore_errors=True)
            copy_run(newest, named)

    def _measure_on_the_board(self, run: Path) -> None:
        kit = next(folder for folder in (run / "exports").iterdir() if (folder / "build_on_target.sh").exists())
        done = self.board.run(kit, "--batch", "1,8", "--seconds=0.02", "--rounds=2")
        assert done.returncode == 0, done.stderr
        (archive,) = self.board.root.glob("results-*.tar.gz")
        shutil.copy2(archive, self.here / RESULTS)

    def _cross_validate(self) -> None:
        line = "ttl-deploy search --folds 3 --cuts layer1.1 --policy exhaustive --skip profile -o OUT"
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.here,
            env=self._environment | LEFT_OUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
