"""Tables on narrow terminals: no line too long, no number broken, nothing left out in silence."""

import contextlib
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ttl_deploy_cli import tables


def printed(columns, rows, *, width, **options):
    """Return the lines that a terminal of so many columns gets."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(tables, "_console", lambda: Console(width=width, file=out, color_system=None))
        tables.print_table(columns, rows, **options)
    return out.getvalue().splitlines()


names = st.text("abcdefghijklmnopqrstuvwxyz_.", min_size=1, max_size=40)
numbers = st.integers(0, 10**9).map(lambda value: f"{value:,}")


@given(st.lists(st.tuples(names, numbers, numbers, numbers, numbers, numbers), min_size=1, max_size=4))
def test_eighty_columns_are_enough_for_any_table(rows):
    columns = ("cut", "parameters", "of the full network", "MACs", "latency ms", "images/s")
    lines = printed(columns, rows, width=80)
    notes = [line for line in lines if line.startswith("left out")]
    table = [line for line in lines if line not in notes]
    assert max(map(len, table)) <= 80
    left_out = re.findall(r"left out, as the terminal is narrow: (.*);", " ".join(notes))
    hidden = set(left_out[0].split(", ")) if left_out else set()
    for at, heading in enumerate(columns):
        assert (heading.split()[0] in " ".join(table)) != (heading in hidden)
        if at and heading not in hidden:
            assert all(row[at] in " ".join(table) for row in rows)


def test_a_wide_terminal_and_a_pipe_get_everything():
    lines = printed(("cut", "params"), [("layer1.0." * 9, "1,234")], width=200)
    assert any("layer1.0." * 9 in line and "1,234" in line for line in lines)
    assert not any("left out" in line for line in lines)


def test_columns_to_keep_go_last():
    columns, rows = ("row", "target", "batch", "threads", "p50 ms"), [("1", "onnxruntime-cpu", "8", "1", "12.345")]
    text = "\n".join(printed(columns, rows, width=40, keep=("p50 ms",)))
    assert "12.345" in text
    assert "left out, as the terminal is narrow: threads; " in text


def test_a_users_text_is_no_markup():
    lines = printed(("class", "n"), [("[bold red]x[/] :smile:", "1")], width=80)
    assert any("[bold red]x[/] :smile:" in line for line in lines)
