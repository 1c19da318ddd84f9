"""A validation split for data that name none: a share of the training images, chosen by their names.

Which images are held out follows from the names and the share alone, not from a seed, the order of the files or where
they lie: so `train` and `val` hold out the same images, on every machine.  The images with the lowest hashes are taken;
a hash goes across the alphabet, so neighbours in a list do not go together.  Copies that a program made of one picture
(`NAME.rf.HASH.jpg`) stay together, or the validation would know its images from training.  Frames of one video cannot
be told from other numbered images, and land on both sides: name a `val` of your own for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath


def held_out(file_names: Sequence[str], share: float) -> list[bool]:
    """Whether each image is held out; at least one is, and at least one is not, if there are two pictures or more.

    Of `file_names`, paths with forward slashes, the base name counts, without its suffix.
    """
    pictures = [PurePosixPath(name).name.split(".rf.")[0] for name in file_names]
    pictures = [PurePosixPath(picture).stem for picture in pictures]
    order = sorted(
        set(pictures), key=lambda picture: (hashlib.sha256(picture.encode("utf-8", "replace")).digest(), picture)
    )
    sizes = dict.fromkeys(order, 0)
    for picture in pictures:
        sizes[picture] += 1
    wanted, taken, chosen = max(1, round(share * len(pictures))), 0, set()
    for picture in order[:-1]:  # one is left for training
        if taken >= wanted:
            break
        chosen.add(picture)
        taken += sizes[picture]
    return [picture in chosen for picture in pictures]
