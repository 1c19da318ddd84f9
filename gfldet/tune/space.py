"""Which settings vary, and within which bounds.

Few, so that some twenty trials tell something of each: those that made a clear difference in RECIPE.md, and one for
one data set and against another.  The rate (half of it costs .02 to .03, and no rate suits all), mosaic (worth .05 on
cards, costs .05 on kangaroos), the change of sizes, and the two flips, of which no data set says by itself whether they
are right.  Weight decay follows the rate and the length of the run; what was level on all sets is left alone.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

LR = "lr0"
AUGMENTATIONS = ("mosaic", "scale", "fliplr", "flipud")
VARIED = (LR, *AUGMENTATIONS)
TIMES = 3.0  # the rate is varied from a third of the default to three times that
LARGEST_SCALE = 0.75  # sizes from a fourth to 1.75 times


@dataclass(frozen=True, slots=True)
class Between:
    """Numbers from `low` to `high`; `log` draws them evenly by their logarithm."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def rounded(self, value: float) -> float:
        """The value with as many digits as matter, which never leaves the bounds."""
        return min(self.high, max(self.low, float(f"{value:.3g}") if self.log else round(value, 2)))


@dataclass(frozen=True, slots=True)
class OneOf:
    """A few numbers."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        return " or ".join(f"{value:g}" for value in self.values)

    def rounded(self, value: float) -> float:
        return value


Space = Mapping[str, Between | OneOf]


def space_around(defaults: Mapping[str, float], names: Container[str]) -> Space:
    """The settings of VARIED that are among `names`, around their `defaults`, which lie within."""
    rate = defaults[LR]
    whole: dict[str, Between | OneOf] = {
        LR: Between(float(f"{rate / TIMES:.2g}"), min(1.0, float(f"{rate * TIMES:.2g}")), log=True),
        "mosaic": Between(0.0, 1.0),
        "scale": Between(0.0, max(LARGEST_SCALE, defaults["scale"])),
        "fliplr": OneOf(tuple(sorted({0.0, 0.5, defaults["fliplr"]}))),
        "flipud": OneOf(tuple(sorted({0.0, 0.5, defaults["flipud"]}))),
    }
    return {name: bounds for name, bounds in whole.items() if name in names}
