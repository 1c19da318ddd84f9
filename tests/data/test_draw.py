"""What is drawn for a sample: its laws, and that it can be printed, kept and replayed."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gfldet.data.augment import apply
from gfldet.data.draw import NO_AUGMENTATION, Augmentation, Colour, Drawn, Layout, Placed, draw
from gfldet.data.sample import Sample

STRONG = Augmentation(0.5, 0.5, 0.1, 0.7, 0.4, 30.0, 0.2, 0.5, 10.0, 0.3, 0.5)
N = 4000


def many(strengths: Augmentation, count: int = N, images: int = 10) -> list[Drawn]:
    return [draw(3, images, strengths, np.random.default_rng((0, number))) for number in range(count)]


def uniform(values: list[float], low: float, high: float) -> None:
    """The values fill the range evenly: ends, mean and quartiles are where those of a uniform law are."""
    found, width = np.array(values), high - low
    assert low <= found.min() < low + 0.02 * width
    assert high - 0.02 * width < found.max() <= high
    expected = low + width * np.array([0.25, 0.5, 0.75])
    np.testing.assert_allclose(np.quantile(found, [0.25, 0.5, 0.75]), expected, atol=0.05 * width)


def test_laws_of_a_single_image() -> None:
    drawn = [one.layout.images[0] for one in many(replace(STRONG, mosaic=0.0))]
    assert {placed.image for placed in drawn} == {3}
    uniform([placed.scale for placed in drawn], 0.5, 1.5)
    uniform([placed.degrees for placed in drawn], -30, 30)
    for axis in (0, 1):
        uniform([placed.shear[axis] for placed in drawn], -10, 10)
        uniform([placed.shift[axis] for placed in drawn], -0.2, 0.2)
    assert np.mean([placed.mirrored for placed in drawn]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([placed.flipped for placed in drawn]) == pytest.approx(0.3, abs=0.03)
    both = np.corrcoef([placed.shift for placed in drawn], rowvar=False)
    assert abs(both[0, 1]) < 0.06  # the two directions have nothing to do with each other


def test_laws_of_a_mosaic() -> None:
    drawn = [one.layout for one in many(replace(STRONG, mosaic=1.0))]
    assert {len(layout.images) for layout in drawn} == {4}
    assert {layout.images[0].image for layout in drawn} == {3}
    others = np.bincount([placed.image for layout in drawn for placed in layout.images[1:]], minlength=10)
    np.testing.assert_allclose(others / others.sum(), 0.1, atol=0.015)
    for axis in (0, 1):
        uniform([layout.centre[axis] for layout in drawn if layout.centre], 0.2, 0.8)
        uniform([layout.images[2].shift[axis] for layout in drawn], 0, 1)


def test_laws_of_mixup_and_colours() -> None:
    drawn = many(STRONG)
    assert np.mean([one.layout.centre is not None for one in drawn]) == pytest.approx(0.5, abs=0.03)
    mixed = [one for one in drawn if one.other is not None]
    assert len(mixed) / N == pytest.approx(0.5, abs=0.03)
    share = np.array([one.share for one in mixed])
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.std() == pytest.approx((1 / (4 * 17)) ** 0.5, abs=0.01)  # of beta(8, 8)
    assert {one.share for one in drawn if one.other is None} == {1.0}
    seconds = np.bincount([one.other.images[0].image for one in mixed if one.other], minlength=10)
    np.testing.assert_allclose(seconds / seconds.sum(), 0.1, atol=0.025)
    colours = [one.colour for one in drawn if one.colour]
    assert len(colours) == N
    uniform([colour.hue for colour in colours], -0.2 * np.pi, 0.2 * np.pi)
    uniform([colour.saturation for colour in colours], 0.3, 1.7)
    uniform([colour.value for colour in colours], 0.6, 1.4)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Augmentation)])
def test_what_is_switched_off_shifts_nothing_else(name: str) -> None:
    """Every strength that is on keeps its draws, whichever other is off."""
    full = draw(3, 10, replace(STRONG, mosaic=1.0, mixup=1.0), np.random.default_rng(5))
    less = draw(3, 10, replace(STRONG, **{"mosaic": 1.0, "mixup": 1.0, name: 0.0}), np.random.default_rng(5))
    own: dict[str, Any] = {
        "scale": {"scale": 1.0},
        "degrees": {"degrees": 0.0},
        "shear": {"shear": (0.0, 0.0)},
        "fliplr": {"mirrored": False},
        "flipud": {"flipped": False},
    }.get(name, {})

    def without(layout: Layout) -> Layout:
        return replace(layout, images=tuple(replace(placed, **own) for placed in layout.images))

    def flat(layout: Layout) -> tuple[Any, ...]:
        return tuple((p.image, round(p.scale, 9), p.degrees, p.shear, p.mirrored, p.flipped) for p in layout.images)

    if name == "mosaic":
        assert less.layout.centre is None
        assert flat(less.layout) == flat(full.layout)[:1]
    else:
        assert flat(less.layout) == flat(without(full.layout))
        assert less.layout.centre == full.layout.centre
    if name == "mixup":
        assert less.other is None
    else:
        assert less.share == full.share
    if name.startswith("hsv"):
        assert less.colour != full.colour
    else:
        assert less.colour == full.colour


def test_nothing_is_drawn_where_all_is_off() -> None:
    assert draw(3, 10, NO_AUGMENTATION, np.random.default_rng(0)) == Drawn(Layout((Placed(3),)))


def from_plain(plain: dict[str, Any]) -> Drawn:
    """A record out of what JSON keeps of it."""

    def layout(given: dict[str, Any] | None) -> Layout | None:
        if given is None:
            return None
        pairs = ("shear", "shift")
        images = [Placed(**{k: tuple(v) if k in pairs else v for k, v in one.items()}) for one in given["images"]]
        return Layout(tuple(images), tuple(given["centre"]) if given["centre"] else None)

    first = layout(plain["layout"])
    assert first is not None
    colour = Colour(**plain["colour"]) if plain["colour"] else None
    return Drawn(first, layout(plain["other"]), plain["share"], colour)


def test_a_record_is_kept_and_replayed() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (40 + 3 * i, 50 + 7 * i, 3), np.uint8) for i in range(10)]
    boxes = np.array([[5, 6, 30, 33]], np.float32)

    def source(image: int) -> Sample:
        return Sample(pictures[image], boxes, np.array([image]), boxes[:0])

    for drawn in many(STRONG, 20):
        again = from_plain(json.loads(json.dumps(dataclasses.asdict(drawn))))
        assert again == drawn
        a, b = apply(drawn, source, (64, 96)), apply(again, source, (64, 96))
        assert (a.image == b.image).all()
        assert a.boxes.tolist() == b.boxes.tolist()
        assert a.classes.tolist() == b.classes.tolist()
