"""Tables in a terminal or a pipe: the quick way lays out what rich would, and leaves to rich what it cannot."""

import builtins
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normlab.terminal import NARROW, _folded, _plain, table_text

CELLS = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from(sorted(NARROW)), max_size=12)


def tables(columns: int) -> st.SearchStrategy[list[list[str]]]:
    head = st.lists(CELLS.filter(bool), min_size=columns, max_size=columns)
    rows = st.lists(st.lists(CELLS, min_size=columns, max_size=columns), min_size=1, max_size=5)
    return st.tuples(head, rows).map(lambda table: [table[0], *table[1]])


@given(st.integers(1, 5).flatmap(tables), st.data())
def test_a_table_that_fits_is_laid_out_as_rich_does(lines: list[list[str]], data: st.DataObject) -> None:
    numeric = data.draw(st.lists(st.booleans(), min_size=len(lines[0]), max_size=len(lines[0])))
    fits = _plain(lines, numeric, 200, styled=False)
    assert fits == _folded(lines[0], lines[1:], numeric, 200, styled=False)


def test_what_does_not_fit_is_folded() -> None:
    assert "x" * 199 in table_text([{"a": "x" * 199}])
    folded = table_text([{"a": "x" * 150, "b": "y" * 150}])
    assert max(map(len, folded.splitlines())) <= 200
    assert folded.count("x") == folded.count("y") == 150


def test_characters_of_twice_the_width_are_left_to_rich() -> None:
    assert _plain([["a"], ["層"]], [False], 200, styled=False) is None
    head, row = table_text([{"a": "層", "b": 1}]).splitlines()
    assert (head, row) == ("a   b", "層  1")


def test_no_word_becomes_a_picture() -> None:
    assert table_text([{"a": "é :cat:"}]).splitlines()[1] == "é :cat:"


def test_a_head_is_bold_in_a_terminal_alone() -> None:
    assert _plain([["a", "b"], ["1", "x"]], [True, False], 80, styled=True) == "\x1b[1ma  b\x1b[0m\n1  x"
    assert _plain([["a", "b"], ["1", "x"]], [True, False], 80, styled=False) == "a  b\n1  x"
    assert _plain([["a", "b"], ["1", "x"]], [True, False], 3, styled=False) is None


def test_a_table_that_rich_lays_out_is_a_text_in_a_notebook_too(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)
    assert table_text([{"a": "é"}]) == "a\né"


def test_short_tables_need_no_rich() -> None:
    table = "from normlab import terminal; terminal.print_table([{'a − b': 1}])"
    program = f"import sys; {table}; assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
