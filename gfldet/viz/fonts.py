"""Fonts of the system for plots, where matplotlib's own lacks the letters of a class name, as it does Chinese ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = "DejaVu Sans"  # comes with matplotlib
_NO_LETTERS = ("Last Resort", "Adobe Blank")  # fonts that draw a box for every letter there is
MOST = 5  # families of the system for one plot


@dataclass(frozen=True, slots=True)
class Fonts:
    """Font families to try in turn, and the letters that none of them has."""

    families: tuple[str, ...]
    missing: str = ""


def fonts_for(texts: Sequence[str]) -> Fonts:
    """Fonts that have all letters of some texts, as far as there are such in the system."""
    return _fonts_with(frozenset(c for c in "".join(texts) if not c.isascii() and c.isprintable()))


def use_fonts(figure: Figure, fonts: Fonts) -> None:
    """Draws all texts of a figure, so far as they exist, with these fonts."""
    if len(fonts.families) < 2:
        return
    from matplotlib.text import Text

    figure.draw_without_rendering()  # the texts beside the axes are made now
    for text in figure.findobj(Text):
        text.set_fontfamily(list(fonts.families))


@lru_cache(100)  # the same names stand in every plot of a run
def _fonts_with(letters: frozenset[str]) -> Fonts:
    """The fewest families that hold the letters, chosen one by one: the next has most of those that are missing."""
    if not letters:
        return Fonts((OWN,))
    from matplotlib.font_manager import findfont, fontManager

    families, missing = [OWN], letters - _letters_of(findfont(OWN))
    if missing:
        files = {font.name: font.fname for font in fontManager.ttflist if not font.name.startswith(_NO_LETTERS)}
        known = {name: missing & _letters_of(file) for name, file in sorted(files.items()) if name != OWN}
        while missing and len(families) <= MOST and known:
            best = max(known, key=lambda name: len(known[name] & missing))
            if not known[best] & missing:
                break
            families.append(best)
            missing -= known.pop(best)
    return Fonts(tuple(families), "".join(sorted(missing)))


def _letters_of(file: str) -> frozenset[str]:
    """The letters that a font file can draw; none if it cannot be read, or holds pictures of one size alone."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(file)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()
