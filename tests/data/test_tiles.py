"""Training images as tiles: which truths each teaches, and that pixels and boxes belong together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gfldet.data.eval_set import EvalSet
from gfldet.data.image_store import ImageStore
from gfldet.data.load import load_images, read_record
from gfldet.data.records import Record, Split
from gfldet.data.spec import load_spec
from gfldet.data.tiles import Cut
from gfldet.machine.shared import Pool
from gfldet.ops.tiles import Tiles, Window

BOXES = [
    [10, 10, 30, 30],  # in the first tile alone
    [90, 40, 110, 60],  # half in the first, all in the second
    [75, 70, 105, 80],  # 25 of 30 px in the first, all in the second
    [30, 80, 170, 95],  # 70 of 140 px in the first, 90 in the second
]
NOTHING = np.zeros((0, 4), np.float32)


def record(ignore: np.ndarray = NOTHING, **options: object) -> Record:
    """180 x 100 px: tiles of 100 px with an overlap of .2 begin at 0 and 80."""
    boxes = np.array(BOXES, np.float32)
    return Record(Path("a.png"), 5, "a.png", 180, 100, boxes, np.arange(4), ignore, **options)  # type: ignore[arg-type]


def test_truths_of_tiles_by_hand() -> None:
    first, second = Cut(Tiles(100, 0.2, whole=False), (100, 100)).pieces(record())
    assert [one.window for one in (first, second)] == [Window(0, 0, 100, 100), Window(80, 0, 180, 100)]
    assert {(one.width, one.height) for one in (first, second)} == {(100, 100)}
    assert first.boxes.tolist() == [[10, 10, 30, 30], [90, 40, 100, 60], [75, 70, 100, 80], [30, 80, 100, 95]]
    assert first.classes.tolist() == [0, 1, 2, 3]
    assert len(first.ignore) == 0
    assert second.boxes.tolist() == [[10, 40, 30, 60], [0, 70, 25, 80], [0, 80, 90, 95]]
    assert second.classes.tolist() == [1, 2, 3]
    assert len(second.ignore) == 0
    assert first.file_name != second.file_name


def test_what_is_less_than_half_visible_is_ignored() -> None:
    one = Record(Path("a"), 0, "a", 180, 100, np.array([[91, 40, 111, 60]], np.float32), np.array([1]), NOTHING)
    first, second = Cut(Tiles(100, 0.2, whole=False), (100, 100)).pieces(one)
    assert (len(first.boxes), first.ignore.tolist()) == (0, [[91, 40, 100, 60]])
    assert (second.boxes.tolist(), len(second.ignore)) == ([[11, 40, 31, 60]], 0)


def test_regions_to_ignore_stay_what_is_visible_of_them() -> None:
    regions = np.array([[95, 0, 180, 20], [0, 90, 10, 100]], np.float32)
    first, second = Cut(Tiles(100, 0.2, whole=False), (100, 100)).pieces(
        record(regions, ignore_classes=np.array([2, 3]))
    )
    assert first.ignore.tolist() == [[95, 0, 100, 20], [0, 90, 10, 100]]
    assert second.ignore.tolist() == [[15, 0, 100, 20]]
    assert first.ignore_classes is not None
    assert second.ignore_classes is not None
    assert first.ignore_classes.tolist() == [2, 3]
    assert second.ignore_classes.tolist() == [2]


def test_the_whole_image_teaches_what_is_large_there() -> None:
    """In a frame of 32 px the image is .178 of its size: 20 px are 3.6, and left to the tiles."""
    *_, whole = Cut(Tiles(100, 0.2), (32, 32)).pieces(record())
    assert (whole.window, whole.width, whole.height) == (None, 180, 100)
    assert whole.boxes.tolist() == BOXES[2:]
    assert whole.classes.tolist() == [2, 3]
    assert whole.ignore.tolist() == BOXES[:2]


def test_a_small_image_stays_one() -> None:
    one = record()
    assert Cut(Tiles(180, 0.2), (64, 64)).pieces(one) == [one]
    split = Split("train", (one, one), ("a",), (0,))
    assert len(Cut(Tiles(100, 0.2), (64, 64)).split(split).records) == 6


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (100, 180, 3), np.uint8)


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_pixels_are_those_of_the_window(picture: np.ndarray, budget: int) -> None:
    def read(one: Record) -> np.ndarray:
        return picture if one.window is None else one.window.of(picture)

    store = ImageStore((100, 100), Pool(budget), read)
    pieces = Cut(Tiles(100, 0.2), (100, 100)).pieces(record())
    sizes = np.array([(one.width, one.height) for one in pieces])
    store.place([str(one.path) for one in pieces], sizes, [one.window for one in pieces])
    assert store.complete == (budget > 0)
    for one in pieces:
        store.keep(str(one.path), read(one), one.window)
    first, second, whole = (store.sample(one) for one in pieces)
    assert (first.image == picture[:, :100]).all()
    assert (second.image == picture[:, 80:]).all()
    assert second.boxes.tolist() == pieces[1].boxes.tolist()
    assert whole.image.shape == (56, 100, 3)


def test_a_tile_does_not_hold_its_picture(picture: np.ndarray) -> None:
    """A tile as wide as its picture is contiguous, so that a view of it would do."""
    store = ImageStore((100, 180), Pool(1 << 20), lambda one: pytest.fail("read again"))
    one = Record(Path("a"), 0, "a", 180, 50, NOTHING, np.zeros(0, np.int64), NOTHING, window=Window(0, 0, 180, 50))
    store.place(["a"], np.array([[180, 50]]), [one.window])
    store.keep("a", picture[:50], one.window)
    assert not np.shares_memory(store.get(one), picture)


def test_a_tile_is_read_from_its_file(tmp_path: Path, picture: np.ndarray) -> None:
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), picture[..., ::-1])
    one = Record(file, 0, "a", 100, 100, NOTHING, np.zeros(0, np.int64), NOTHING, window=Window(80, 0, 180, 100))
    assert (read_record(one) == picture[:, 80:]).all()


@pytest.mark.parametrize("check", ["full", "quick"])
def test_the_tiles_of_a_split_are_kept_in_memory(tmp_path: Path, picture: np.ndarray, check: str, monkeypatch) -> None:
    """The larger picture is cut into two tiles and itself, the other fits into one."""
    for name, image, row in (("a", picture, "0 .5 .5 .2 .2"), ("b", picture[:80, :90], "0 .5 .5 .4 .4")):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), image[..., ::-1])
        (tmp_path / f"labels/{name}.txt").write_text(row)
    (tmp_path / "d.yaml").write_text("format: yolo\ntrain: images\nnames: [cat]\n")
    spec, told = load_spec(tmp_path / "d.yaml"), list[str]()

    def samples(pool: Pool) -> list[bytes]:
        cut = Cut(Tiles(100, 0.2), (100, 100))
        loaded = load_images(spec, "train", (100, 100), pool, "error", told.append, False, cut=cut, check=check)
        first = [loaded.store.get(one).tobytes() for one in loaded.split.records]
        if pool.left:
            monkeypatch.setattr(loaded.store, "_read", lambda one: pytest.fail("read again"))
        assert [loaded.store.get(one).tobytes() for one in loaded.split.records] == first
        return first

    kept, read = samples(Pool(1 << 20)), samples(Pool(0))
    assert kept == read
    assert (kept[1], len(kept)) == (picture[:, 80:].tobytes(), 4)
    assert told[:2] == [
        "train: 2 images, 2 boxes, 1 class; kept in memory",
        "train: 4 images when cut into tiles of 100 px",
    ]


def test_validation_gives_large_images_by_themselves(picture: np.ndarray) -> None:
    small = Record(Path("b"), 1, "b", 90, 60, NOTHING, np.zeros(0, np.int64), NOTHING)
    images = {"a.png": picture, "b": picture[:60, :90]}
    store = ImageStore(None, Pool(0), lambda one: images[str(one.path)])
    split = Split("val", (record(), small, record(), small), ("a",), (0,))
    data = EvalSet(split, store, (96, 96), 8, 32, tiles=Tiles(100))
    assert data.keys() == [((64, 96), (1, 3)), (None, (0,)), (None, (2,))]
    assert (data.load(data.keys()[1]).images[0] == picture).all()
