"""Rows as text: nothing is lost, nothing moves the cursor, and every format can be read again."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from client.output import Format, csv_lines, escaped, exact, json_lines, table_lines, text, write_rows
from client.session import exact_number
from client.superset_client import Column, Result

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
values = st.one_of(plain, st.lists(plain, max_size=3), st.dictionaries(st.text(), plain, max_size=3))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[Any]]]:
    names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
    rows = draw(st.lists(st.lists(values, min_size=len(names), max_size=len(names)), max_size=5))
    return names, rows


@given(tables())
def test_csv_is_read_back(table: tuple[list[str], list[list[Any]]]) -> None:
    names, rows = table
    written = "".join(line + "\n" for line in csv_lines(names, rows))
    read = list(csv.reader(io.StringIO(written, newline=""), strict=True))
    assert read == [names, *(["" if value is None else text(value) for value in row] for row in rows)]


@given(tables())
def test_json_is_read_back(table: tuple[list[str], list[list[Any]]]) -> None:
    names, rows = table
    expected = [dict(zip(names, map(exact, row), strict=True)) for row in rows]
    assert json.loads("\n".join(json_lines(names, rows))) == expected


def test_an_integer_that_json_readers_round_is_text() -> None:
    row = [2**53 - 1, 2**53, -(2**63), 12345678901234567890, True, 0.5, [2**53, {"n": 2**60}]]
    (line,) = list(json_lines([*"abcdefg"], [row]))[1:-1]
    assert list(json.loads(line).values()) == [
        *(2**53 - 1, str(2**53), str(-(2**63)), "12345678901234567890", True, 0.5),
        [str(2**53), {"n": str(2**60)}],
    ]


@pytest.mark.parametrize(
    "digits", ["12345678901234567890.123456789", "0.12345678901234567890", "-9007199254740993.5", "1" + "0" * 300 + ".5"]
)
def test_a_decimal_that_no_double_has_is_written_with_all_its_digits(digits: str) -> None:
    number = exact_number(digits)
    assert number == Decimal(digits)
    (line,) = list(json_lines(["a"], [[number]]))[1:-1]
    assert json.loads(line) == {"a": digits}
    assert list(csv_lines(["a"], [[number]])) == ["a", digits]
    assert list(table_lines(["a", "b"], [[number, "x"]]))[-1] == f"{digits} | x"


@pytest.mark.parametrize("digits", ["0.5", "1.10", "0.1", "1e22", "0.30000000000000004", "1.7976931348623157e308"])
def test_a_decimal_that_a_double_has_stays_a_number(digits: str) -> None:
    number = exact_number(digits)
    assert isinstance(number, float)
    assert json.loads(list(json_lines(["a"], [[number]]))[1]) == {"a": float(digits)}


@given(tables())
def test_a_table_is_aligned_and_harmless(table: tuple[list[str], list[list[Any]]]) -> None:
    names, rows = table
    lines = list(table_lines(names, rows))
    assert len(lines) == 2 + len(rows)
    edges = [at for at, mark in enumerate(lines[1]) if mark == "+"]
    for line in (lines[0], *lines[2:]):
        assert all(unicodedata.category(char) not in ("Cc", "Zl", "Zp") for char in line)
        cells, column = set[int](), 0
        for char in line:
            if char == "|":
                cells.add(column)
            column += cell_len(char)
        # Trailing blanks are cut; what is left of a line has its separators where the rule has them.
        assert {edge for edge in edges if edge < column} <= cells


ROW: dict[str, Any] = {
    "id": 7,
    "name": "Zoë, 日本\nline two",
    "nothing": None,
    "empty": "",
    "quote": 'say "hi"',
    "share": 0.1,
    "big": "9007199254740993",
    "yes": True,
    "nested": {"a": [1, None, "é"]},
    "on": "2026-11-23T05:06:30.721250+00:00",
    "padded": " x ",
}
WRITTEN = {
    Format.TABLE: (
        "id | name                | nothing | empty | quote    | share | big              | yes  | nested"
        "                | on                               | padded\n"
        "---+---------------------+---------+-------+----------+-------+------------------+------+--------"
        "---------------+----------------------------------+-------\n"
        ' 7 | Zoë, 日本\\nline two | NULL    |       | say "hi" |   0.1 | 9007199254740993 | true | {"a": [1,'
        ' null, "é"]} | 2026-11-23T05:06:30.721250+00:00 |  x\n'
    ),
    Format.CSV: (
        "id,name,nothing,empty,quote,share,big,yes,nested,on,padded\n"
        '7,"Zoë, 日本\nline two",,"","say ""hi""",0.1,9007199254740993,true,"{""a"": [1, null, ""é""]}",'
        '2026-11-23T05:06:30.721250+00:00," x "\n'
    ),
    Format.JSON: (
        '[\n{"id": 7, "name": "Zoë, 日本\\nline two", "nothing": null, "empty": "", "quote": "say \\"hi\\"", "share": 0.1, '
        '"big": "9007199254740993", "yes": true, "nested": {"a": [1, null, "é"]}, '
        '"on": "2026-11-23T05:06:30.721250+00:00", "padded": " x "}\n]\n'
    ),
}


@pytest.mark.parametrize("kind", Format)
def test_odd_values(kind: Format) -> None:
    stream = io.StringIO()
    write_rows(Result(tuple(Column(name, None) for name in ROW), [ROW], cut=False), kind, stream)
    assert stream.getvalue() == WRITTEN[kind]


@pytest.mark.parametrize(("kind", "written"), [(Format.TABLE, ""), (Format.CSV, ""), (Format.JSON, "[]\n")])
def test_a_statement_without_columns(kind: Format, written: str) -> None:
    stream = io.StringIO()
    write_rows(Result((), [], cut=False), kind, stream)
    assert stream.getvalue() == written


def test_the_columns_order_rows_not_the_rows_themselves() -> None:
    stream = io.StringIO()
    write_rows(Result((Column("b", None), Column("a", None)), [{"a": 1, "b": 2}, {"b": 3}], cut=False), Format.CSV, stream)
    assert stream.getvalue() == "b,a\n2,1\n3,\n"


def test_messages_of_the_server_cannot_steer_the_terminal() -> None:
    assert escaped("line 1\n\x1b[31mred\x07 \u202etxt\u2028") == "line 1\n\\x1b[31mred\\x07 \\u202etxt"
