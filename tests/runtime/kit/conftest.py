"""A machine with and without trtexec, Python and TensorRT, made of a folder of commands; and an artifact for it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ttl_deploy.records.engines import BatchRange, EngineOptions, EngineRequest
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.kit.writing import write_kit

HERE = Path(__file__).parent
STAND_IN = HERE.parent / "tensorrt" / "stand_in"
REQUEST = EngineRequest(flavour="trt", options=EngineOptions(batch=BatchRange(smallest=1, usual=2, largest=4)))


def write_command(path, text):
    path.write_text(text)
    path.chmod(0o755)


@dataclass
class Board:
    """Another machine: its commands lie in `bin`, its environment is `environment`."""

    root: Path

    def __post_init__(self):
        self.bin = self.root / "bin"
        self.bin.mkdir(parents=True)
        for name in ("sh", "dirname", "mktemp", "rm", "cat"):
            (self.bin / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
        self.log = self.root / "trtexec.log"
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(self.root),
            "TMPDIR": str(self.root),
            "OMP_NUM_THREADS": "1",
            "FAKE_TRTEXEC_LOG": str(self.log),
            "TTL_DEPLOY_CACHE": str(self.root / "cache"),
        }

    def with_python(self, **environment):
        write_command(self.bin / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        self.environment |= environment
        return self

    def with_trtexec(self, **environment):
        write_command(self.bin / "trtexec", f'#!/bin/sh\nexec {sys.executable} {HERE / "fake_trtexec.py"} "$@"\n')
        self.environment |= environment
        return self

    def run(self, folder, *arguments):
        command = ["/bin/sh", str(folder / "build_on_target.sh"), *map(str, arguments)]
        return subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)

    @property
    def calls(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / "board")


@pytest.fixture
def kit(tmp_path, tiny):
    """An artifact of the format trt, with its kit."""
    artifact = open_artifact(tiny.write(tmp_path / "artifact", manifest=tiny.manifest(format="trt")))
    write_kit(artifact, artifact.folder, request=REQUEST, target="tensorrt")
    return artifact


SSH = """#!/bin/sh
printf '%s\\n' "$*" >> LOCAL/calls
while [ "$1" != -- ]; do shift; done
[ "$2" = ward@board ] || { echo "ssh: connect to host $2 port 22: Connection refused" >&2; exit 255; }
exec env -i $(cat LOCAL/pairs) sh -c "$3"
"""
SCP = """#!/bin/sh
printf '%s\\n' "$*" >> LOCAL/calls
while [ "$1" != -- ]; do shift; done
case $2 in */results.tar.gz) [ ! -f LOCAL/other.tar.gz ] || exec cp LOCAL/other.tar.gz "$3" ;; esac
exec cp -r "${2#ward@board:}" "${3#ward@board:}"
"""


@pytest.fixture
def over_ssh(board, tmp_path, monkeypatch):
    """Put an ssh and an scp on the path that know one host, `ward@board`, and run things in that board's environment.

    Returns a function that says how the board is now; its `calls` are what ssh and scp were called with. An archive
    `other.tar.gz` in `local` is what scp brings instead of the results.
    """
    local = tmp_path / "local"
    local.mkdir()
    for name, text in (("ssh", SSH), ("scp", SCP)):
        write_command(local / name, text.replace("LOCAL", str(local)))
    monkeypatch.setenv("PATH", f"{local}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def now():
        (local / "pairs").write_text(" ".join(f"{name}={value}" for name, value in board.environment.items()))
        return board

    now.local, now.board = local, board
    return now
