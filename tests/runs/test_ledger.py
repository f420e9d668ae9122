"""The ledger keeps whole facts, cuts off a torn end, and refuses other damage."""

from pathlib import Path

import pytest

from ttl_deploy.errors import DataError
from ttl_deploy.runs.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(3):
        ledger.append("trial_finished", f"cut{number}", {"score": 0.5 + number})
    return ledger


def test_entries_come_back_in_order(ledger: Ledger) -> None:
    assert [(entry.key, entry.content["score"]) for entry in ledger.entries()] == [
        ("cut0", 0.5),
        ("cut1", 1.5),
        ("cut2", 2.5),
    ]


def test_a_fact_is_written_once(ledger: Ledger) -> None:
    before = ledger.path.read_bytes()
    ledger.append("trial_finished", "cut1", {"score": 99.0})
    assert ledger.path.read_bytes() == before


def test_a_line_torn_at_any_byte_is_cut_off_and_the_rest_stays(ledger: Ledger) -> None:
    whole = ledger.path.read_bytes()
    two_lines = whole[: whole.rindex(b"\n", 0, -1) + 1]
    for size in range(len(two_lines) + 1, len(whole)):
        ledger.path.write_bytes(whole[:size])
        assert ledger.repair()
        assert ledger.path.read_bytes() == two_lines


def test_a_whole_ledger_needs_no_repair(ledger: Ledger) -> None:
    assert not ledger.repair()


def test_a_changed_byte_before_the_last_line_is_refused(ledger: Ledger) -> None:
    content = bytearray(ledger.path.read_bytes())
    content[content.index(b"0.5")] = ord("9")
    ledger.path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="line 1 is damaged"):
        ledger.entries()


def test_a_missing_ledger_is_empty(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none.jsonl").entries() == ()
