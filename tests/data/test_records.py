"""Some of the images of a split."""

from __future__ import annotations

import pytest

from gfldet.data.records import spread


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 3, []), (2, 3, [0, 1]), (3, 3, [0, 1, 2]), (5, 3, [0, 1, 2]), (6, 3, [0, 2, 4]), (100, 4, [0, 25, 50, 75])],
)
def test_a_few_are_spread_over_all(count: int, most: int, expected: list[int]) -> None:
    assert list(spread(range(count), most)) == expected
    assert spread([*range(count)], most) == expected
