"""Repeat factors and class weights by hand; the images of an epoch: as many as said, in every epoch as many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gfldet.data.records import Record, Split
from gfldet.data.sampling import balanced_weights, epoch_images, repeat_factors


def split(*images: list[int], names: int = 3) -> Split:
    def record(classes: list[int]) -> Record:
        boxes = np.zeros((len(classes), 4), np.float32)
        return Record(Path("x"), 0, "x", 9, 9, boxes, np.array(classes, np.int64), boxes[:0])

    return Split("train", tuple(map(record, images)), tuple("abcdef"[:names]), tuple(range(names)))


def test_factors_by_hand() -> None:
    # a is in 4 of 4 images, b in 2, c in 1, and nothing in the last but a.
    found = repeat_factors(split([0, 0], [0, 1], [0, 1, 2], [0]), share=1.0)
    assert found.tolist() == pytest.approx([1, 2**0.5, 2, 1])
    assert repeat_factors(split([0], [0, 1], [], [0]), share=0.5).tolist() == pytest.approx([1, 2**0.5, 1, 1])


def test_factors_of_nothing() -> None:
    assert repeat_factors(split([], []), share=1.0).tolist() == [1, 1]


def test_an_epoch_has_the_same_number_of_images_each_time() -> None:
    factors = np.array([1.0, 1.5, 2.25, 1.0, 3.0, 1.1])
    shown = np.zeros(6)
    for seed in range(400):
        order = epoch_images(factors, np.random.default_rng(seed))
        assert len(order) == 10  # the sum is 9.85
        assert len(set(order.tolist())) == 10  # each showing has a number of its own
        counts = np.bincount(order % 6, minlength=6)
        assert (counts >= np.floor(factors)).all()
        assert (counts <= np.floor(factors) + 1).all()
        assert set((order // 6)[order % 6 == 4].tolist()) == {0, 1, 2}
        shown += counts
    np.testing.assert_allclose(shown / 400, factors * 10 / 9.85, rtol=0.06)


def test_an_epoch_without_repeats_shows_each_once() -> None:
    assert sorted(epoch_images(np.ones(5), np.random.default_rng(0)).tolist()) == [0, 1, 2, 3, 4]


def test_weights_have_a_mean_of_one_over_the_truths() -> None:
    found = balanced_weights(split([0] * 16, [1] * 4))
    assert found[0] / found[1] == pytest.approx(0.5, abs=1e-3)
    assert 16 * found[0] + 4 * found[1] == pytest.approx(20, abs=0.01)
    assert found[2] == 1  # no truth to weigh
    assert balanced_weights(split([], [])) == (1, 1, 1)
