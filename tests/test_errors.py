"""What stands in messages: values of any kind and size, bounded, and nothing that steers a terminal."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfldet.errors import LONGEST_LINE, DataError, counted, plain, shown, worded

REPEATED = settings(max_examples=40, derandomize=True, database=None, deadline=None)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def laughs(make: Any) -> Any:
    """A value of 40 levels, each of which holds the one below four times."""
    value = make("x")
    for _ in range(40):
        value = make(value)
    return value


@pytest.mark.parametrize(
    "make",
    [
        lambda x: [x, x, x, x],
        lambda x: (x, x, x, x),
        lambda x: {"a": x, "b": x, "c": x},
        lambda x: OrderedDict(a=x, b=[x, x]),
    ],
)
def test_values_that_unfold_without_an_end(make: Any) -> None:
    assert len(shown(laughs(make))) <= 80


def test_values_of_every_kind() -> None:
    assert shown(10**5000) == "a number of 16610 bits"
    assert shown([1, 2.5, None, True, "a'b", (1,), {"k": []}]) == "[1, 2.5, None, True, \"a'b\", (1,), {'k': []}]"
    assert shown("x" * 500) == "'" + "x" * 76 + "..."
    assert shown(b"\0" * 1_000_000, 10) == "b'\\x00\\..."
    assert shown({1, 2}) == "a set"
    assert shown("a\x1b[31m\nb", quoted=False) == "a\\x1b[31m\\nb"
    itself: list[Any] = []
    itself.append(itself)
    assert shown(itself) == "[[[[...]]]]"


@given(VALUES, st.integers(10, 200))
@REPEATED
def test_it_is_repr_where_that_is_short(value: Any, most: int) -> None:
    text = shown(value, most)
    assert len(text) <= most
    assert text.isprintable()
    if len(repr(value)) <= most and "..." not in text:
        assert text == repr(value)


@given(st.text(max_size=40))
@REPEATED
def test_messages_are_plain(text: str) -> None:
    told = str(DataError(text))
    assert told == plain(text)
    assert all(c.isprintable() or c in "\n\t" for c in told)
    told.encode()
    if text.isprintable():
        assert told == text


def test_lines_are_cut_in_their_middle() -> None:
    told = plain("a" * 100_000 + "end\nnext")
    assert told.endswith("aend\nnext")
    assert " ... " in told
    assert len(told) < LONGEST_LINE + 20


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("rtsp://joe:secret@10.0.0.9:554/x", "rtsp://joe:***@10.0.0.9:554/x"),
        ("http://joe:se%40c/r:t@host/a.jpg?b=1", "http://joe:***@host/a.jpg?b=1"),
        ("rtsp://:12345@cam/1", "rtsp://:***@cam/1"),
        ("http:/joe:secret@host/best.pt", "http:/joe:***@host/best.pt"),
        ("rtsp://cam:554/user=joe&password=secret&channel=1", "rtsp://cam:554/user=joe&password=***&channel=1"),
        ("https://host/x?Token=secret", "https://host/x?Token=***"),
        ("https://host:8080/me@home.jpg", "https://host:8080/me@home.jpg"),
        ("https://host/a:b/c.jpg", "https://host/a:b/c.jpg"),
        ("C:/me:you@home.jpg", "C:/me:you@home.jpg"),
    ],
)
def test_passwords_in_addresses_are_not_told(address: str, told: str) -> None:
    assert plain(f"a\n{address}: b") == f"a\n{told}: b"
    assert str(DataError(f"{address!r}, 'b@c'")) == f"{told!r}, 'b@c'"
    assert shown(address, quoted=False) == told


def test_addresses_without_an_end_take_no_time() -> None:
    assert plain("x://a:" * 2000).startswith("x://a:x://a:")


def test_one_is_told_in_the_singular() -> None:
    assert [counted(n, "box") for n in (0, 1, 2)] == ["0 boxes", "1 box", "2 boxes"]
    assert [counted(n, "class") for n in (1, 1203)] == ["1 class", "1,203 classes"]
    assert [counted(n, "epoch") for n in (1, 60)] == ["1 epoch", "60 epochs"]


def test_the_words_after_a_number_go_with_it() -> None:
    text = "box(es) of image(s) [was|were] kept as [it is|they are]"
    assert worded(1, text) == "1 box of image was kept as it is"
    assert worded(1200, text) == "1,200 boxes of images were kept as they are"
