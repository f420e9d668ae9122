"""A search with other widths and input sizes, as a user runs it: killed in between, exported, verified."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.records import codec
from ttl_deploy.records.trials import Trial

from .conftest import call, kill_when
from .test_interruption import facts

SEARCH = (
    *("search", "--backbone", "resnet18", "--weights", "none", "--policy", "exhaustive", "--cuts", "layer1.1"),
    *("--data", "phantom:texture?patients=30&size=32&seed=1", "--image-size", "24,32", "--width", "0.5"),
    *("--epochs", "1", "--batch-size", "16", "--lr", "3e-3", "--workers", "2", "--skip", "profile", "--no-progress"),
    *("-o", "run"),
)
NARROW = "layer1.1@24px@w0.5"


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished search."""
    here = tmp_path_factory.mktemp("variants")
    done = call(SEARCH, cwd=here, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    return here / "run"


@pytest.mark.slow
def test_a_search_killed_while_it_trains_variants_goes_on_with_the_same(run: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    begun = folder / "trials" / "layer1.1@24px__full__s0"
    kill_when(lambda: (begun / "result.json").exists(), SEARCH, cwd=tmp_path, cache=cache)
    decided = (folder / "variants.json").read_bytes()
    done = call(SEARCH, cwd=tmp_path, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert (folder / "variants.json").read_bytes() == decided == (run / "variants.json").read_bytes()
    weights = [
        (path.parent.name, json.loads(path.read_text())["weights_sha256"])
        for path in sorted((run / "trials").glob("*/result.json"))
    ]
    again = [
        (path.parent.name, json.loads(path.read_text())["weights_sha256"])
        for path in sorted((folder / "trials").glob("*/result.json"))
    ]
    assert again == weights


@pytest.mark.slow
def test_finalists_and_the_full_network_stand_beside_their_variants(run: Path) -> None:
    front = json.loads((run / "front.json").read_text())
    names = {point["cut"]: point for point in front["points"]}
    assert set(names) == {
        f"{cut}{variant}" for cut in ("layer1.1", "full") for variant in ("", "@24px", "@w0.5", "@24px@w0.5")
    }
    assert front["reference"] == "full"
    assert front["points"][-1]["cut"] == "full"
    assert names[NARROW]["params"] < 0.4 * names["layer1.1"]["params"]
    assert names[NARROW]["macs"] < names["layer1.1@w0.5"]["macs"] < names["layer1.1"]["macs"]
    trained = [fact["key"] for fact in facts(run) if fact["event"] == "trial_finished"]
    assert len(trained) == len(set(trained)) == 8
    narrow = codec.load(Trial, run / "trials" / f"{NARROW}__full__s0" / "trial.json")
    assert narrow.teacher == "layer1.1@24px__full__s0"
    page = (run / "report.html").read_text()
    assert NARROW in page
    assert "trains finalists at other widths and input sizes" in page


@pytest.mark.slow
def test_a_variant_ships_with_its_own_input_size_and_makes_its_own_decisions(run: Path, cache: Path) -> None:
    def do(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = call(arguments, cwd=run.parent, TTL_DEPLOY_CACHE=str(cache))
        assert done.returncode == 0, done.stderr
        return done

    do("export", "run", "--cut", NARROW)
    artifact = run / "exports" / NARROW
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["input"]["height"] == manifest["decode"]["image_size"] == manifest["model"]["image_size"] == 24
    assert manifest["model"]["width"] == 0.5
    assert manifest["weights_note"] == "narrowed to width 0.5 from layer1.1@24px__full__s0"
    do("verify", str(artifact))
    path = run.parent / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(path)
    do("predict", str(artifact), str(path), "--out", "answers.csv")
    assert "one.png" in (run.parent / "answers.csv").read_text()


def test_what_a_width_cannot_be_is_said_before_anything_is_written(cache: Path, tmp_path: Path) -> None:
    arguments = ["1.5" if one == "0.5" else one for one in SEARCH]
    done = call(arguments, cwd=tmp_path, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 2, done.stderr
    assert "give shares of the channels" in done.stderr
    assert not (tmp_path / "run").exists()
