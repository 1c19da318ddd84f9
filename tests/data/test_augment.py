"""Augmentation: whatever is done to the pixels, the boxes stay on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gfldet.data.augment import apply, change_colour, colour_matrix, lay_out, letterboxed, mixup, mosaic, single
from gfldet.data.draw import NO_AUGMENTATION, Augmentation, Colour, Drawn, Layout, Placed, draw
from gfldet.data.sample import Sample, checked
from gfldet.errors import DataError
from gfldet.ops import letterbox
from gfldet.ops.letterbox import PAD_COLOUR

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8)
FRAME = (96, 160)
PLAIN = Augmentation(hsv_h=0, hsv_s=0, hsv_v=0)  # all that moves pixels without turning them


def picture(c: int = 0, height: int = 100, width: int = 80, box: tuple[int, ...] = (20, 30, 60, 70)) -> Sample:
    """A grey image with one rectangle in the colour of class `c`, which is also an ignore region."""
    image = np.full((height, width, 3), 90, np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = COLOURS[c]
    boxes = np.array([box], np.float32)
    return Sample(image, boxes, np.array([c]), boxes.copy())


def alone(sample: Sample, strengths: Augmentation, rng: np.random.Generator, frame: tuple[int, int] = FRAME) -> Sample:
    """The sample by itself under what is drawn for it."""
    return lay_out(draw(0, 1, replace(strengths, mosaic=0, mixup=0), rng).layout, lambda image: sample, frame)


def none() -> Sample:
    empty = np.zeros((0, 4), np.float32)
    return Sample(np.full((50, 50, 3), 90, np.uint8), empty, np.zeros(0, np.int64), empty)


def bounds(image: np.ndarray, c: int) -> np.ndarray | None:
    """xyxy of the pixels that are at least half of colour `c`; None if there are fewer than two columns or rows."""
    like = np.abs(image.astype(int) - COLOURS[c]).max(-1) < 85
    rows, columns = like.any(1).nonzero()[0], like.any(0).nonzero()[0]
    if len(rows) < 2 or len(columns) < 2:
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("strengths", [PLAIN, replace(PLAIN, flipud=0.5, scale=0.9, translate=0.4)])
def test_boxes_lie_on_their_pixels_in_single_images(strengths: Augmentation) -> None:
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(60):
        out = alone(picture(height=int(rng.integers(75, 200)), width=int(rng.integers(65, 200))), strengths, rng)
        assert out.image.shape == (*FRAME, 3)
        there = bounds(out.image, 0)
        if len(out.boxes):
            assert there is not None
            np.testing.assert_allclose(out.boxes[0], there, atol=1.1)
            kept += 1
        elif there is not None:
            assert min(there[2:] - there[:2]) <= 3 or (there[2:] - there[:2]).prod() < 0.2 * 40 * 40
    assert kept > 40


@pytest.mark.parametrize("frame", [FRAME, (160, 64), (96, 96)])
def test_boxes_lie_on_their_pixels_in_mosaics(frame: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    strengths, kept = replace(PLAIN, flipud=0.5), 0
    for _ in range(40):
        samples = [picture(c, int(rng.integers(75, 240)), int(rng.integers(65, 240))) for c in range(4)]
        layout = draw(0, 4, strengths, rng).layout
        assert layout.centre is not None
        out = mosaic(samples, layout.images, layout.centre, frame)
        assert out.image.shape == (*frame, 3)
        assert len(out.boxes) == len(out.classes) == len(set(out.classes.tolist()))
        for box, c in zip(out.boxes, out.classes, strict=True):
            np.testing.assert_allclose(box, bounds(out.image, int(c)), atol=1.1)
            kept += 1
    assert kept > 80


def test_turned_boxes_are_the_hull_of_their_pixels() -> None:
    rng = np.random.default_rng(2)
    strengths, whole = replace(PLAIN, degrees=180, shear=20, flipud=0.5), 0
    for _ in range(60):
        out = alone(picture(), strengths, rng)
        for box in out.boxes:
            there = bounds(out.image, 0)
            assert there is not None
            assert (there[:2] >= box[:2] - 1.5).all()
            assert (there[2:] <= box[2:] + 1.5).all()
            if (box[:2] > 1).all() and (box[2:] < np.array(FRAME[::-1]) - 1).all():
                np.testing.assert_allclose(box, there, atol=2.5)  # a sharp corner fades before it ends
                whole += 1
    assert whole > 25


def test_ignore_regions_move_with_their_pixels() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        out = apply(draw(0, 9, PLAIN, rng), lambda image: picture(min(image, 1)), FRAME)
        assert {tuple(box) for box in out.boxes.tolist()} <= {tuple(box) for box in out.ignore.tolist()}


def test_a_sliver_of_an_ignore_region_stays_and_one_of_a_truth_goes() -> None:
    sample = picture(height=100, width=100, box=(0, 0, 40, 100))

    out = single(sample, Placed(0, shift=(-0.38, 0.0)), (100, 100))
    assert out.boxes.tolist() == []
    np.testing.assert_allclose(out.ignore, [[0, 0, 2, 100]], atol=1e-4)


def test_small_boxes_that_are_not_cut_stay() -> None:
    sample = replace_boxes(picture(height=64, width=64), [(10, 10, 11, 11.5), (63.5, 3, 64, 9)])
    out = single(sample, Placed(0), (64, 64))
    assert out.boxes.tolist() == sample.boxes.tolist()


@pytest.mark.parametrize("placed", [Placed(0), Placed(0, mirrored=True), Placed(0, mirrored=True, flipped=True)])
def test_every_truth_that_lies_in_the_image_stays(placed: Placed) -> None:
    """Also the smallest at the borders, whatever the sizes of image and frame: rounding cuts nothing off.

    The image is as the store keeps it: it fits the frame on one side, or is smaller.
    """
    rng = np.random.default_rng(7)
    for _ in range(300):
        frame = (32 * int(rng.integers(2, 12)), 32 * int(rng.integers(2, 12)))
        height, width = (int(v) for v in rng.integers(20, 500, 2))
        fitted = letterbox.fit(height, width, frame)
        if fitted.resized_height < height:
            height, width = fitted.resized_height, fitted.resized_width
        side = rng.choice([0.2, 1, 2, 3, 8], (20, 1))
        room = np.maximum(np.array([width, height]) - side, 0)
        low = rng.choice([0, 1, 2], (20, 2))
        low = np.where(low == 2, rng.random((20, 2)), low) * room  # at a border or anywhere
        boxes = np.concatenate((low, np.minimum(low + side, [width, height])), axis=1).astype(np.float32)
        sample = Sample(np.zeros((height, width, 3), np.uint8), boxes, np.arange(20), boxes)
        out = single(sample, placed, frame)
        assert out.classes.tolist() == list(range(20)), (frame, height, width)
        assert len(out.ignore) == 20
        scale = min(frame[0] / height, frame[1] / width)
        size, expected = (b[:, 2:] - b[:, :2] for b in (out.boxes, boxes * scale))
        assert (size >= 0.6 * expected).all()  # one row fewer of an image of three rows


def replace_boxes(sample: Sample, boxes: list[tuple[float, ...]]) -> Sample:
    return Sample(sample.image, np.array(boxes, np.float32), np.zeros(len(boxes), np.int64), sample.ignore)


def test_without_augmentation_an_image_of_the_frame_stays_as_it_is() -> None:
    first = picture(height=96, width=160)
    out = apply(draw(0, 9, NO_AUGMENTATION, np.random.default_rng(0)), only(first), FRAME)
    assert (out.image == first.image).all()
    assert out.boxes.tolist() == first.boxes.tolist()
    assert out.classes.tolist() == [0]


def only(first: Sample) -> Callable[[int], Sample]:
    """A source that has image 0 alone."""

    def source(image: int) -> Sample:
        assert image == 0, "no second image was wanted"
        return first

    return source


def test_without_augmentation_an_image_is_letterboxed() -> None:
    out = single(picture(height=48, width=48, box=(10, 20, 30, 40)), Placed(0), FRAME)
    assert (out.image[:, :31] == PAD_COLOUR).all()
    assert (out.image[:, 129:] == PAD_COLOUR).all()
    assert out.boxes.tolist() == [[32 + 20, 40, 32 + 60, 80]]


@pytest.mark.parametrize(("name", "axis"), [("fliplr", 1), ("flipud", 0)])
def test_flips(name: str, axis: int) -> None:
    first = picture(height=96, width=160, box=(20, 30, 61, 75))
    always = alone(first, replace(NO_AUGMENTATION, **{name: 1.0}), np.random.default_rng(0))
    assert (always.image == np.flip(first.image, axis)).all()
    assert always.boxes.tolist() == ([[99, 30, 140, 75]] if axis else [[20, 21, 61, 66]])


@pytest.mark.parametrize(("name", "amount"), [("degrees", 30.0), ("shear", 20.0), ("scale", 0.5)])
def test_what_is_off_does_not_change_the_size(name: str, amount: float) -> None:
    rng, first = np.random.default_rng(1), picture(height=96, width=160, box=(70, 40, 90, 60))

    def sizes(strengths: Augmentation) -> set[tuple[float, ...]]:
        found = [alone(first, strengths, rng).boxes[0] for _ in range(10)]
        return {tuple((box[2:] - box[:2]).round(3)) for box in found}

    shifts = replace(NO_AUGMENTATION, translate=0.1, fliplr=0.5, flipud=0.5)
    assert sizes(shifts) == {(20.0, 20.0)}
    assert len(sizes(replace(shifts, **{name: amount}))) == 10


def test_colours_change_and_boxes_do_not() -> None:
    first, strengths = picture(), Augmentation()
    colour = draw(0, 1, strengths, np.random.default_rng(0)).colour
    assert colour is not None
    out = change_colour(first, colour)
    assert (out.image != first.image).any()
    assert out.boxes is first.boxes
    assert draw(0, 1, replace(strengths, hsv_h=0, hsv_s=0, hsv_v=0), np.random.default_rng(0)).colour is None


def test_colour_gains_by_hand() -> None:
    out = change_colour(picture(), Colour(hue=0.0, saturation=0.0, value=0.5))  # no colour, half as bright
    assert set(map(tuple, out.image.reshape(-1, 3).tolist())) == {
        (45, 45, 45),
        (43, 43, 43),
    }  # pure red is 85 on average


def test_mixup_keeps_the_truths_of_both() -> None:
    a, b = picture(0, 40, 40, (5, 5, 20, 20)), picture(2, 40, 40, (10, 10, 35, 30))
    out = mixup(a, b, 0.4)
    assert out.boxes.tolist() == [*a.boxes.tolist(), *b.boxes.tolist()]
    assert out.classes.tolist() == [0, 2]
    low, high = np.minimum(a.image, b.image), np.maximum(a.image, b.image)
    assert ((out.image >= low) & (out.image <= high)).all()
    assert 0 < out.image[7, 7, 0] < 255


def test_a_record_by_hand() -> None:
    """Images of 64 x 64 px in shades of their own: a mosaic around the middle, mixed with a single image, darkened."""
    boxes = [(8, 8, 40, 40), (8, 8, 40, 40), (10, 20, 30, 44), (8, 8, 40, 40), (10, 20, 30, 44)]

    def source(number: int) -> Sample:
        box = np.array([boxes[number]], np.float32)
        return Sample(np.full((64, 64, 3), 40 * (number + 1), np.uint8), box, np.array([number]), box[:0])

    four = (
        Placed(0, scale=0.25),  # 16 px: smaller than its quarter, so it touches the centre
        Placed(1, scale=0.5, mirrored=True),  # fills its quarter
        Placed(2, shift=(0.25, 0.5)),  # 32 px do not fit: 8 of them lie left of its quarter, 16 above it
        Placed(3, scale=0.25, shift=(0.9, 0.9)),
    )
    other = Layout((Placed(4, shift=(0.125, -0.25)),))  # 8 px to the right, 16 up
    out = apply(Drawn(Layout(four, (0.5, 0.5)), other, 0.25, Colour(value=0.5)), source, (64, 64))
    np.testing.assert_allclose(
        out.boxes, [[18, 18, 26, 26], [44, 4, 60, 20], [2, 36, 22, 60], [34, 34, 42, 42], [18, 4, 38, 28]], atol=1e-4
    )
    assert out.classes.tolist() == [0, 1, 2, 3, 4]
    mosaic_shades = {(20, 20): 40, (5, 40): 80, (40, 5): 120, (40, 40): 160, (5, 20): PAD_COLOUR}
    for (y, x), shade in mosaic_shades.items():
        beside = 200 if x >= 8 and y < 48 else PAD_COLOUR
        assert out.image[y, x, 0] == pytest.approx(0.5 * (0.25 * shade + 0.75 * beside), abs=1), (y, x)


def test_mosaic_and_mixup_close() -> None:
    closed = replace(PLAIN, mixup=1.0).without_mosaic()
    assert (closed.mosaic, closed.mixup) == (0, 0)
    assert replace(closed, mosaic=PLAIN.mosaic) == PLAIN
    apply(draw(0, 9, closed, np.random.default_rng(0)), only(picture()), FRAME)


@pytest.mark.parametrize("mixing", [0.0, 1.0])
@pytest.mark.parametrize("strengths", [Augmentation(), NO_AUGMENTATION])
def test_images_without_truths(strengths: Augmentation, mixing: float) -> None:
    drawn = draw(0, 9, replace(strengths, mixup=mixing), np.random.default_rng(0))
    out = apply(drawn, lambda image: none(), FRAME)
    assert out.boxes.shape == out.ignore.shape == (0, 4)
    assert out.classes.shape == (0,)
    assert out.boxes.dtype == np.float32


def test_thousands_of_boxes_all_stay() -> None:
    corners = np.random.default_rng(0).uniform(0, 90, (6000, 2))
    many = replace_boxes(picture(height=96, width=96), [(x, y, x + 3, y + 3) for x, y in corners])
    assert len(single(many, Placed(0), (96, 96)).boxes) == 6000
    assert len(letterboxed(many, (64, 64)).boxes) == 6000


def test_the_same_generator_gives_the_same_sample() -> None:
    strengths = replace(Augmentation(), mixup=0.5, degrees=10, shear=5)
    a, b, c = (apply(draw(0, 2, strengths, np.random.default_rng(seed)), picture, FRAME) for seed in (7, 7, 8))
    assert (a.image == b.image).all()
    assert a.boxes.tolist() == b.boxes.tolist()
    assert (a.image != c.image).any()


def test_checked_takes_what_is_usable() -> None:
    odd = Sample(picture().image[:, ::-1], [[1, 2, 3, 4]], [1], [])  # type: ignore[arg-type]
    out = checked(odd, "mine", 2)
    assert out.image.flags.c_contiguous
    assert (out.boxes.dtype, out.classes.dtype, out.ignore.shape) == (np.float32, np.int64, (0, 4))
    assert checked(Sample(picture().image, [], [], []), "mine", 2).boxes.shape == (0, 4)  # type: ignore[arg-type]


def changed(**fields: Any) -> Callable[[], Any]:
    sample = picture()
    whole = {name: fields.get(name, getattr(sample, name)) for name in ("image", "boxes", "classes", "ignore")}
    return lambda: Sample(**whole)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: None, "returned NoneType; return a gfldet.data.sample.Sample"),
        (lambda: (picture().image, []), "returned tuple"),
        (changed(image=np.zeros((5, 5, 3), np.float32)), r"image is float32 \(5, 5, 3\); expected uint8"),
        (changed(image=np.zeros((5, 5), np.uint8)), r"image is uint8 \(5, 5\)"),
        (changed(image=np.zeros((0, 5, 3), np.uint8)), r"image is uint8 \(0, 5, 3\)"),
        (changed(boxes=np.zeros((1, 5))), "boxes: expected finite numbers"),
        (changed(boxes=np.array([[1, 2, np.nan, 4]])), "boxes: expected finite numbers"),
        (changed(boxes="none"), "boxes: expected finite numbers"),
        (changed(boxes=np.array([[50, 50, 20, 20]])), r"boxes: \[50.0, 50.0, 20.0, 20.0\] is no left, top, right"),
        (changed(ignore=np.zeros((2, 3))), "ignore: expected finite numbers"),
        (changed(boxes=np.zeros((2, 4))), "2 boxes but 1 class"),
        (changed(classes=np.array([2])), r"classes \[2\]; expected whole numbers from 0 to 1"),
        (changed(classes=np.array([0.5])), r"classes \[0.5\]"),
    ],
)
def test_what_an_augmentation_of_ones_own_may_not_return(made: Callable[[], Any], told: str) -> None:
    with pytest.raises(DataError, match=f"augment mine: .*{told}"):
        checked(made(), "mine", 2)


def test_colour_matrix_identities() -> None:
    np.testing.assert_allclose(colour_matrix(0, 1, 1), np.eye(3), atol=1e-12)
    grey = np.array([90.0, 90.0, 90.0])
    np.testing.assert_allclose(colour_matrix(0.7, 1.3, 0.5) @ grey, grey / 2)  # greys have no hue and no saturation
    third = colour_matrix(2 * np.pi / 3, 1, 1)  # a third of the circle: red to green to blue
    np.testing.assert_allclose(third @ np.array([1.0, 0, 0]), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(np.linalg.matrix_power(third, 3), np.eye(3), atol=1e-12)
