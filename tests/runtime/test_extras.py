"""The optional parts of the installation, from the metadata of made-up and of really installed packages."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from ttl_deploy.runtime.extras import find_conflicts, installed_version, read_extras

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what puts a package's metadata in front of all others; nothing of it can be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name, version, *lines):
        facts = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        facts.mkdir()
        head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        (facts / "METADATA").write_text("\n".join([*head, *lines, ""]))

    return put


@pytest.fixture
def project(install):
    """Install a made-up ttl-deploy with three extras."""
    install(
        "ttl-deploy",
        "9.9",
        *(f"Provides-Extra: {name}" for name in ("train", "trt", "dev")),
        "Requires-Dist: made-up-base>=1",
        'Requires-Dist: made-up-torch>=2.9; extra == "train"',
        'Requires-Dist: made-up-plots>=6; extra == "train"',
        'Requires-Dist: made-up-elsewhere; platform_machine == "vax" and extra == "train"',
        'Requires-Dist: tensorrt>=10; extra == "trt"',
        'Requires-Dist: made-up-tests; extra == "dev"',
    )


def extra(name, **options):
    return next(one for one in read_extras(**options) if one.name == name)


def test_the_extras_are_those_of_the_project():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = read_extras()
    assert {one.name for one in found} == set(declared) - {"dev"}
    assert all(one.purpose for one in found)
    assert all(one.command == f"pip install 'ttl-deploy[{one.name}]'" for one in found)
    names = {re.match(r"[\w-]+", line)[0] for line in declared["train"]}
    # The installed metadata may be a little older than the file.
    assert {"torch", "torchvision", "safetensors"} <= set(extra("train").versions) <= names


def test_installed_means_every_package_in_a_version_that_fits(project, install):
    install("made-up-torch", "2.13.0+cpu")
    assert extra("train").lacking == ("made-up-plots",)
    assert not extra("train").installed
    install("made-up-plots", "6.0")
    assert extra("train").installed
    assert extra("train").versions == {"made-up-torch": "2.13.0+cpu", "made-up-plots": "6.0"}


def test_a_package_that_is_too_old_is_named_with_what_is_needed(project, install):
    install("made-up-torch", "2.4.1")
    assert extra("train").lacking == ("made-up-torch 2.4.1 (needed: >=2.9)", "made-up-plots")


def test_tensorrt_is_explained_where_it_is_missing(project, install):
    if installed_version("tensorrt"):
        pytest.skip("TensorRT is installed here")
    note = extra("trt").note
    for way in ("nvcr.io/nvidia/tensorrt", "[rtx]", "https://pypi.nvidia.com"):
        assert way in note
    on_jetson = extra("trt", jetson=True).note
    assert "sudo apt install python3-libnvinfer" in on_jetson
    assert "--system-site-packages" in on_jetson
    install("tensorrt", "10.16.1.11")
    assert extra("trt").note == ""


def test_where_tensorrt_is_no_requirement_it_is_lacking_all_the_same(install):
    marker = 'platform_machine == "vax" and extra == "trt"'
    install("ttl-deploy", "9.9", "Provides-Extra: trt", f"Requires-Dist: tensorrt>=10; {marker}")
    assert extra("trt").lacking == ("tensorrt",)
    install("tensorrt", "10.16.2.10")
    assert extra("trt").installed


def test_nothing_is_said_of_extras_where_the_program_is_not_installed(monkeypatch):
    def forget(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("ttl_deploy.runtime.extras.distribution", forget)
    assert read_extras() == ()
    assert find_conflicts() == ()


def test_metadata_of_an_interrupted_installation_are_no_version(tmp_path, monkeypatch):
    (tmp_path / "half_there-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_version("half-there") == ""


@pytest.mark.parametrize(("torch", "conflict"), [("2.13.0", False), ("2.13.0+cpu", False), ("2.15.0", True)])
def test_torch_must_be_the_one_that_torchvision_was_built_for(install, torch, conflict):
    install("torchvision", "0.28.0", "Requires-Dist: numpy", "Requires-Dist: torch (==2.13.0)")
    install("torch", torch)
    found = find_conflicts()
    assert len(found) == conflict
    if conflict:
        assert found[0].what == "torchvision 0.28.0 was built for torch==2.13.0; here is torch 2.15.0"
        assert found[0].exit_code == 0


def test_two_onnxruntimes_in_one_folder_are_a_conflict(install):
    install("onnxruntime-gpu", "1.31.1")
    (found,) = [one for one in find_conflicts() if "onnxruntime" in one.what]
    assert "onnxruntime and onnxruntime-gpu" in found.what
    assert "pip uninstall onnxruntime-gpu onnxruntime" in found.remedy


def test_on_a_jetson_the_package_hides_jetpacks_tensorrt(install, monkeypatch, tmp_path):
    install("tensorrt", "10.16.1.11")
    assert not any("tensorrt" in one.what for one in find_conflicts(jetson=True))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert any("hides JetPack's own" in one.what for one in find_conflicts(jetson=True))
    assert not any("tensorrt" in one.what for one in find_conflicts())
