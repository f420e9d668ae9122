"""The images as they are written: linted, and read piece by piece. Nothing is built, as that needs Docker itself."""

import fnmatch
import json
import re
import shlex
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

import ttl_deploy
from ttl_deploy_cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted(ROOT.glob("docker/*.Dockerfile"))
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"
PINNED = re.compile(r"^[\w./-]+:\d[\w.-]*$")
BUILD_TOOLS = re.compile(
    r"\b(gcc|g\+\+|make|cmake|build-essential|python3?-dev|python3-pip|python3-venv|git|\S+-dev)\b"
)

Instruction = tuple[str, str]


def lint(content: str) -> list[dict[str, object]]:
    """Return what the linter finds in a Dockerfile."""
    done = subprocess.run(
        [HADOLINT, "--format", "json", "--no-color", "-"], input=content, capture_output=True, text=True, check=False
    )
    found: list[dict[str, object]] = json.loads(done.stdout)
    assert bool(found) == bool(done.returncode), done.stderr
    return found


def read_stages(path: Path) -> list[list[Instruction]]:
    """Return each stage's instructions with their words, lines joined and comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    parted = [line.strip().partition(" ") for line in whole.splitlines() if line.strip()]
    stages: list[list[Instruction]] = []
    for name, _, words in parted:
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, words.strip()))
    return stages


def words_of(stage: list[Instruction], name: str) -> list[str]:
    return [words for instruction, words in stage if instruction == name]


def read_ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def reaches_the_builder(path: str) -> bool:
    """Say whether the last rule of .dockerignore that fits a path, or a folder above it, lets it through."""
    verdict = True
    parts = Path(path).parts
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    for rule in read_ignored():
        pattern = rule.removeprefix("!").replace("**/", "*")
        if any(fnmatch.fnmatchcase(name, pattern) for name in above):
            verdict = rule.startswith("!")
    return verdict


def test_there_are_three_images() -> None:
    assert [path.stem for path in DOCKERFILES] == ["cpu", "gpu", "jetson"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_the_linter_finds_nothing(path: Path) -> None:
    assert lint(path.read_text()) == []


def test_the_linter_would_find_something() -> None:
    found = {finding["code"] for finding in lint("FROM python\nRUN apt-get install curl\nUSER root\n")}
    assert {"DL3006", "DL3008", "DL3002"} <= found


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
class TestImage:
    def test_it_is_built_in_two_stages_from_the_same_pinned_base(self, path: Path) -> None:
        bases = [stage[0][1].partition(" ")[0] for stage in read_stages(path)]
        assert len(bases) == 2
        assert len(set(bases)) == 1
        assert all(PINNED.match(base) for base in bases)
        assert "digest could not be looked up" in " ".join(path.read_text().replace("#", "").split())

    def test_its_program_runs_as_another_user_than_root(self, path: Path) -> None:
        *_, last = read_stages(path)
        assert words_of(last, "USER") == ["10001"]
        assert "useradd" in " ".join(words_of(last, "RUN"))
        names = [name for name, _ in last]
        assert "RUN" not in names[names.index("USER") :]

    def test_doctor_is_its_health_check(self, path: Path) -> None:
        *_, last = read_stages(path)
        (check,) = words_of(last, "HEALTHCHECK")
        assert json.loads(check.partition("CMD ")[2]) == ["ttl-deploy", "doctor"]
        assert int(re.search(r"--timeout=(\d+)m", check)[1]) >= 2  # torch is imported, on slow machines too
        assert (words_of(last, "ENTRYPOINT"), words_of(last, "CMD")) == (['["ttl-deploy"]'], ['["doctor"]'])

    def test_what_it_copies_exists_and_reaches_the_builder(self, path: Path) -> None:
        build, last = read_stages(path)
        sources = [source for words in words_of(build, "COPY") for source in words.split()[:-1]]
        assert {"constraints.txt", "pyproject.toml", "ttl_deploy", "cli"} <= set(sources)
        for source in sources:
            assert (ROOT / source).exists()
            assert reaches_the_builder(source)
        assert words_of(last, "COPY") == ["--from=build /opt/ttl-deploy /opt/ttl-deploy"]

    def test_packages_are_installed_under_the_constraints(self, path: Path) -> None:
        build, last = read_stages(path)
        commands = [command for words in words_of(build, "RUN") for command in words.split("&&")]
        (install,) = [shlex.split(command) for command in commands if " pip " in command and " install " in command]
        assert install[install.index("--constraint") + 1] == "constraints.txt"
        asked = [word for word in install[install.index("--constraint") + 2 :] if not word.startswith("-")]
        extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", asked[0])
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set((extras[1] or "").split(",")) - {""} <= set(known)
        constrained = (ROOT / "constraints.txt").read_text()
        for package in asked[1:]:
            assert re.search(rf"^{package}==", constrained, flags=re.MULTILINE), package
        assert not any("pip" in words for words in words_of(last, "RUN"))

    def test_the_last_stage_has_no_build_tools(self, path: Path) -> None:
        *_, last = read_stages(path)
        assert not BUILD_TOOLS.search(" ".join(words_of(last, "RUN")))

    def test_its_labels_are_those_of_the_program(self, path: Path) -> None:
        *_, last = read_stages(path)
        labels = dict(word.split("=", 1) for words in words_of(last, "LABEL") for word in shlex.split(words))
        names = {name.removeprefix("org.opencontainers.image.") for name in labels}
        assert names == {"title", "description", "licenses", "version"}
        assert labels["org.opencontainers.image.version"] == ttl_deploy.__version__
        licence = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
        assert labels["org.opencontainers.image.licenses"] == licence

    def test_its_folders_for_data_belong_to_its_user(self, path: Path) -> None:
        *_, last = read_stages(path)
        (volumes,) = map(json.loads, words_of(last, "VOLUME"))
        made = re.search(r"install --directory --owner=ttl --group=ttl (.*)", " ".join(words_of(last, "RUN")))
        assert set(volumes) <= set(made[1].split())
        assert "TTL_DEPLOY_CACHE=/cache" in " ".join(words_of(last, "ENV"))


@pytest.mark.parametrize(
    ("path", "reaches"),
    [
        ("ttl_deploy/runtime/machine.py", True),
        ("ttl_deploy/report/templates/report.html", True),
        ("constraints.txt", True),
        ("runs/a/data/manifest.csv", False),
        ("tests/conftest.py", False),
        (".git/config", False),
        (".venv/bin/python", False),
        ("ttl_deploy/runtime/__pycache__/machine.cpython-311.pyc", False),
    ],
)
def test_only_the_program_reaches_the_builder(path: str, reaches: bool) -> None:
    assert reaches_the_builder(path) == reaches


@pytest.fixture(scope="module")
def search() -> dict:
    composed = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    assert set(composed["services"]) == {"search"}
    return composed["services"]["search"] | {"known volumes": set(composed["volumes"])}


def test_the_compose_file_builds_an_image_that_exists(search: dict) -> None:
    context = (ROOT / "docker" / search["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / search["build"]["dockerfile"]).is_file()


def test_the_compose_file_keeps_runs_and_cache_and_only_reads_the_data(search: dict) -> None:
    volumes = {volume["target"]: volume for volume in search["volumes"]}
    assert set(volumes) == {"/data", "/cache", "/runs"}
    assert volumes["/data"]["read_only"]
    for target in ("/cache", "/runs"):
        assert volumes[target]["source"] in search["known volumes"]
        assert not volumes[target].get("read_only")
    *_, last = read_stages(ROOT / search["build"]["dockerfile"])
    (declared,) = map(json.loads, words_of(last, "VOLUME"))
    assert set(declared) == {"/cache", "/runs"}


def test_the_composed_command_is_understood_by_the_program(search: dict) -> None:
    name, *arguments = search["command"]
    context = typer.main.get_command(app).commands[name].make_context(name, arguments)
    given = {key: str(value) for key, value in context.params.items() if value is not None}
    assert "/data" in given.values()
    assert "/runs/densenet121" in given.values()


def test_the_composed_search_gets_a_card_and_no_rights(search: dict) -> None:
    (device,) = search["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert search["read_only"]
    assert search["cap_drop"] == ["ALL"]
    assert "user" not in search or search["user"] != "root"
