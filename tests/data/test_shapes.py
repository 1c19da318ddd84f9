"""The built-in data set: the same for everybody, and its boxes are where the shapes are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gfldet.data import shapes
from gfldet.errors import DataError

VARIANT = shapes.VARIANTS["shapes"]


def layout_of(number: int) -> list[shapes.Figure]:
    return shapes.layout(VARIANT, np.random.default_rng(number))


def test_an_image_is_the_same_each_time_and_in_each_thread() -> None:
    paths = [item.path for item in shapes.index("shapes", "val").items[:6]]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(shapes.read, paths))
    for path, image in zip(paths, again, strict=True):
        assert image.shape == (320, 320, 3)
        assert image.dtype == np.uint8
        assert (image == shapes.read(path)).all()
    assert (again[0] != again[1]).any()


def test_train_and_val_differ() -> None:
    assert (shapes.read("shapes:/train/000000.png") != shapes.read("shapes:/val/000000.png")).any()


def test_the_sizes_of_the_set() -> None:
    train, val = shapes.index("shapes", "train").items, shapes.index("shapes", "val").items
    assert (len(train), len(val)) == (160, 40)
    assert [item.image_id for item in val] == list(range(40))
    classes = np.concatenate([item.labels().classes for item in train])
    assert np.bincount(classes, minlength=4).min() > 140, "every class is well represented"


def test_labels_are_inside_the_image_and_large_enough_to_learn() -> None:
    for item in shapes.index("shapes", "val").items:
        labels = item.labels()
        boxes = np.array(labels.boxes)
        assert 2 <= len(boxes) <= 7
        assert boxes.min() >= 0
        assert boxes.max() <= 320
        assert (boxes[:, 2:] - boxes[:, :2]).min() > 6


@pytest.mark.parametrize("cls", range(4))
def test_boxes_are_tight_around_what_is_painted(cls: int) -> None:
    """A shape painted on black covers its box to within a pixel on each side."""
    for number in range(60):
        figure = next((f for f in layout_of(number) if f.cls == cls and min(f.box) > 4 and max(f.box) < 316), None)
        if figure is not None:
            break
    assert figure is not None
    image = np.full((320, 320, 3), 128, np.float32)
    before = image.copy()
    shapes._paint(image, figure, np.random.default_rng(0))
    # The shadow darkens by at most 35 %; a fill is at least 70 away from grey 128 in RGB distance.
    changed = np.abs(image - before).max(axis=2) > 128 * 0.36
    ys, xs = np.nonzero(changed)
    np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], figure.box, atol=2)


def test_no_shape_hides_most_of_another() -> None:
    for number in range(20):
        boxes = np.array([figure.box for figure in layout_of(number)])
        for position, box in enumerate(boxes):
            assert (shapes._covered(box, boxes[:position]) <= VARIANT.hidden).all()


def test_covered_by_hand() -> None:
    def square(x: float, y: float, side: float) -> np.ndarray:
        return np.array([x, y, x + side, y + side])

    others = np.array([square(2, 2, 4), square(5, 0, 4), square(1, 1, 1)])
    assert shapes._covered(square(0, 0, 4), others).tolist() == [0.25, 0.0, 1.0]
    assert shapes._covered(square(0, 0, 10), others[:1]).tolist() == [1.0]
    assert shapes._covered(square(0, 0, 4), others[:0]).tolist() == []


def test_virtual_paths() -> None:
    assert shapes.is_virtual("shapes:/val/000001.png")
    assert shapes.is_virtual(shapes.index("shapes", "val").items[0].path)
    for path in ("shapes", "shapes/val/000001.png", Path("/shapes:/val/1.png"), "", "other:/val/1.png"):
        assert not shapes.is_virtual(path)
    for path in ("shapes:/test/000001.png", "shapes:/val/x.png", "shapes:"):
        with pytest.raises(DataError, match="is not an image of a built-in set"):
            shapes.read(path)


def boxes_of(name: str, images: int) -> list[np.ndarray]:
    return [np.array(item.labels().boxes) for item in shapes.index(name, "val").items[:images]]


def test_small_shapes_have_4_to_16_px() -> None:
    sides = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in boxes_of("shapes-small", 20)])
    assert np.quantile(sides, 0.02) >= 3.5
    assert np.quantile(sides, 0.98) <= 16
    assert np.median(sides) < 10


def test_dense_shapes_are_300_an_image() -> None:
    assert [len(boxes) for boxes in boxes_of("shapes-dense", 3)] == [300] * 3


def test_thin_shapes_are_ten_times_as_long_as_wide() -> None:
    sides = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in boxes_of("shapes-thin", 20)])
    ratio = sides.max(1) / sides.min(1)
    assert 7 < np.median(ratio) < 13
    assert 0.3 < (sides[:, 0] > sides[:, 1]).mean() < 0.7


def test_huge_shapes_fill_the_image() -> None:
    for boxes in boxes_of("shapes-huge", 20):
        assert len(boxes) == 1
        assert (boxes[0, 2:] - boxes[0, :2]).prod() > 0.65 * 320**2


@pytest.mark.parametrize("name", shapes.VARIANTS)
def test_every_set_can_be_drawn(name: str) -> None:
    image = shapes.read(f"{name}:/val/000003.png")
    assert image.shape == (320, 320, 3)
    assert image.std() > 5
