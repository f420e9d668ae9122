"""A search over a data set with a file that does not decode: left out from the first image to the verified file."""

import csv
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ttl_deploy.data.manifest import prepare

SEARCH = shlex.split(
    "search --backbone shufflenet_v2_x0_5 --weights none --image-size 32 --cuts stage2.3 --epochs 1 --batch-size 16 "
    "--workers 2 --skip profile --policy exhaustive -o run"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, one of which is cut short."""
    manifest = prepare("phantom:texture?patients=40&size=32&seed=1")
    place = tmp_path_factory.mktemp("set")
    for sample in manifest.samples:
        target = place / manifest.classes[sample.label] / sample.path.replace("/", "-")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(Path(manifest.root) / sample.path, target)
    bad = min(place.rglob("*.png"))
    bad.write_bytes(bad.read_bytes()[:60])
    return place


@pytest.mark.slow
def test_what_does_not_decode_stays_out_up_to_the_verified_file(
    ttl_deploy: Callable[..., object], folder: Path, tmp_path: Path
) -> None:
    refused = ttl_deploy(*SEARCH, "--data", folder, "--max-bad", "0")
    assert (refused.returncode, "--max-bad allows 0.0%" in refused.stderr) == (3, True), refused.stderr
    for _ in range(2):  # the second is resumed
        done = ttl_deploy(*SEARCH, "--data", folder, "--max-bad", "0.05")
        assert done.returncode == 0, done.stderr
        assert "images do not decode and are left out" in done.stderr
    with (tmp_path / "run" / "data" / "quarantine.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    with (tmp_path / "run" / "data" / "manifest.csv").open(newline="") as file:
        paths = [one["path"] for one in csv.DictReader(file)]
    assert sorted([row["path"], *paths]) == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.png")
    )
    exported = ttl_deploy("export", "run")
    assert exported.returncode == 0, exported.stderr
    artifact = next((tmp_path / "run" / "exports").iterdir())
    verified = ttl_deploy("verify", artifact, "--split", "all", "--max-bad", "0.05")
    assert (verified.returncode, "1 of 102 images do not decode" in verified.stderr) == (0, True), verified.stderr
    refused = ttl_deploy("verify", artifact, "--split", "all", "--max-bad", "0")
    assert (refused.returncode, "--max-bad allows 0.0%" in refused.stderr) == (3, True), refused.stderr
