"""The tutorial's commands run, in its order, on small data and with the settings of a search that is finished."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

from ttl_deploy_cli.main import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
QUICK = {
    "TTL_DEPLOY_BENCH_SECONDS": "0.02",
    "TTL_DEPLOY_BENCH_RUNS": "2",
    "TTL_DEPLOY_BENCH_ROUNDS": "2",
    "TTL_DEPLOY_CUTS_IMAGE_SIZE": "64",
}


def commands():
    """Return the command lines of the blocks that are marked to be run."""
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def write_config(path, arguments):
    """Write the settings of a command line of `search` as a file."""
    command = typer.main.get_command(app).commands["search"]
    root = typer.main.get_command(app).make_context("ttl-deploy", ["search"])
    given = command.make_context("search", arguments, parent=root)
    values = {
        name: value
        for name, value in given.params.items()
        if value is not None and given.get_parameter_source(name).name == "COMMANDLINE"
    }
    backbone = values.pop("backbone")
    lines = [f"backbone = {json.dumps(backbone)}", "[search]", 'out = "runs/cxr"']
    path.write_text("\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in values.items())]))


def draw_images(folder, count):
    noise = np.random.default_rng(len(folder.name))
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(noise.integers(0, 255, (40, 40), dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def here(run_folder, search_arguments, tmp_path_factory):
    """A folder with the tutorial's data, and with its search as good as done."""
    here = tmp_path_factory.mktemp("tutorial")
    for name, count in (("cxr/normal", 9), ("cxr/pneumonia", 7), ("new_images", 2)):
        draw_images(here / name, count)
    shutil.copytree(run_folder, here / "runs" / "cxr")
    write_config(here / "search.toml", search_arguments[1:])
    return here


def test_the_tutorial_has_a_command_for_every_step():
    assert [line[1] for line in commands()] == (
        ["doctor", "inspect", "cuts", "search", "front", "export", "verify", "bench", "report", "predict"]
    )


@pytest.mark.parametrize(
    "line",
    [
        # What these do is tested elsewhere too, and takes long.
        pytest.param(line, id=line[1], marks=pytest.mark.slow if line[1] in ("export", "cuts", "bench") else ())
        for line in commands()
    ],
)
def test_a_command_of_the_tutorial_runs(line, here, ttl_deploy):
    done = ttl_deploy(*line[1:], cwd=here, **QUICK)
    # A benchmark of so little may be inconclusive, and says so by its exit code.
    assert done.returncode in ((0, 7) if line[1] == "bench" else (0,)), done.stderr
    assert done.stdout or line[1] == "predict"
    if line[1] == "search":
        assert "resuming" in done.stderr
    if line[1] == "predict":
        assert len((here / "preds.csv").read_text().splitlines()) == 3
