"""Rows with keypoints: their box is read where the YAML says so, and they are never taken for polygons in silence."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from gfldet.data.formats.keypoints import LongRows
from gfldet.data.formats.yolo import read_labels
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.errors import DataError

SHAPES = [(1, 2), (2, 2), (4, 2), (12, 2), (17, 2), (1, 3), (2, 3), (5, 3), (17, 3), (24, 3)]
Rows = Callable[[np.random.Generator], list[float]]


def keypoints(rng: np.random.Generator, shape: tuple[int, int], side: float) -> list[float]:
    """A box of about `side`, somewhere in the image, with points in it, of which some are not seen."""
    w, h = rng.uniform(0.6, 1, 2) * side
    x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
    points = np.array([x, y]) + rng.uniform(-0.5, 0.5, (shape[0], 2)) * (w, h)
    if shape[1] == 3:
        seen = rng.integers(0, 3, (shape[0], 1))
        points = np.hstack([points * (seen > 0), seen])
    return [x, y, w, h, *points.ravel().tolist()]


def polygon(rng: np.random.Generator, corners: int, side: float) -> list[float]:
    """A star-shaped polygon with its corners in order."""
    centre, angles = rng.uniform(side / 2, 1 - side / 2, 2), np.sort(rng.uniform(0, 2 * math.pi, corners))
    reach = rng.uniform(0.6, 1, (corners, 1)) * side / 2
    return (centre + reach * np.column_stack([np.cos(angles), np.sin(angles)])).ravel().tolist()


def rotated(rng: np.random.Generator, side: float) -> list[float]:
    """The corners of a rotated box."""
    centre, angle, half = rng.uniform(side, 1 - side, 2), rng.uniform(0, 7), rng.uniform(0.2, 0.7, 2) * side
    along = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    return (centre + corners @ along).ravel().tolist()


def seen_in(rows: list[list[float]]) -> tuple[int, int] | None:
    long_rows = LongRows()
    for number, row in enumerate(rows, 1):
        one = LongRows()
        one.add(row, f"a.txt:{number}")
        long_rows.update(one)
    found = long_rows.keypoints()
    return found and found[1]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] * shape[1] % 2 == 0])
@pytest.mark.parametrize("side", [0.05, 0.3])
def test_rows_of_keypoints_are_seen(shape: tuple[int, int], side: float) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        assert seen_in([keypoints(rng, shape, side) for _ in range(20)]) == shape


@pytest.mark.parametrize("shape", [(12, 2), (17, 2), (6, 3)])
def test_also_where_objects_fill_the_image_and_points_lie_outside(shape: tuple[int, int]) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows = [keypoints(rng, shape, 0.95) for _ in range(30)]
        rows[7][4] = 3 * rows[7][0] + 1
        assert seen_in(rows) == shape


@pytest.mark.parametrize("side", [0.02, 0.1, 0.4, 0.8])
@pytest.mark.parametrize("corners", [3, 4, 5, 6, 8, 20, 150])
def test_polygons_are_not(corners: int, side: float) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        assert seen_in([polygon(rng, corners, side) for _ in range(10)]) is None


@pytest.mark.parametrize("side", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("count", [1, 2])
def test_nor_are_a_few_irregular_corners(count: int, side: float) -> None:
    """A box in perspective, and a simple polygon of more corners, whichever of them comes first."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = [rotated(rng, side) for _ in range(count)]
        bend = 0.15 * min(math.dist(row[:2], corner) for row in rows for corner in (row[2:4], row[6:]))
        assert seen_in([[value + rng.uniform(-bend, bend) for value in row] for row in rows]) is None
        corners = [(polygon(rng, 7, side) * 2)[2 * seed % 14 :][:14] for _ in range(count)]
        assert seen_in(corners) is None


@pytest.mark.parametrize("row", [(0.5, 0.5, 0.8, 0.5, 0.7, 0.7, 0.5, 0.65), (0.4, 0.5, 0.5, 0.7, 0.41, 0.73, 0.3, 0.6)])
def test_a_lone_quadrilateral_is_a_polygon_at_each_of_its_corners_and_both_ways_round(row: tuple[float, ...]) -> None:
    corners = np.array(row).reshape(4, 2)
    for turn in range(4):
        for way in (1, -1):
            assert seen_in([np.roll(corners, turn, axis=0)[::way].ravel().tolist()]) is None


@pytest.mark.parametrize("side", [0.02, 0.1, 0.45])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_rotated_boxes_are_not(count: int, side: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert seen_in([rotated(rng, side) for _ in range(count)]) is None


def test_rows_of_several_lengths_are_polygons() -> None:
    rng = np.random.default_rng(0)
    assert seen_in([keypoints(rng, (2, 2), 0.1), keypoints(rng, (4, 2), 0.1)]) is None
    assert seen_in([]) is None


def row(values: list[float], cls: int = 0) -> str:
    return " ".join(f"{value:g}" for value in (cls, *values))


@pytest.mark.parametrize("shape", SHAPES)
def test_with_kpt_shape_the_box_is_in_the_first_columns(text, image, shape: tuple[int, int]) -> None:
    image("images/a.png", 100, 100)
    values = keypoints(np.random.default_rng(1), shape, 0.3)
    text("labels/a.txt", f"{row(values)}\n1 .5 .5 .2 .4")
    names = "format: yolo\ntrain: images\nnames: [cat, dog]\n"
    spec = load_spec(text("d.yaml", f"{names}kpt_shape: [{shape[0]}, {shape[1]}]\nflip_idx: [0]"))
    split = load_split(spec, "train")
    x, y, w, h = values[:4]
    expected = np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2], [0.4, 0.3, 0.6, 0.7]]) * 100
    np.testing.assert_allclose(split.records[0].boxes, expected, atol=1e-3)
    assert split.findings == ()
    with pytest.raises(DataError, match=rf"kpt_shape: \[{shape[0]}, {shape[1]}\]"):
        load_split(load_spec(text("d.yaml", names)), "train")


def test_kpt_shape_null_says_that_rows_are_polygons(text, image) -> None:
    image("images/a.png", 100, 100)
    text("labels/a.txt", "0 .5 .5 .2 .2 .45 .45 .55 .55")
    names = "train: images\nnames: [cell]\n"
    with pytest.raises(DataError, match="look like a box and 2 keypoint") as caught:
        load_split(load_spec(text("d.yaml", names)), "train", on_bad="skip")
    assert "labels/a.txt:1" in str(caught.value)
    assert "If the rows are polygons, add 'kpt_shape: null'" in str(caught.value)
    split = load_split(load_spec(text("d.yaml", f"{names}kpt_shape: null")), "train")
    np.testing.assert_allclose(split.records[0].boxes, [[20, 20, 55, 55]], rtol=1e-6)


def test_rows_that_do_not_fit_kpt_shape(text) -> None:
    file = text("a.txt", "0 .5 .5 .2 .2 .5 .5\n0 .5 .5 .2 -1 .5 .5 .4 .4")
    first, second = read_labels(file, ("cat",), (2, 2)).problems
    assert first.endswith(
        "a.txt:1: 7 values; with kpt_shape: [2, 2] expected 'class cx cy w h' and 2 x 2 values of keypoints (9 in "
        "all), or none of them"
    )
    assert "negative size" in second


@pytest.mark.parametrize("value", ["17", "[17]", "[17, 4]", "[0, 3]", "[17, '3']", "[1.0, 2]", "{a: 1}", "false"])
def test_kpt_shape_that_is_none(text, value: str) -> None:
    with pytest.raises(DataError, match=r"kpt_shape: expected \[number of keypoints, 2 or 3 values each\]"):
        load_spec(text("d.yaml", f"train: images\nnames: [a]\nkpt_shape: {value}"))
