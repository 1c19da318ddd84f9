"""What the pages share: one HTML file that holds all it shows and loads nothing; texts of the user's in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from gfldet.errors import plain, shown
from gfldet.writing import write_aside

LONGEST = 700  # letters of a text of the user's

_FILES = Path(__file__).parent / "page"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def document(title: str, kind: str, body: Iterable[str]) -> str:
    """A whole page: its title and the parts of its body as HTML, with the shared style, and the style and script of its
    kind."""
    style = _file("page.css") + _file(f"{kind}.css")
    return "".join(
        (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{style}</style></head><body>",
            *body,
            f"<script>{_file(f'{kind}.js')}</script></body></html>\n",
        )
    )


def _file(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def write_document(path: Path, text: str) -> None:
    """Write a page; OutputError if it cannot be written."""
    write_aside(path, lambda file: file.write(text.encode("utf-8", "xmlcharrefreplace")))


def bytes_of(html: str) -> int:
    """The size of a part of a page in its file."""
    return len(html.encode("utf-8", "xmlcharrefreplace"))


def safe(text: str, longest: int = LONGEST) -> str:
    """A text of the user's as HTML: nothing in it is markup."""
    return escape(plain(shown(text, longest, quoted=False)))


def select(name: str, options: Mapping[str, str]) -> str:
    """A choice among values with their texts, all of them by default."""
    choices = "".join(
        f'<option value="{escape(plain(value))}">{safe(text)}</option>' for value, text in options.items()
    )
    return f'<select id="{name}"><option value="">all</option>{choices}</select>'
