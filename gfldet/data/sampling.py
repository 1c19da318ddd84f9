"""Which images an epoch shows, and how often (repeat-factor sampling for rare classes); and class weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfldet.data.records import Split

HEAVIEST = 10.0  # a class weight computed from the data lies between 1 / HEAVIEST and HEAVIEST


def repeat_factors(split: Split, share: float) -> NDArray[np.float64]:
    """Repeat factor (n,) of each of a split's n images: how often an epoch shows it, more often for rare classes.

    A class that occurs in less than `share` of the images has the factor sqrt(share / its share), any other class 1.
    An image has the factor of its rarest class, at least 1.  Source: Gupta et al., LVIS, CVPR 2019, section 5.
    """
    records, image = split.records, split.records.images
    present = np.unique(image * len(split.names) + records.classes) % len(split.names)  # once an image
    frequency = np.bincount(present, minlength=len(split.names)) / len(records)
    factor = np.sqrt(np.maximum(1.0, share / np.where(frequency > 0, frequency, np.inf)))
    factors = np.ones(len(records))
    np.maximum.at(factors, image, factor[records.classes])
    return factors


def epoch_images(factors: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The images of one epoch in random order.

    Image i comes floor(factors[i]) times, and once more with a probability of about the remainder.  Every epoch has
    the same number of images, round(sum of the factors).  The k-th copy of image i in the epoch is i + k * n, so that
    each copy has its own random stream for augmentation.
    """
    n = len(factors)
    whole = np.floor(factors).astype(np.int64)
    places = rng.permutation(n)
    # Systematic sampling: lay the remainders end to end in random order and cut at even distances.  This fixes
    # the number of extra copies.
    ends = np.cumsum((factors - whole)[places])
    extra = round(float(factors.sum())) - int(whole.sum())
    cuts = (rng.random() + np.arange(extra)) * (ends[-1] / extra) if extra else np.zeros(0)
    counts = whole.copy()
    np.add.at(counts, places[np.searchsorted(ends, cuts, side="right").clip(max=n - 1)], 1)
    showing = np.concatenate([np.arange(count) for count in counts])
    return rng.permutation(np.repeat(np.arange(n), counts) + showing * n)


def balanced_weights(split: Split) -> tuple[float, ...]:
    """A weight for each class: 1 / sqrt(number of its truths), scaled to a mean of 1 over all truths.

    A class without truths has the weight 1.
    """
    counts = np.bincount(split.records.classes, minlength=len(split.names)).astype(np.float64)
    there = counts > 0
    weights = np.ones(len(counts))
    weights[there] = counts[there] ** -0.5
    weights[there] *= counts.sum() / max((weights * counts)[there].sum(), 1e-9)
    return tuple(np.clip(weights, 1 / HEAVIEST, HEAVIEST).round(4).tolist())
