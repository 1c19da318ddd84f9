"""Tiles: how a picture is cut into overlapping squares, and how what is found in them becomes what is in the picture.

Only numpy; pure functions.  Letters: D detections, P and Q some of them.

What `in_picture` does with the detections of all tiles, in this order:

1. A box that ends at an inner border of its tile may be half an object.  If it is no longer there than what tiles have
   in common, it is dropped: an object that is so short lies whole, and clear of all borders, in a neighbouring tile,
   and of a longer one another tile sees a longer part.  No other detection is asked, so this holds at any score.
2. What is left of such boxes are parts of objects that are larger than the overlap.  A part gives way to a whole one,
   of the whole picture or of another tile, that looks like this part where it is cut at the borders of this tile.
3. Parts that no whole one replaces, and that look alike where neighbouring tiles both see them, become one box, their
   hull.
4. What the whole picture shows no longer than that lies whole in a tile too, and is loose at the low resolution: it
   gives way to a tile's box that it touches, with at least half its score.
5. Two boxes of one class from different tiles that overlap by more than SAME are one object: the better score stays.
   For that a detection in the whole picture counts half, since the tiles see the same at a higher resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gfldet.errors import ConfigError
from gfldet.ops.detections import Detections, concatenated, overlap, survivors

MARGIN = 4.0  # px of the frame, half of the finest stride: a box that ends so near to a border may be cut by it
SAME = 0.4  # IoU; two boxes of 12 px that are 2 px apart both ways have .53: tiles see at other phases of the stride
ALIKE = 0.5  # IoU from which a whole object that is cut looks like a part, and two parts like one object
WORTH = 0.5  # of its score: what a detection in the whole picture counts; what a part must not exceed to give way
TOUCHING = 0.1  # IoU from which a small box of the whole picture and a box of a tile are of one object
WHOLE = -1  # the tile of what was found in the whole picture

Boxes = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole pixels of a picture: columns `left` to `right` and rows `top` to `bottom`, ends excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This part of an image (H, W, 3); it shares the image's memory."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True, slots=True)
class Grid:
    """The tiles of one picture: those of row 0 from left to right, then those of row 1, ...

    lefts, tops  where the tiles of a row and of a column begin;  width, height  of each tile;  px of the picture
    """

    lefts: tuple[int, ...]
    tops: tuple[int, ...]
    width: int
    height: int

    @property
    def windows(self) -> list[Window]:
        return [Window(x, y, x + self.width, y + self.height) for y in self.tops for x in self.lefts]

    @property
    def shared(self) -> NDArray[np.float32]:
        """(2,) px that neighbours have in common at least, along x and along y."""
        axes = ((self.lefts, self.width), (self.tops, self.height))
        return np.array([side - max(np.diff(begins), default=0) for begins, side in axes], np.float32)


@dataclass(frozen=True, slots=True)
class Tiles:
    """How pictures larger than a tile are cut.

    side     of the square tiles, px of the picture
    overlap  share of the side that a tile has in common with the next one
    whole    whether the picture is looked at as a whole too
    """

    side: int
    overlap: float = 0.2
    whole: bool = True

    def cut(self, height: int, width: int) -> bool:
        """Whether a picture of this size is cut: one that no tile holds."""
        return max(height, width) > self.side

    def grid(self, height: int, width: int) -> Grid:
        """The tiles of a picture of this size."""
        lefts, tops = (self._begins(length) for length in (width, height))
        return Grid(lefts, tops, min(width, self.side), min(height, self.side))

    def _begins(self, length: int) -> tuple[int, ...]:
        """Where tiles begin along `length` px.  The last is moved inward, so that all are of one size."""
        step = max(1, self.side - round(self.overlap * self.side))
        return (*range(0, length - self.side, step), max(0, length - self.side))


def tiles_of(side: int | None, overlap: float, whole: bool, multiple: int) -> Tiles | None:
    """The tiles for a model whose coarsest stride is `multiple` px; None without a `side`.

    Raises ConfigError for tiles that are smaller than that stride.
    """
    if side is None:
        return None
    if side < multiple:
        raise ConfigError(
            f"tile={side}: smaller than the coarsest stride of this model, {multiple} px; give {multiple} or more, as "
            "in tile=640"
        )
    return Tiles(side, overlap, whole)


def in_picture(
    found: Sequence[Detections],
    grid: Grid,
    whole: Detections | None = None,
    *,
    most: int,
    agnostic: bool = False,
    margin: float = MARGIN,
) -> Detections:
    """What is in the picture, best score first and at most `most`; see the top of this file.

    `found` has the detections of each window of the grid, `whole` those of the whole picture, each after suppression by
    itself, all with boxes in px of the picture.  `margin` is MARGIN in px of the picture.  With `agnostic`, boxes of
    different classes are compared too.  The result has no points, as their numbers hold in one frame only.
    """
    several = [*found, *([] if whole is None else [whole])]
    tile = np.repeat([*range(len(found)), *([] if whole is None else [WHOLE])], [len(one) for one in several])
    every = concatenated(several)
    cut = _cut(every.boxes, tile, grid, margin)
    kept = ~halves(every.boxes, cut, grid.shared, margin)
    every, tile, cut = every.take(kept), tile[kept], cut[kept]
    continued = _continued(every, tile, cut, grid, margin, agnostic)
    every, tile, cut = every.take(~continued), tile[~continued], cut[~continued]
    every, tile = _with_hulls(every, tile, cut, grid, margin, agnostic)
    better = _seen_better(every, tile, grid.shared - 2 * margin, agnostic)
    return _distinct(every.take(~better), tile[~better], most, agnostic)


def halves(boxes: Boxes, cut: Flags, shared: NDArray[np.float32], margin: float) -> Flags:
    """Which boxes (D, 4) xyxy are dropped since another tile holds the object, or more of it.

    `cut` (D, 4) tells at which of its sides a tile's border may cut the object, `shared` (2,) is that of the grid.  A
    box at a border may be up to `margin` from it, and a neighbour holds an object clear of both borders if these are so
    far from it: hence twice the margin.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    at_border = cut[:, :2] | cut[:, 2:]
    return np.asarray((at_border & (size <= shared - 2 * margin)).any(1), np.bool_)


def _cut(boxes: Boxes, tile: NDArray[np.int64], grid: Grid, margin: float) -> Flags:
    """At which sides (D, 4) a border of its tile that lies within the picture may cut a box."""
    windows = grid.windows
    left, top, right, bottom = windows[0].left, windows[0].top, windows[-1].right, windows[-1].bottom
    edges = np.array([(w.left, w.top, w.right, w.bottom) for w in windows], np.float32)[tile]
    inner = edges != np.array((left, top, right, bottom), np.float32)
    return np.asarray((np.abs(boxes - edges) <= margin) & inner & (tile != WHOLE)[:, None], np.bool_)


def _continued(
    every: Detections, tile: NDArray[np.int64], cut: Flags, grid: Grid, margin: float, agnostic: bool
) -> Flags:
    """Which detections (D,) are parts of an object that another detection holds whole."""
    part = np.asarray(cut.any(1), np.bool_)
    gone, whole = np.zeros_like(part), every.take(~part)
    windows = grid.windows
    for number in np.unique(tile[part]):
        window = windows[number]
        low, high = np.array([[window.left, window.top], [window.right, window.bottom]], np.float32)
        meets = (whole.boxes[:, :2] < high).all(1) & (whole.boxes[:, 2:] > low).all(1)
        beyond = (whole.boxes[:, :2] < low - margin).any(1) | (whole.boxes[:, 2:] > high + margin).any(1)
        near, rows = whole.take(meets & beyond), (part & (tile == number)).nonzero()[0]
        inside = np.clip(near.boxes, np.tile(low, 2), np.tile(high, 2))
        same = overlap(every.boxes[rows], inside) > ALIKE
        same &= near.scores >= WORTH * every.scores[rows][:, None]
        if not agnostic:
            same &= near.classes == every.classes[rows][:, None]
        gone[rows] = same.any(1)
    return gone


def _with_hulls(
    every: Detections, tile: NDArray[np.int64], cut: Flags, grid: Grid, margin: float, agnostic: bool
) -> tuple[Detections, NDArray[np.int64]]:
    """The detections and their tiles, where parts that belong together are one; each of these has a tile of its own."""
    at = np.asarray(cut.any(1), np.bool_)
    whole, parts, tile_of = every.take(~at), every.take(at), tile[at]
    group = np.arange(len(parts))
    rows = {int(number): (tile_of == number).nonzero()[0] for number in np.unique(tile_of)}
    columns, windows = len(grid.lefts), grid.windows
    for number, here in rows.items():
        right = number + 1 if (number + 1) % columns else -1
        for axis, other in ((0, right), (1, number + columns)):
            if other in rows:
                this, that = windows[number], windows[other]
                shared = (that.left, this.right) if axis == 0 else (that.top, this.bottom)
                same = _are_one(parts, here, rows[other], shared, axis, margin)
                if not agnostic:
                    same &= parts.classes[here][:, None] == parts.classes[rows[other]]
                for a, b in zip(*same.nonzero(), strict=True):
                    group[group == group[rows[other][b]]] = group[here[a]]
    own = len(windows) + np.unique(group)
    return concatenated([whole, _hulls(parts, group)]), np.concatenate([tile[~at], own])


def _are_one(
    parts: Detections,
    here: NDArray[np.int64],
    there: NDArray[np.int64],
    shared: tuple[int, int],
    axis: int,
    margin: float,
) -> Flags:
    """Which parts at rows `here` (P,) of a tile and `there` (Q,) of the next along `axis` are of one: (P, Q).

    Both tiles see `shared`, from and to, px along the axis.  The parts look alike there, and the better score is at
    most 1 / WORTH of the other.  Where they share hardly anything, both reach the border.
    """
    low, high = parts.boxes[:, :2], parts.boxes[:, 2:]
    same = _alike(*(side[rows, 1 - axis] for rows in (here, there) for side in (low, high)))
    if shared[1] - shared[0] > 2 * margin:
        same &= _alike(*(np.clip(side[rows, axis], *shared) for rows in (here, there) for side in (low, high)))
    else:
        same &= (high[here, axis] >= shared[0] - margin)[:, None] & (low[there, axis] <= shared[1] + margin)
    a, b = parts.scores[here][:, None], parts.scores[there]
    return np.asarray(same & (np.minimum(a, b) >= WORTH * np.maximum(a, b)), np.bool_)


def _alike(low: Boxes, high: Boxes, other_low: Boxes, other_high: Boxes) -> Flags:
    """Whether intervals (P,) and others (Q,) have an IoU above ALIKE: (P, Q)."""
    inside = np.minimum(high[:, None], other_high) - np.maximum(low[:, None], other_low)
    hull = np.maximum(high[:, None], other_high) - np.minimum(low[:, None], other_low)
    return np.asarray(inside > ALIKE * hull, np.bool_)


def _hulls(parts: Detections, group: NDArray[np.int64]) -> Detections:
    """The smallest box around the parts of each group, with the score and the class of the best of them."""
    order = np.lexsort((-parts.scores, group))
    first = np.unique(group[order], return_index=True)[1]
    if not len(first):
        return parts
    low = np.minimum.reduceat(parts.boxes[order, :2], first)
    high = np.maximum.reduceat(parts.boxes[order, 2:], first)
    return replace(parts.take(order[first]), boxes=np.concatenate([low, high], axis=1))


def _seen_better(every: Detections, tile: NDArray[np.int64], held: NDArray[np.float32], agnostic: bool) -> Flags:
    """Which detections (D,) in the whole picture, no larger than `held` (2,), a tile has found too."""
    gone, tiles = np.zeros(len(every), np.bool_), every.take(np.asarray(tile != WHOLE, np.bool_))
    small = (every.boxes[:, 2:] - every.boxes[:, :2] <= held).all(1) & (tile == WHOLE)
    for row in small.nonzero()[0]:  # one by one: a huge picture has 100,000 boxes of tiles
        same = overlap(every.boxes[row : row + 1], tiles.boxes)[0] > TOUCHING
        same &= tiles.scores >= WORTH * every.scores[row]
        gone[row] = (same if agnostic else same & (tiles.classes == every.classes[row])).any()
    return gone


def _distinct(every: Detections, tile: NDArray[np.int64], most: int, agnostic: bool) -> Detections:
    """The best `most` detections, each object once; what one tile found was told apart there already."""
    rank = every.scores * np.where(tile == WHOLE, np.float32(WORTH), np.float32(1))
    order = np.argsort(-rank, kind="stable")
    take = 4 * most  # few candidates decide the best; more are taken only when too few survive, with the same result
    while True:
        rows = order[:take]
        kept = rows[survivors(every.take(rows), SAME, agnostic, most, tile[rows])]
        if len(kept) == most or take >= len(order):
            break
        take *= 4
    chosen = every.take(kept)
    return chosen.take(np.argsort(-chosen.scores, kind="stable"))
