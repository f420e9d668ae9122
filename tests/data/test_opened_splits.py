"""The register of opened test splits: other runs are seen, a run's own are not, and nothing wrong with it stops one."""

import hashlib
import json
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttl_deploy.data import opened_splits
from ttl_deploy.data.cache_root import cache_folder
from ttl_deploy.data.manifest_files import save_manifest
from ttl_deploy.records import codec, trials
from ttl_deploy.records.data import Manifest, Sample, Split
from ttl_deploy.records.openings import EarlierOpenings, KnownOpening
from ttl_deploy.runs.folder import RunFolder

OPENING = trials.TestOpening(split="test", command="ttl-deploy search --data films", trials=("full__full__s0",))


def make_manifest(test_images: tuple[str, ...]) -> Manifest:
    names: list[tuple[str, Split]] = [("a", "train"), ("b", "train"), *((name, "test") for name in test_images)]
    samples = tuple(
        Sample(
            path=f"{name}.png",
            label=number % 2,
            patient_id=f"patient {name}",
            split=split,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
        )
        for number, (name, split) in enumerate(names)
    )
    return Manifest(
        name="films", root="/films", reader="table", classes=("no", "yes"), samples=samples, patients_known=True
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_run(path: Path, *, test_images: tuple[str, ...] = ("x", "y", "z")) -> RunFolder:
    save_manifest(make_manifest(test_images), path / "data")
    return RunFolder(path)


def register() -> Path:
    return cache_folder("test-openings") / "register.jsonl"


def earlier(run: RunFolder) -> EarlierOpenings:
    return codec.load(EarlierOpenings, run.earlier_openings)


def test_the_first_search_knows_of_none_and_the_second_of_the_first(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    assert opened_splits.open_for_search(first, OPENING) == ()
    (told,) = opened_splits.open_for_search(second, OPENING)
    assert earlier(first).openings == ()
    (known,) = earlier(second).openings
    assert (known.run, known.by, known.command) == (str(first.path), "search", OPENING.command)
    assert told.startswith(f"this test split has been opened once before by other runs [{first.path} (search, 20")
    assert "the more often it is looked at, the less it proves" in told


def test_the_ledger_is_the_same_whoever_looked_before(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        run = make_run(tmp_path / name)
        opened_splits.open_for_search(run, OPENING)
        contents.append([(entry.event, entry.key, entry.content) for entry in run.ledger.entries()])
    assert contents[0] == contents[1]


def test_other_test_images_are_another_split(tmp_path: Path) -> None:
    opened_splits.open_for_search(make_run(tmp_path / "first"), OPENING)
    other = make_run(tmp_path / "second", test_images=("x", "y"))
    assert opened_splits.open_for_search(other, OPENING) == ()


def test_a_search_that_is_typed_again_records_nothing_and_is_not_its_own_predecessor(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    opened_splits.open_for_search(run, OPENING)
    files = {path: path.read_bytes() for path in (run.ledger.path, run.earlier_openings, register())}
    assert opened_splits.open_for_search(run, OPENING) == ()
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("left", ["nothing", "the record", "the record and the register"])
def test_a_search_killed_on_the_way_is_counted_once(left: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    opened_splits.open_for_search(run, OPENING)
    run.ledger.path.unlink()
    if left != "the record and the register":
        register().unlink()
    if left == "nothing":
        run.earlier_openings.unlink()
    assert opened_splits.open_for_search(run, OPENING) == ()
    later = make_run(tmp_path / "later")
    opened_splits.open_for_search(later, OPENING)
    assert len(earlier(later).openings) == 1
    assert len(run.ledger.of_event("test_opened")) == 1


def test_a_run_that_was_deleted_and_made_again_in_its_place_is_another_one(tmp_path: Path) -> None:
    for times in range(3):
        run = make_run(tmp_path / "run")
        told = opened_splits.open_for_search(run, OPENING)
        assert len(earlier(run).openings) == times
        assert bool(told) == bool(times)
        shutil.rmtree(run.path)


def test_uses_by_other_commands_stand_in_ledger_and_register(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    opened_splits.open_for_search(run, OPENING)
    for command in ("compare", "subgroups", "compare"):
        assert opened_splits.record_use(run, OPENING, by=command) == ()
    keys = [entry.key.partition("-")[0] for entry in run.ledger.of_event("test_opened")]
    later = make_run(tmp_path / "later")
    opened_splits.open_for_search(later, OPENING)
    assert keys == [one.by for one in earlier(later).openings] == ["search", "compare", "subgroups", "compare"]
    again = make_run(tmp_path / "run")
    assert opened_splits.open_for_search(again, OPENING) == ()  # its own uses are no one else's


def test_a_run_of_an_older_version_is_known_by_its_path(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old")
    opened_splits.record_use(old, OPENING, by="compare")
    assert not old.earlier_openings.exists()
    assert opened_splits.open_for_search(old, OPENING) == ()
    (told,) = opened_splits.open_for_search(make_run(tmp_path / "new"), OPENING)
    assert "opened 2 times before" in told


def test_the_register_holds_no_patient_path_or_hash_of_an_image(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    opened_splits.open_for_search(run, OPENING)
    text = register().read_text()
    for sample in make_manifest(("x", "y", "z")).samples:
        assert sample.path not in text
        assert sample.patient_id not in text
        assert sample.sha256 not in text
    digest = hashlib.sha256(
        "\n".join(sorted(hashlib.sha256(name.encode()).hexdigest() for name in "xyz")).encode()
    ).hexdigest()
    assert json.loads(text)["test_sha256"] == digest


def test_without_test_images_nothing_is_compared(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert opened_splits.open_for_search(make_run(tmp_path / name, test_images=()), OPENING) == ()


@pytest.mark.parametrize(
    "line",
    [b"not json\n", b'{"test_sha256": 1}\n', b"[]\n", b"\xff\xfe\x00\n", b'{"torn": "lin', b"[" * 100_000 + b"\n"],
    ids=["text", "wrong type", "list", "no UTF-8", "torn", "deep"],
)
def test_damaged_lines_are_passed_over_and_told(line: bytes, tmp_path: Path) -> None:
    opened_splits.open_for_search(make_run(tmp_path / "first"), OPENING)
    with register().open("ab") as file:
        file.write(line)
    told = opened_splits.open_for_search(make_run(tmp_path / "second"), OPENING)
    assert len(told) == 2
    assert f"1 lines of {register()} are damaged" in told[1]
    third = make_run(tmp_path / "third")
    opened_splits.open_for_search(third, OPENING)
    assert len(earlier(third).openings) == 2
    assert "damaged" in earlier(third).note


def test_a_register_that_cannot_be_used_is_told_and_stops_nothing(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    run = make_run(tmp_path / "run")
    told = opened_splits.open_for_search(run, OPENING)
    assert [sentence.partition(":")[0] for sentence in told] == [
        "whether other runs opened this test split before is not known",
        "this opening of the test split could not be noted for later runs",
    ]
    assert len(run.ledger.of_event("test_opened")) == 1
    assert len(opened_splits.record_use(run, OPENING, by="compare")) == 1


def test_a_register_that_is_a_folder_stops_nothing(tmp_path: Path) -> None:
    register().mkdir()
    assert len(opened_splits.open_for_search(make_run(tmp_path / "run"), OPENING)) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_register_that_is_read_only_is_read(tmp_path: Path) -> None:
    opened_splits.open_for_search(make_run(tmp_path / "first"), OPENING)
    register().chmod(stat.S_IRUSR)
    told = opened_splits.open_for_search(make_run(tmp_path / "second"), OPENING)
    assert "opened once before" in told[0]
    assert "could not be noted" in told[1]


def test_openings_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"run{number}") for number in range(8)]
    threads = [threading.Thread(target=opened_splits.open_for_search, args=(run, OPENING)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = make_run(tmp_path / "last")
    opened_splits.open_for_search(last, OPENING)
    assert len(earlier(last).openings) == len(runs)


def test_a_damaged_record_in_the_run_folder_is_made_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.earlier_openings.write_text("{")
    opened_splits.open_for_search(run, OPENING)
    assert len(earlier(run).run_id) == 32


def test_many_openings_are_counted_and_the_latest_named() -> None:
    known = [
        KnownOpening(
            test_sha256="0",
            run_id=str(number),
            run=f"/runs/{number}",
            key="search",
            command="",
            time=f"2026-01-{number:02}T00:00:00",
        )
        for number in range(1, 9)
    ]
    told = opened_splits.tell_earlier(known)
    assert "opened 8 times before" in told
    assert "/runs/3 " not in told
    assert "[…; /runs/4 (search, 2026-01-04); " in told


@given(order=st.permutations(["x", "y", "z", "x"]))
def test_the_digest_depends_on_the_images_alone(order: list[str]) -> None:
    given_order, sorted_order = make_manifest(tuple(order)), make_manifest(("x", "y", "z"))
    assert opened_splits.digest_test_images(given_order) == opened_splits.digest_test_images(sorted_order)


def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    strange = trials.TestOpening(split="test", command="ttl-deploy search --data films\udcff", trials=())
    run = make_run(tmp_path / "run")
    assert opened_splits.record_use(run, OPENING, by="compare") == ()
    assert "?" in opened_splits._known(run, strange, key="search", run_id="", digest="0").command
