"""Pictures that a data set has more than once: the same pixels, or nearly the same picture.

Letters: B pictures.  A picture is a DCT hash of 64 bits, which finds candidates, and its 32 x 32 grey levels, by whose
correlation they are judged.  The hash is that of Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions" (2010), section 3.2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

LOW = 8  # frequencies of a picture in each direction that its hash is made of
# Bits in which the hashes of two pictures that are nearly the same may differ, and the correlation of their grey levels
# that is asked for then.  On video of traffic, pairs below these are mostly of other scenes.
NEAR, MIN_CORRELATION = 10, 0.96
MAX_DISTANCE, MIN_CORRELATION_FAR = 16, 0.98
MIN_CONTRAST = 3.0  # standard deviation of the grey levels; below it there is hardly a picture to compare
_CHUNK = 1 << 22  # pairs of hashes that are compared at a time


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures, by number, of which `second` comes later; `likeness` is 1 for the same pixels."""

    first: int
    second: int
    likeness: float


def same_pixels(digests: Sequence[bytes], splits: Sequence[str]) -> list[Pair]:
    """Each picture whose pixels an earlier one has, once with the first of its own split, once with that of another."""
    own: dict[tuple[bytes, str], int] = {}
    pairs = []
    for number, (digest, split) in enumerate(zip(digests, splits, strict=True)):
        others = [own[digest, other] for other in dict.fromkeys(splits) if other != split and (digest, other) in own]
        pairs += [Pair(other, number, 1.0) for other in others[:1]]
        first = own.setdefault((digest, split), number)
        if first != number:
            pairs.append(Pair(first, number, 1.0))
    return pairs


def nearly_same(thumbs: NDArray[np.float32], splits: Sequence[str]) -> list[Pair]:
    """Each of the pictures (B, 32, 32), grey, that an earlier one is nearly the same as.

    Once with the one of its own split that is most like it, once with that of another.  The memory does not grow with
    the number of pairs: a video of a scene that stands still has them by millions.
    """
    flat = thumbs.reshape(len(thumbs), thumbs.shape[1] * thumbs.shape[2])
    flat = flat - flat.mean(1, keepdims=True)
    contrast = flat.std(1)
    seen = np.flatnonzero(contrast >= MIN_CONTRAST)
    unit = flat[seen] / (contrast[seen, None] * np.sqrt(flat.shape[1]))
    codes, of_split = hashes(thumbs[seen]), np.array(splits, object)[seen]
    pairs: list[Pair] = []
    step = max(1, _CHUNK // max(len(seen), 1))
    for start in range(0, len(seen), step):
        later = np.arange(start, min(start + step, len(seen)))
        earlier = np.arange(later[-1] + 1)
        apart = _count_bits(codes[later, None] ^ codes[None, earlier])
        apart[earlier >= later[:, None]] = 64
        rows, columns = (apart <= MAX_DISTANCE).any(1), (apart <= MAX_DISTANCE).any(0)
        later, earlier, apart = later[rows], earlier[columns], apart[rows][:, columns]
        if not len(later):
            continue
        likeness = unit[later] @ unit[earlier].T
        likeness[(apart > MAX_DISTANCE) | ((apart > NEAR) & (likeness < MIN_CORRELATION_FAR))] = 0
        same_split = of_split[later, None] == of_split[None, earlier]
        for wanted in (same_split, ~same_split):
            alike = np.where(wanted, likeness, 0)
            best = alike.argmax(1)
            score = alike[np.arange(len(later)), best]
            pairs += [
                Pair(int(seen[earlier[best[k]]]), int(seen[later[k]]), float(score[k]))
                for k in np.flatnonzero(score >= MIN_CORRELATION)
            ]
    return pairs


def hashes(thumbs: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(B,) hashes of pictures (B, 32, 32): which of the low frequencies are stronger than their median."""
    if not len(thumbs):
        return np.zeros(0, np.uint64)
    low = np.stack([cv2.dct(thumb)[:LOW, :LOW].ravel() for thumb in thumbs])
    low[:, 0] = 0  # the brightness
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def _count_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many bits of each value are set, as in Warren, "Hacker's Delight", section 5-1; numpy 1 cannot count them."""
    one, two, four = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    values = values - ((values >> np.uint64(1)) & one)
    values = (values & two) + ((values >> np.uint64(2)) & two)
    values = (values + (values >> np.uint64(4))) & four
    return (values * np.uint64(0x0101010101010101)) >> np.uint64(56)
