"""Which pictures are the same, or nearly, and which are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gfldet.health import duplicates
from gfldet.health.duplicates import Pair, nearly_same, same_pixels
from gfldet.health.survey import look

Scene = Callable[..., NDArray[np.uint8]]


def thumbs(*pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.stack([look(picture).thumb for picture in pictures])


def test_the_same_pixels_in_one_split_and_in_two() -> None:
    digests = [b"a", b"b", b"a", b"a", b"a", b"b"]
    found = same_pixels(digests, ["train", "train", "train", "val", "val", "test"])
    assert found == [Pair(0, 2, 1.0), Pair(0, 3, 1.0), Pair(0, 4, 1.0), Pair(3, 4, 1.0), Pair(1, 5, 1.0)]


def test_a_digest_is_of_pixels_and_shape() -> None:
    flat = np.zeros((4, 6, 3), np.uint8)
    assert look(flat).digest == look(flat.copy()).digest
    assert look(flat).digest != look(flat.reshape(6, 4, 3)).digest
    assert look(flat).contrast == 0


def brighter(picture: Any) -> Any:
    return np.clip(picture.astype(int) + 20, 0, 255).astype(np.uint8)


def shifted(picture: Any) -> Any:
    return np.roll(picture, (2, 3), (0, 1))


@pytest.mark.parametrize(
    "change",
    [
        brighter,
        lambda picture: cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda picture: cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 1),
        lambda picture: cv2.GaussianBlur(picture, (0, 0), 2),
        lambda picture: picture[3:-3, 3:-3],
        shifted,
    ],
)
def test_a_changed_picture_is_nearly_the_same(scene: Scene, change: Callable[[Any], Any]) -> None:
    for seed in range(5):
        picture, other = scene(seed, 320, 240), scene(seed + 100, 320, 240)
        (pair,) = nearly_same(thumbs(picture, other, change(picture)), ["train"] * 3)
        assert (pair.first, pair.second) == (0, 2)
        assert pair.likeness >= duplicates.MIN_CORRELATION


def test_other_pictures_are_not(scene: Scene) -> None:
    pictures = [scene(seed) for seed in range(300)]
    assert nearly_same(thumbs(*pictures), ["train"] * 300) == []
    flat = [np.full((64, 64, 3), level, np.uint8) for level in (0, 90, 90, 200)]
    assert nearly_same(thumbs(*flat), ["train"] * 4) == []
    assert nearly_same(np.zeros((0, 32, 32), np.float32), []) == []


def test_the_most_alike_of_each_split(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are alike, each is told once within its split and once with another one, in pieces too."""
    one = scene(1, 320, 240)
    near = [one, brighter(one), shifted(one), one, brighter(one)]
    splits = ["train", "train", "train", "val", "val"]
    whole = nearly_same(thumbs(*near), splits)
    told = sorted((pair.second, pair.first) for pair in whole)
    assert [second for second, _ in told] == [1, 2, 3, 4, 4]
    assert (3, 0) in told
    assert (4, 1) in told
    assert (4, 3) in told
    monkeypatch.setattr(duplicates, "_CHUNK", 5)
    assert sorted((pair.second, pair.first) for pair in nearly_same(thumbs(*near), splits)) == told


def test_bits_are_counted() -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64)
    assert duplicates._count_bits(values).tolist() == [int(value).bit_count() for value in values]
