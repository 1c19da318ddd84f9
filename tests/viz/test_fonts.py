"""Letters that matplotlib's own font lacks: a font of the system that has them is used, or it is told that none has."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from gfldet.viz import fonts
from gfldet.viz.plots import plot_confusion

CAT, DOG, NOWHERE = "\u732b", "\u72ac", "\U0001f6f8"


def make_font(file: Path, family: str, letters: str) -> None:
    """A font with a full square for each letter."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system with two small fonts beside matplotlib's own, of which one is broken by now."""
    monkeypatch.setattr(fontManager, "ttflist", [f for f in fontManager.ttflist if f.name == fonts.OWN])
    for family, letters in (("Cats and Dogs", CAT + DOG), ("Cats", CAT), ("Broken", DOG + CAT)):
        file = tmp_path / f"{family}.ttf"
        make_font(file, family, letters)
        fontManager.addfont(file)
    (tmp_path / "Broken.ttf").write_bytes(b"no font")
    fonts._fonts_with.cache_clear()
    yield
    fonts._fonts_with.cache_clear()


def test_own_font_is_enough() -> None:
    assert fonts.fonts_for(["cat", "caf\u00e9", "\u043a\u043e\u0442", "a\tb"]) == fonts.Fonts((fonts.OWN,))


def test_a_font_of_the_system_is_found(system: None) -> None:
    assert fonts.fonts_for([f"a {CAT}", DOG]) == fonts.Fonts((fonts.OWN, "Cats and Dogs"))
    assert fonts.fonts_for([CAT, NOWHERE]).missing == NOWHERE
    assert fonts.fonts_for([NOWHERE]).families == (fonts.OWN,)


def test_the_letters_are_drawn(system: None) -> None:
    """No glyph is missing, also at the ticks, whose texts are made when the figure is drawn."""
    figure = Figure()
    ax = figure.add_subplot()
    ax.set_xticks([0, 1], [CAT, f"a {DOG}"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fonts.use_fonts(figure, fonts.fonts_for([CAT, DOG]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()


def test_a_plot_with_such_names(system: None, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion(tmp_path / "a.png", np.eye(3), [CAT, NOWHERE])
    assert (tmp_path / "a.png").stat().st_size > 1000
