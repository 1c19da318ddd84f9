"""Reads a large JSON object in pieces: the rows of its lists are handed over one by one, and none of them is kept.

A COCO file of 118,000 images is 450 MB of text and 3 GB of Python objects.  Nothing here needs the whole of either.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from gfldet.errors import DataError
from gfldet.files import opened, told_as

PIECE = 1 << 22  # characters that are read at a time
MANY = 1 << 16  # characters in which objects of a list are decoded at once
_BLANK = " \t\n\r"
_BLANKS = re.compile(f"[{_BLANK}]*")
_DECODER = json.JSONDecoder()
_DECODE = _DECODER.raw_decode
_TRIES = 8  # places at which objects are looked for that end there
_NEAR_END = 16  # a syntax error so near to the end of a piece may be a value that is cut by it


class NotAnObject(DataError):
    """The file is JSON, but not an object."""


def read_lists(file: Path, rows: Mapping[str, Callable[[Any], None]]) -> set[str]:
    """Gives each row of the lists named in `rows` to its function; returns the names of the lists that were found.

    All other members of the object are passed over.  Raises DataError, with the file's name, if the file cannot be
    read, is not valid JSON, or has one of the lists twice, and NotAnObject if it is no object.
    """
    try:
        with told_as(DataError, file), opened(file) as binary:
            encoding = json.detect_encoding(binary.read(4))
            binary.seek(0)
            stream = io.TextIOWrapper(binary, encoding=encoding, errors="surrogatepass", newline="")
            return _read_object(_Cursor(stream), rows)
    except _SyntaxError as error:
        raise DataError(f"{file}:{error.line}: is not valid JSON: {error.reason} (column {error.column})") from None
    except _Twice as error:
        raise DataError(f"{file}: has the list {error} twice; expected it once") from None
    except NotAnObject:
        raise NotAnObject(f"{file}: is not a JSON object") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not valid JSON: it is not {error.encoding} text") from None
    except RecursionError:
        raise DataError(f"{file}: is not valid JSON: its brackets are nested too deep") from None
    except ValueError:  # where Python refuses to read a number
        raise DataError(f"{file}: is not valid JSON: a number has thousands of digits") from None
    except MemoryError:
        raise DataError(f"{file}: cannot be read (a value in it is larger than the free memory)") from None


class _SyntaxError(Exception):
    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(reason)
        self.reason, self.line, self.column = reason, line, column


class _Twice(Exception):
    """A list that the object has twice."""


class _Cursor:
    """A place in the text of a file, of which only the piece around the place is in memory."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text, self._at = "", 0
        self._tried = 0  # up to here objects are decoded one by one
        self._line, self._column = 1, 0  # of the first character of the piece

    def peek(self) -> str:
        """The next character that is not blank; "" at the end of the file."""
        while True:
            character = self._text[self._at : self._at + 1]
            if character in _BLANK:  # also "", the end of the piece
                self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
                character = self._text[self._at : self._at + 1]
            if character or not self._more():
                return character

    def take(self, character: str, reason: str) -> None:
        """Steps over a character; a syntax error if another one is there."""
        if self.peek() != character:
            raise self._error(reason, self._at)
        self._at += 1

    def passes(self, character: str) -> bool:
        """Steps over a character if it is the next one; whether it was."""
        there = self.peek() == character
        self._at += there
        return there

    def values(self) -> list[Any]:
        """The next values of a list, at least one: objects are decoded many at once, which takes half the time."""
        self.peek()
        if self._at >= self._tried:
            self._tried = self._at + MANY
            end = self._end_of_objects(self._tried)
            with suppress(ValueError, RecursionError):  # the end was inside of an object, or there is a mistake
                if end:
                    values: list[Any] = _DECODER.decode(f"[{self._text[self._at : end]}]")
                    self._at = end
                    return values
        return [self.value()]

    def _end_of_objects(self, end: int) -> int:
        """The last place before `end` where one object seems to end and the next one to follow; 0 if there is none."""
        for _ in range(_TRIES):
            end = self._text.rfind("},", self._at, end)
            if end < 0:
                break
            following = _BLANKS.match(self._text, end + 2).end()  # type: ignore[union-attr]
            if self._text[following : following + 1] == "{":
                return end + 1
        return 0

    def value(self) -> Any:
        """The next value, decoded."""
        self.peek()
        while True:
            try:
                value, end = _DECODE(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self._text) - _NEAR_END or error.msg.startswith("Unterminated")
                if cut and self._more():
                    continue
                raise self._error(error.msg, error.pos) from None
            # A number that the piece cuts, such as "1.5e-|3", decodes as 1.5.
            if end < len(self._text) - 2 or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        """Reads the next piece and forgets what lies before the place; False at the end of the file."""
        piece = self._stream.read(max(PIECE, len(self._text) - self._at))
        if not piece:
            return False
        self._line, self._column = self._position(self._at)
        self._text, self._at, self._tried = self._text[self._at :] + piece, 0, 0
        return True

    def _position(self, at: int) -> tuple[int, int]:
        lines = self._text.count("\n", 0, at)
        column = at - self._text.rfind("\n", 0, at) - 1 if lines else self._column + at
        return self._line + lines, column

    def _error(self, reason: str, at: int) -> _SyntaxError:
        line, column = self._position(at)
        return _SyntaxError(reason, line, column + 1)


def _read_object(cursor: _Cursor, rows: Mapping[str, Callable[[Any], None]]) -> set[str]:
    found: set[str] = set()
    if cursor.peek() != "{":
        cursor.value()  # a syntax error has its own message
        raise NotAnObject
    cursor.take("{", "")
    while cursor.peek() != "}":
        if cursor.peek() != '"':
            cursor.take('"', "Expecting property name enclosed in double quotes")
        name = cursor.value()
        cursor.take(":", "Expecting ':' delimiter")
        if cursor.peek() == "[":
            if name in found and name in rows:
                raise _Twice(repr(name))
            found.add(name)
            _read_list(cursor, rows.get(name, _pass_over))
        else:
            cursor.value()
        if cursor.peek() != "}":
            cursor.take(",", "Expecting ',' delimiter")
            if cursor.peek() == "}":
                cursor.take('"', "Expecting property name enclosed in double quotes")
    cursor.take("}", "")
    if cursor.peek():
        cursor.take("", "Extra data")
    return found & set(rows)


def _read_list(cursor: _Cursor, take_row: Callable[[Any], None]) -> None:
    cursor.take("[", "")
    if cursor.peek() == "]":
        cursor.take("]", "")
        return
    while True:
        for row in cursor.values():
            take_row(row)
        if not cursor.passes(","):
            break
    cursor.take("]", "Expecting ',' delimiter")


def _pass_over(row: Any) -> None:
    """A row of a list that nobody asked for."""
