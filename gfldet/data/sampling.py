"""Which images an epoch shows, and how often: repeat-factor sampling for rare classes, and weights of classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfldet.data.records import Split

HEAVIEST = 10.0  # a class weight that follows from the data is between 1 / HEAVIEST and HEAVIEST


def repeat_factors(split: Split, share: float) -> NDArray[np.float64]:
    """How often (n,) each of a split's n images is shown in an epoch, so that rare classes are seen more often.

    A class that is in less than `share` of the images counts sqrt(share / its share); an image is shown as often as its
    rarest class says, at least once.  Source: Gupta et al., LVIS, CVPR 2019, section 5.
    """
    present = np.zeros((len(split.records), len(split.names)), dtype=bool)
    for row, record in zip(present, split.records, strict=True):
        row[record.classes] = True
    frequency = present.mean(axis=0)
    factor = np.sqrt(np.maximum(1.0, share / np.where(frequency > 0, frequency, np.inf)))
    return np.maximum(1.0, (present * factor).max(axis=1, initial=1.0))


def epoch_images(factors: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The images of one epoch in random order; image i comes floor(factors[i]) times, or once more by its remainder.

    Their number is the same in every epoch, round(sum of the factors).  The k-th showing of image i in the epoch is
    i + k * n, so that each is augmented by a random stream of its own.
    """
    n = len(factors)
    whole = np.floor(factors).astype(np.int64)
    places = rng.permutation(n)
    # Systematic sampling: the remainders in random order, cut at even distances, so that their number is fixed.
    ends = np.cumsum((factors - whole)[places])
    extra = round(float(factors.sum())) - int(whole.sum())
    cuts = (rng.random() + np.arange(extra)) * (ends[-1] / extra) if extra else np.zeros(0)
    counts = whole.copy()
    np.add.at(counts, places[np.searchsorted(ends, cuts, side="right").clip(max=n - 1)], 1)
    showing = np.concatenate([np.arange(count) for count in counts])
    return rng.permutation(np.repeat(np.arange(n), counts) + showing * n)


def balanced_weights(split: Split) -> tuple[float, ...]:
    """A weight for each class: 1 / sqrt(its truths), scaled so that the mean over all truths is 1; 1 without truths."""
    counts = np.zeros(len(split.names))
    for record in split.records:
        counts += np.bincount(record.classes, minlength=len(counts))
    there = counts > 0
    weights = np.ones(len(counts))
    weights[there] = counts[there] ** -0.5
    weights[there] *= counts.sum() / max((weights * counts)[there].sum(), 1e-9)
    return tuple(np.clip(weights, 1 / HEAVIEST, HEAVIEST).round(4).tolist())
