"""`ttl-deploy subgroups`, end to end: a table with sex and age, a search, its subgroups, its report; another search."""

import csv
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from ttl_deploy.records import codec
from ttl_deploy.records.openings import EarlierOpenings
from ttl_deploy.records.subgroups import Subgroups
from ttl_deploy.runs.folder import RunFolder

from .conftest import Run, call

TORCH = ("torch", "torchvision", "scipy", "sklearn")
HOSTILE = "[red]<b>=x</b>"
SEARCH = shlex.split(
    "search --backbone shufflenet_v2_x0_5 --weights none --policy exhaustive --image-size 32 --cuts stage2.3 "
    "--epochs 1 --batch-size 16 --workers 2 --skip profile --test-fraction 0.45 --no-progress --data films"
)
Made = tuple[Path, Path, tuple[subprocess.CompletedProcess[str], ...]]


def draw_films(folder: Path, *, patients: int = 110) -> None:
    """Write images of 32 px and their table: women and men, ages with blanks, sites with a hostile name, studies."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for patient in range(patients):
        label = int(generator.random() < 0.5)
        traits = {
            "sex": "FM"[patient % 2],
            "age": "" if patient % 9 == 0 else str(generator.integers(18, 90)),
            "site": ["A", HOSTILE][int(generator.random() < 0.3)],
            "study": f"study {patient}",
        }
        pixels = generator.normal(100, 20, (32, 32))
        pixels[8:24, 8:24] += 50 * label
        name = f"images/{patient}.png"
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
        rows.append({"path": name, "label": ["normal", "ill"][label], "patient_id": f"P{patient}", **traits})
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two searches on the same table with different seeds, in `one` and `two`; and the cache they share."""
    here = tmp_path_factory.mktemp("subgroups")
    draw_films(here / "films")
    done = []
    for name, seed in (("one", "0"), ("two", "1")):
        done.append(call([*SEARCH, "--seeds", seed, "-o", name], cwd=here, TTL_DEPLOY_CACHE=str(here / "cache")))
        assert done[-1].returncode == 0, done[-1].stderr
    return here, here / "cache", tuple(done)


@pytest.fixture
def subgroups(searched: Made, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command on a copy of the first search's folder, `run`, without torch."""
    shutil.copytree(searched[0] / "one", tmp_path / "run")

    def run(*arguments: object, command: str = "subgroups", blocked: Sequence[str] = TORCH, folder: str = "run"):  # type: ignore[no-untyped-def] # as call
        given = [command, folder, *map(str, arguments)]
        return call(given, cwd=tmp_path, blocked=blocked, TTL_DEPLOY_CACHE=str(searched[1]))

    return run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_groups_are_scored_on_the_opened_test_split_without_torch(
    subgroups: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = subgroups("--json")
    assert done.returncode == 0, done.stderr
    found = codec.from_builtins(Subgroups, json.loads(done.stdout))
    assert [column.column for column in found.columns] == ["sex", "age", "site"]
    assert [group.name for group in found.columns[0].groups] == ["F", "M"]
    assert found.columns[1].banded
    assert found.columns[1].groups[-1].name == "(blank)"
    assert [one.column for one in found.left_out] == ["study"]
    run = RunFolder(tmp_path / "run")
    assert found.split == "test"
    assert found.model.endswith("__s0")
    samples = [row for row in read(run.data / "manifest.csv") if row["split"] == "test"]
    scores = np.load(run.trial(found.model) / "predictions_test.npz")["probabilities"][:, 1]
    for group in found.columns[0].groups:
        own = [number for number, row in enumerate(samples) if row["extra:sex"] == group.name]
        truth = [samples[number]["label"] == found.classes[1] for number in own]
        assert group.score("auroc").value == pytest.approx(roc_auc_score(truth, scores[own]), abs=1e-12)
        assert (group.images, group.positives) == (len(own), sum(truth))


@pytest.mark.slow
def test_each_use_of_the_test_split_is_in_the_ledger_and_validation_is_none(
    subgroups: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    ledger = RunFolder(tmp_path / "run").ledger
    for options, times in (((), 2), (("--split", "val"), 2), (("--by", "sex"), 3)):
        done = subgroups(*options)
        assert done.returncode == 0, done.stderr
        assert len(ledger.of_event("test_opened")) == times
        assert ("its test split was used by this command" in done.stderr) == (options != ("--split", "val"))
    newest = ledger.of_event("test_opened")[-1]
    assert newest.key.startswith("subgroups-")
    assert newest.content["command"] == "ttl-deploy subgroups run --by sex"
    report = subgroups(command="report", blocked=())
    assert "the test split was opened 3 times by this run, and never before by others" in report.stderr
    assert len(ledger.of_event("test_opened")) == 3  # a report opens nothing
    assert "It was opened 3 times" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_names_from_the_table_are_text_in_terminal_csv_and_report(
    subgroups: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = subgroups("--csv", "out.csv")
    assert f"site: {HOSTILE}" in done.stdout
    assert "groups were looked at" in done.stdout
    rows = read(tmp_path / "out.csv")
    assert [row["group"] for row in rows if row["column"] == "site"] == ["A", HOSTILE]
    assert rows == read(tmp_path / "run" / "subgroups.csv")  # which the search has written
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;=x&lt;/b&gt;" in page
    assert HOSTILE not in page.replace("\\u003c", "<").partition("subgroups-plot")[0]


@pytest.mark.slow
def test_small_groups_say_so_in_the_terminal(subgroups: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = subgroups("--bands", "age=20", "--by", "sex")
    line = next(line for line in done.stdout.splitlines() if "below 20" in line)
    assert "too small to judge: " in line or "no images" in line
    assert " site:" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--by", "ages"), "there is no column 'ages': there are sex, age, site, study"),
        (("--by", "sex,ages"), "there is no column 'ages'"),
        (("--bands", "sex=1"), "column 'sex' holds no numbers but ['F', 'M']"),
        (("--bands", "age"), "give a column and where its bands begin"),
        (("--bands", "age=1,x"), "give a column and where its bands begin"),
        (("--cut", "nowhere"), "unknown trained cut 'nowhere'"),
        (("--split", "train"), "unknown split 'train'"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    options: tuple[str, ...], message: str, subgroups: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = subgroups(*options)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert len(RunFolder(tmp_path / "run").ledger.of_event("test_opened")) == 1


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A search on a table without further columns, whose cache has no place for the register."""
    here = tmp_path_factory.mktemp("plain")
    draw_films(here / "films", patients=60)
    rows = read(here / "films" / "labels.csv")
    with (here / "films" / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("path", "label", "patient_id"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    (here / "cache").mkdir()
    (here / "cache" / "test-openings").write_text("not a folder")
    return here, call([*SEARCH, "-o", "run"], cwd=here, TTL_DEPLOY_CACHE=str(here / "cache"))


@pytest.mark.slow
def test_a_register_that_cannot_be_used_does_not_stop_a_search(
    plain: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    here, done = plain
    assert done.returncode == 0, done.stderr
    assert "whether other runs opened this test split before is not known" in done.stderr
    assert "could not be noted for later runs" in done.stderr
    page = (here / "run" / "report.html").read_text(encoding="utf-8")
    assert "whether other runs opened this test split before is not known" in page


@pytest.mark.slow
def test_a_data_set_without_columns_is_told_and_a_named_column_refused(
    plain: tuple[Path, subprocess.CompletedProcess[str]], ttl_deploy: Run
) -> None:
    here, _ = plain
    done = ttl_deploy("subgroups", "run", cwd=here, blocked=TORCH)
    assert (done.returncode, done.stdout) == (
        0,
        "The data set has no columns besides path, label, patient and split, so there are no subgroups.\n",
    )
    named = ttl_deploy("subgroups", "run", "--by", "sex", cwd=here, blocked=TORCH)
    assert named.returncode == 2
    assert "the data set has none besides path, label, patient and split" in named.stderr
    assert len(RunFolder(here / "run").ledger.of_event("test_opened")) == 1
    assert not (here / "run" / "subgroups.csv").exists()
    assert 'id="subgroups"' not in (here / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_second_search_on_the_same_test_split_is_allowed_and_visible(searched: Made) -> None:
    here, _, (first, second) = searched
    warning = f"this test split has been opened once before by other runs [{here / 'one'} (search, 20"
    assert "has been opened" not in first.stderr
    assert warning in second.stderr
    earlier = [codec.load(EarlierOpenings, here / name / "earlier_openings.json") for name in ("one", "two")]
    assert [len(one.openings) for one in earlier] == [0, 1]
    pages = [(here / name / "report.html").read_text(encoding="utf-8") for name in ("one", "two")]
    assert "No other run on that machine is known to have opened the same images before." in pages[0]
    assert "Other runs had opened the same images once before." in pages[1]
    assert f"{here / 'one'}: <code>ttl-deploy search" in pages[1]
