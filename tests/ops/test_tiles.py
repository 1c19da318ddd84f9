"""Tiles: where they lie, and that each object of a picture comes out once and whole, wherever the borders cut it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from gfldet.errors import ConfigError
from gfldet.ops.detections import Detections, concatenated
from gfldet.ops.tiles import MARGIN, Grid, Tiles, Window, halves, in_picture, tiles_of

NONE: tuple[tuple[float, ...], ...] = ()


def found(boxes: Sequence[Sequence[float]], scores: Sequence[float] | float = 0.9, classes: int = 0) -> Detections:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    values = np.broadcast_to(np.array(scores, np.float32), len(corners)).copy()
    return Detections(corners, values, np.full(len(corners), classes))


def seen(truths: Sequence[Sequence[float]], window: Window, score: float = 0.9) -> Detections:
    """What a perfect detector finds in a window: all that lies in it, cut at its borders."""
    edges = np.array([window.left, window.top, window.right, window.bottom], np.float32)
    boxes = np.clip(np.array(truths, np.float32).reshape(-1, 4), edges[[0, 1, 0, 1]], edges[[2, 3, 2, 3]])
    return found(boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(1)].tolist(), score)


def in_order(detections: Detections) -> list[list[float]]:
    return sorted(detections.boxes.tolist())


# ------------------------------------------------------------------------------------------------ where they lie


@pytest.mark.parametrize(
    ("length", "side", "overlap", "begins"),
    [
        (1000, 400, 0.25, (0, 300, 600)),
        (1001, 400, 0.25, (0, 300, 600, 601)),  # the last one is moved inward
        (1100, 400, 0.25, (0, 300, 600, 700)),
        (800, 400, 0.0, (0, 400)),
        (401, 400, 0.25, (0, 1)),
        (400, 400, 0.25, (0,)),
        (90, 400, 0.25, (0,)),
        (70, 64, 0.9, (0, 6)),
    ],
)
def test_where_tiles_begin(length: int, side: int, overlap: float, begins: tuple[int, ...]) -> None:
    grid = Tiles(side, overlap).grid(50, length)
    assert grid.lefts == begins
    assert grid.tops == (0,)
    assert (grid.width, grid.height) == (min(side, length), min(side, 50))
    assert Tiles(side, overlap).grid(length, 50).tops == begins


def test_windows_go_row_by_row() -> None:
    grid = Tiles(40, 0.5).grid(60, 80)
    assert grid.windows == [Window(x, y, x + 40, y + 40) for y in (0, 20) for x in (0, 20, 40)]
    assert grid.shared.tolist() == [20, 20]
    image = np.arange(60 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 80, 3)
    assert (grid.windows[-1].of(image) == image[20:, 40:]).all()
    assert np.shares_memory(grid.windows[-1].of(image), image)


def test_which_pictures_are_cut() -> None:
    tiles = Tiles(640)
    assert not tiles.cut(640, 640)
    assert not tiles.cut(20, 30)
    assert tiles.cut(641, 100)
    assert tiles.cut(100, 641)


def test_an_object_as_small_as_the_overlap_lies_clear_in_some_tile() -> None:
    """The rule of step 1 rests on this."""
    for length, side, overlap in product((101, 137, 200, 256), (40, 64, 100), (0.1, 0.2, 0.45, 0.5, 0.8)):
        grid = Tiles(side, overlap).grid(10, length)
        size = int(grid.shared[0]) - 4
        for left in range(length - size) if size > 0 else ():
            clear = [
                x
                for x in grid.lefts
                if (x == 0 or x + 2 <= left) and (x + side == length or left + size <= x + side - 2)
            ]
            assert clear, (length, side, overlap, left)


def test_tiles_for_a_model() -> None:
    assert tiles_of(None, 0.2, True, 32) is None
    assert tiles_of(64, 0.3, False, 64) == Tiles(64, 0.3, False)
    with pytest.raises(
        ConfigError, match=r"tile=32: smaller than the coarsest stride of this model, 64 px; give 64 or"
    ):
        tiles_of(32, 0.2, True, 64)


# ------------------------------------------------------------------------------------------------ the rule, by hand


def test_halves_by_hand() -> None:
    """Tiles share 30 px along x and 20 along y; with a margin of 2, boxes of up to 26 and 16 px are no parts."""
    boxes = np.array(
        [
            [0, 0, 26, 50],  # cut left, 26 wide: a neighbour holds it
            [0, 0, 27, 50],  # 27 wide: perhaps none does
            [5, 0, 15, 16],  # cut at its top, 16 high
            [5, 0, 15, 17],
            [5, 5, 15, 15],  # not cut
            [0, 0, 99, 10],  # cut left and at its top: wide, but 10 high
        ],
        np.float32,
    )
    cut = np.array(
        [
            [True, False, False, False],
            [True, False, False, False],
            [False, True, False, False],
            [False, True, False, False],
            [False] * 4,
            [True, True, False, False],
        ]
    )
    shared = np.array([30, 20], np.float32)
    assert halves(boxes, cut, shared, 2).tolist() == [True, False, True, False, False, True]


def two_tiles() -> Grid:
    """Tiles of 100 px that have columns 80 to 100 in common."""
    return Tiles(100, 0.2).grid(100, 180)


def test_a_half_gives_way_to_the_whole_beside_it() -> None:
    """Also where the half scores better, and where it is nearly the whole."""
    left, right = found([[90, 10, 100, 22]], 0.99), found([[90, 10, 101, 22]], 0.3)
    assert in_order(in_picture([left, right], two_tiles(), most=9)) == [[90, 10, 101, 22]]
    assert len(in_picture([left, found(NONE)], two_tiles(), most=9)) == 0  # what the neighbour does not find is none


def test_the_borders_of_the_picture_cut_nothing() -> None:
    boxes = [[0, 0, 5, 5], [0, 95, 5, 100], [175, 0, 180, 5], [170, 90, 180, 100]]
    every = in_picture([found(boxes[:2]), found(boxes[2:])], two_tiles(), most=9)
    assert in_order(every) == sorted(boxes)


def test_what_both_tiles_see_comes_once() -> None:
    """Two px apart in each direction, as 12 px objects may be; the better score stays."""
    left, right = found([[84, 40, 96, 52]], 0.7), found([[86, 42, 98, 54]], 0.8)
    joined = in_picture([left, right], two_tiles(), most=9, margin=1)
    assert joined.boxes.tolist() == [[86, 42, 98, 54]]
    other = in_picture([left, Detections(right.boxes, right.scores, right.classes + 1)], two_tiles(), most=9, margin=1)
    assert other.classes.tolist() == [1, 0]
    agnostic = in_picture(
        [left, Detections(right.boxes, right.scores, right.classes + 1)], two_tiles(), most=9, margin=1, agnostic=True
    )
    assert agnostic.classes.tolist() == [1]


def test_what_one_tile_tells_apart_stays_apart() -> None:
    """Two objects of a class with an IoU of .6, which the NMS of each tile has let be, in what both tiles see."""
    pair = [[84, 40, 94, 52], [86.5, 40, 96.5, 52]]
    joined = in_picture([found(pair, [0.9, 0.8]), found(pair, [0.85, 0.75])], two_tiles(), most=9, margin=1)
    assert in_order(joined) == pair
    assert joined.scores.tolist() == pytest.approx([0.9, 0.8])


def test_a_part_gives_way_to_the_whole_picture() -> None:
    """An object of 60 px, of which the tiles see 40 and 40."""
    parts = [found([[60, 10, 100, 30]], 0.8), found([[80, 10, 120, 30]], 0.7)]
    whole = found([[59, 9, 121, 31]], 0.5)
    joined = in_picture(parts, two_tiles(), whole, most=9)
    assert joined.boxes.tolist() == [[59, 9, 121, 31]]
    assert joined.scores.tolist() == [0.5]
    # Of a class of its own, or with a score of less than half, it is another thing, and the parts are joined.
    joined = in_picture(parts, two_tiles(), found([[59, 9, 121, 31]], 0.9, classes=1), most=9)
    assert joined.boxes.tolist() == [[59, 9, 121, 31], [60, 10, 120, 30]]
    joined = in_picture(parts, two_tiles(), found([[59, 9, 121, 31]], 0.3), most=9)
    assert joined.boxes.tolist() == [[60, 10, 120, 30]]


def test_parts_without_a_whole_are_joined() -> None:
    parts = [found([[60, 10, 100, 30]], 0.8), found([[80, 12, 120, 30]], 0.7)]
    joined = in_picture(parts, two_tiles(), most=9)
    assert joined.boxes.tolist() == [[60, 10, 120, 30]]
    assert joined.scores.tolist() == pytest.approx([0.8])
    for other in (found([[80, 60, 120, 80]], 0.7), found([[80, 10, 120, 30]], 0.3), found([[80, 10, 120, 30]], 0.7, 1)):
        assert len(in_picture([parts[0], other], two_tiles(), most=9)) == 2  # elsewhere, too doubtful, of another class


def test_a_tile_sees_better_than_the_whole_picture() -> None:
    """A box that is loose at a low resolution goes, up to twice the score; an object that no tile finds stays."""
    tile = found([[10, 10, 30, 30]], 0.5)
    whole = found([[7, 8, 31, 33], [50, 50, 60, 60]], [0.9, 0.4])
    assert in_order(in_picture([tile, found(NONE)], two_tiles(), whole, most=9)) == [[10, 10, 30, 30], [50, 50, 60, 60]]
    sure = found([[7, 8, 31, 33]], 0.9)
    assert in_order(in_picture([found([[10, 10, 30, 30]], 0.4), found(NONE)], two_tiles(), sure, most=9)) == [
        [7, 8, 31, 33]
    ]


def test_a_small_box_of_the_whole_picture_gives_way_where_it_touches() -> None:
    """With .17 of IoU it would stay beside the tile's; one of more than the overlap does."""
    grid = Tiles(100, 0.4).grid(100, 160)
    tile = found([[10, 10, 30, 30]], 0.5)
    for whole, gone in (([[21, 16, 41, 36]], True), ([[21, 16, 61, 36]], False), ([[31, 10, 50, 30]], False)):
        joined = in_picture([tile, found(NONE)], grid, found(whole, 0.8), most=9)
        assert len(joined) == 2 - gone
    doubtful = found([[10, 10, 30, 30]], 0.3)
    assert len(in_picture([doubtful, found(NONE)], grid, found([[21, 16, 41, 36]], 0.8), most=9)) == 2


def test_the_best_come_first_and_no_more_than_wanted() -> None:
    rng = np.random.default_rng(0)
    corners = rng.permutation([[x, y] for x in range(2, 78, 12) for y in range(2, 98, 12)]).astype(np.float32)
    boxes = np.concatenate([corners, corners + 8], axis=1)
    scores = rng.uniform(0.1, 0.9, len(boxes)).astype(np.float32)
    every = in_picture([found(boxes.tolist(), scores.tolist()), found(NONE)], two_tiles(), most=100)
    assert len(every) == len(boxes)
    assert every.scores.tolist() == sorted(scores.tolist(), reverse=True)
    some = in_picture([found(boxes.tolist(), scores.tolist()), found(NONE)], two_tiles(), most=5)
    assert some.boxes.tolist() == every.boxes[:5].tolist()


def test_nothing_is_found() -> None:
    assert len(in_picture([found(NONE), found(NONE)], two_tiles(), most=9)) == 0
    assert len(in_picture([found(NONE), found(NONE)], two_tiles(), found(NONE), most=9)) == 0


# ------------------------------------------------------------------------------------------------ the count is right


def everywhere(tiles: Tiles, height: int, width: int, size: tuple[int, int]) -> list[list[float]]:
    """Objects of `size` (width, height) px on every inner border and every crossing of them, on both sides of it and
    astride, and at the corners of the picture; none nearer to another than 3 px."""
    grid = tiles.grid(height, width)
    w, h = size
    xs, ys = (
        sorted({0, length - own, *(x - own // 2 for x in begins), *(x + side - own // 2 for x in begins)})
        for length, own, begins, side in ((width, w, grid.lefts, grid.width), (height, h, grid.tops, grid.height))
    )
    boxes: list[list[float]] = []
    for x, y in product(xs, ys):
        left, top = min(max(x, 0), width - w), min(max(y, 0), height - h)
        if all(abs(left - b[0]) > w + 3 or abs(top - b[1]) > h + 3 for b in boxes):
            boxes.append([left, top, left + w, top + h])
    return boxes


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("overlap", [0.2, 0.35, 0.5])
@pytest.mark.parametrize("side", [200, 256])
@pytest.mark.parametrize("size", [(12, 12), (30, 8), (8, 30), (25, 31)])
def test_objects_on_every_seam_and_corner(size: tuple[int, int], side: int, overlap: float, whole: bool) -> None:
    tiles = Tiles(side, overlap)
    grid = tiles.grid(700, 1000)
    truths = everywhere(tiles, 700, 1000, size)
    assert len(truths) > 40
    parts = [seen(truths, window, 0.9 - 0.001 * number) for number, window in enumerate(grid.windows)]
    picture = seen(truths, Window(0, 0, 1000, 700)) if whole else None
    assert len(concatenated(parts)) > 1.5 * len(truths)
    joined = in_picture(parts, grid, picture, most=10_000)
    assert in_order(joined) == sorted(truths)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.6])
@pytest.mark.parametrize("size", [(60, 60), (150, 40), (40, 150), (230, 90), (420, 310)])
def test_objects_larger_than_the_overlap_and_than_a_tile(size: tuple[int, int], overlap: float, whole: bool) -> None:
    """One at a time, at many places: the whole picture has it, or its parts are joined.

    Beside the whole picture, a part that lacks no more than the margin may stand for it: the tile sees better.
    """
    grid = Tiles(200, overlap).grid(700, 1000)
    places = list(product(range(3, 1000 - size[0], 97), range(2, 700 - size[1], 83)))
    for left, top in places[:: len(places) // 9]:
        truth = [[left, top, left + size[0], top + size[1]]]
        parts = [seen(truth, window) for window in grid.windows]
        picture = seen(truth, Window(0, 0, 1000, 700)) if whole else None
        (box,) = in_picture(parts, grid, picture, most=100).boxes.tolist()
        assert box == pytest.approx(truth[0], abs=MARGIN if whole else 0), (left, top)


def test_large_and_small_ones_together() -> None:
    """A large object with small ones of its class on the seams inside it."""
    tiles = Tiles(200, 0.2)
    grid = tiles.grid(700, 1000)
    small = everywhere(tiles, 700, 1000, (14, 14))
    truths = [*small, [130, 120, 700, 560]]
    parts = [seen(truths, window) for window in grid.windows]
    joined = in_picture(parts, grid, seen(truths, Window(0, 0, 1000, 700)), most=1000)
    assert in_order(joined) == sorted(truths)
