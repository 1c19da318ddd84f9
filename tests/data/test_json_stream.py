"""Large JSON row by row: the same values as json.loads whatever the pieces, errors with line and column."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from gfldet.data import json_stream
from gfldet.data.json_stream import NotAnObject, read_lists
from gfldet.errors import DataError

DOCUMENT = {
    "info": {"year": 2017, "note": 'a "word" and ünïcode 图'},
    "number": -12345.678e-3,
    "rows": [{"id": 12345, "box": [1.5, -2, 3e3, 0.25]}, "text, [with] {signs}", 1234567, True, None, [], {}, -0.5],
    "passed over": [[1, [2]], {"rows": [9]}],
    "empty": [],
    "flag": False,
}


def rows_of(file) -> tuple[list[Any], set[str]]:
    rows: list[Any] = []
    found = read_lists(file, {"rows": rows.append, "empty": rows.append, "missing": rows.append})
    return rows, found


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_any_size_of_the_pieces_gives_the_same_rows(text, monkeypatch, piece: int, indent: int | None) -> None:
    monkeypatch.setattr(json_stream, "PIECE", piece)
    for ascii_only in (True, False):
        file = text("a.json", json.dumps(DOCUMENT, indent=indent, ensure_ascii=ascii_only))
        assert rows_of(file) == (DOCUMENT["rows"], {"rows", "empty"})


@pytest.mark.parametrize("many", [0, 20, 90, 1 << 16])
@pytest.mark.parametrize("piece", [50, 1 << 20])
def test_objects_that_are_decoded_together_are_the_same(text, monkeypatch, many: int, piece: int) -> None:
    """Also where the end of an object stands in a text, or of an object that is inside of another."""
    monkeypatch.setattr(json_stream, "PIECE", piece)
    monkeypatch.setattr(json_stream, "MANY", many)
    rows = [{"id": n, "text": "a}, {b" * (n % 3), "inside": [{"x": n}, {"y": {}}][: n % 4]} for n in range(40)]
    rows[20:20] = [7, [{"a": 1}, {"b": 2}], "}, {"]
    for indent in (None, 1):
        assert rows_of(text("a.json", json.dumps({"rows": rows, "empty": []}, indent=indent)))[0] == rows


def test_a_mistake_after_many_objects_has_its_place(text) -> None:
    good = ",\n".join(json.dumps({"id": n, "box": [n, 2, 3, 4]}) for n in range(500))
    rows: list[dict[str, Any]] = []
    file = text("a.json", f'{{"rows": [{good},\n{{"id": tru}}, {{"id": 1}}, {{"id": 2}}]}}')
    with pytest.raises(DataError, match=r"a\.json:501: is not valid JSON: Expecting value \(column 8\)"):
        read_lists(file, {"rows": rows.append})
    assert [row["id"] for row in rows] == list(range(500))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_the_encodings_of_json(tmp_path, encoding: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(DOCUMENT, ensure_ascii=False), encoding=encoding)
    assert rows_of(file)[0] == DOCUMENT["rows"]


@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        '{"rows": [1, 2',
        '{"rows": [1 2]}',
        '{"rows": [1,\n 2],\n ]',
        '{"rows": [{"a": 1,\n "b": tru}]}',
        '{"rows": [{"a": "no end}]}',
        '{"rows" [1]}',
        '{"a": 1, "rows": [1]} x',
        '{"rows": [1],}',
        '{"rows": [1,]}',
        "[1, 2",
        '{"rows": ["\\x"]}',
        "{rows: [1]}",
    ],
)
def test_a_syntax_error_has_its_line(text, monkeypatch, piece: int, broken: str) -> None:
    monkeypatch.setattr(json_stream, "PIECE", piece)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(broken)
    with pytest.raises(DataError, match="is not valid JSON") as caught:
        rows_of(text("a.json", broken))
    assert f"a.json:{expected.value.lineno}: " in str(caught.value)
    assert "(column " in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "null"])
def test_what_is_no_object(text, content: str) -> None:
    with pytest.raises(NotAnObject, match=r"a\.json: is not a JSON object"):
        rows_of(text("a.json", content))


def test_numbers_and_depth_beyond_reason_name_the_file(text) -> None:
    for content in ("9" * 5000, "[" * 200_000, '{"a":' * 200_000):
        with pytest.raises(DataError, match=r"a\.json: is not valid JSON"):
            rows_of(text("a.json", f'{{"rows": [{content}]}}'))


def test_a_list_that_comes_twice(text) -> None:
    with pytest.raises(DataError, match="has the list 'rows' twice"):
        rows_of(text("a.json", '{"rows": [1], "rows": [2]}'))


def test_rows_are_not_kept(text, monkeypatch) -> None:
    monkeypatch.setattr(json_stream, "PIECE", 1 << 14)
    file = text("a.json", json.dumps({"rows": [{"id": n, "values": [n + 0.5] * 40} for n in range(4000)]}))
    tracemalloc.start()
    try:
        read_lists(file, {"rows": lambda row: None})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400_000, f"{peak} bytes for a file of {file.stat().st_size}"
