"""The worked plug-in of docs/extending.md is installed as any package is, and used by its names."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "docs" / "examples" / "imagelist"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An empty folder with the plug-in in it, from a copy: building leaves files beside the sources."""
    source, target = tmp_path_factory.mktemp("source") / "imagelist", tmp_path_factory.mktemp("target")
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def python(code, *arguments, installed, cwd=None):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


PROGRAM = "import sys; sys.argv[0] = 'ttl-deploy'\nfrom ttl_deploy_cli.main import main; main()"


def write_list(folder, text=None):
    lines = []
    for number in range(12):
        Image.new("L", (32, 32), 20 * number + 5).save(folder / f"{number}.png")
        lines.append(f"{number}.png\t{'ab'[number % 2]}\tp{number // 2}")
    (folder / "wards.imagelist").write_text(text or "\n".join(lines) + "\n", encoding="utf-8")


def test_the_names_are_in_the_tables_behind_the_built_in_ones(installed):
    code = "from ttl_deploy import plugins\nprint(plugins.names('readers')[-1], plugins.names('policies')[-1])"
    assert python(code, installed=installed).stdout.split() == ["imagelist", "every-other"]


def test_the_reader_is_asked_and_the_checks_come_after_it(installed, tmp_path):
    write_list(tmp_path)
    done = python(PROGRAM, "inspect", "wards.imagelist", "--json", "-q", installed=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert '"imagelist"' in done.stdout
    assert told


def test_the_readers_errors_are_the_programs(installed, tmp_path):
    write_list(tmp_path, "0.png\ta\n")
    done = python(PROGRAM, "inspect", "wards.imagelist", installed=installed, cwd=tmp_path)
    assert done.returncode == 3
    assert "line 1: 2 parts; give path, class and patient" in done.stderr


def test_the_policy_proposes_every_other_cut_until_nothing_is_left(installed):
    code = """
import sys
from itertools import product
from types import SimpleNamespace as Thing
from ttl_deploy import plugins
cuts = [Thing(name=name) for name in ("a", "b", "c", "d", "full")]
trials = {(cut.name, "full", seed): Thing(key=f"{cut.name}{seed}") for cut, seed in product(cuts, (0, 1))}
state = Thing(cuts=cuts, strategies=("full",), seeds=(0, 1), trial_of=trials, outcomes={"full0": None})
policy = plugins.load("policies", "every-other")()
print(*[proposal.trial.key for proposal in policy.propose(state)])
state.outcomes = {trial.key: None for trial in trials.values()}
print(list(policy.propose(state)))
"""
    done = python(code, installed=installed)
    assert done.stdout.splitlines() == ["full1 c0 c1 a0 a1", "[]"], done.stderr


def test_an_error_suggests_the_new_name(installed):
    code = "from ttl_deploy import plugins\nplugins.load('policies', 'every-othr')"
    assert "did you mean every-other" in python(code, installed=installed).stderr


@pytest.mark.slow
def test_a_search_by_the_plug_in_alone(installed, tmp_path):
    arguments = (
        *("search", "--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--policy", "every-other"),
        *("--data", "wards.imagelist", "--image-size", "32", "--cuts", "stages", "--epochs", "1", "-o", "run"),
        *("--profile-seconds", "0.05", "--split-seed", "1", "--val-fraction", "0.3", "--test-fraction", "0.3"),
    )
    write_list(tmp_path)
    done = python(PROGRAM, *arguments, installed=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/trials/full__full__s0").is_dir()


def test_the_page_shows_the_package_as_it_is():
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (declared,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert declared in (PACKAGE / "pyproject.toml").read_text(encoding="utf-8")
