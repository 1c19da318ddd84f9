"""Images in memory -> augmented samples -> training batches.

What a training sample looks like follows from (seed, epoch, position) alone, never from which thread makes it or when:
the data of epoch 7 are the same in a resumed run, and with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfldet.data.augment import apply, letterboxed
from gfldet.data.draw import Augmentation, Drawn, draw
from gfldet.data.image_store import ImageStore
from gfldet.data.records import Split
from gfldet.data.sample import CustomAugment, Sample, customised
from gfldet.data.sampling import epoch_images
from gfldet.ops.images import image_tensor

ORDER, SAMPLES, CUSTOM = 0, 1, 2  # second numbers of the random streams drawn from one seed
CustomAt = Literal["instead", "before", "after"]
BatchKey = tuple[int, NDArray[np.int64]]  # the epoch and its image numbers (B,), from which all of a batch follows
TENSORS = ("images", "batch_idx", "cls", "boxes_px", "ignore_idx", "ignore_px")  # of a batch


@dataclass(frozen=True, slots=True, eq=False)
class TrainBatch:
    """A training batch on the CPU: images (B, H, W, 3) uint8; truths and ignore regions flat over the batch.

    Their boxes (N, 4) and (K, 4) are xyxy in px of the frame.  `files` names the image that begins each sample.
    """

    images: Tensor
    batch_idx: Tensor
    cls: Tensor
    boxes_px: Tensor
    ignore_idx: Tensor
    ignore_px: Tensor
    files: tuple[str, ...]

    def to(self, device: torch.device) -> dict[str, Tensor]:
        """The batch dict that `DetectionModel` takes; images become float in [0, 1], (B, 3, H, W), channels last.

        Boxes stay in px, as the criterion computes with them; dicts of a user's own hold `bboxes`, normalised.
        """
        images = image_tensor(self.images, device)
        rest = {name: getattr(self, name) for name in TENSORS[1:]}
        moved = {name: value.to(device, non_blocking=True) for name, value in rest.items()}
        return {"img": images, **moved, "host_boxes_px": self.boxes_px}

    def pin_memory(self) -> TrainBatch:
        """The same in memory that a GPU copies from by itself, while the processor does something else."""
        tensors = {name: value.pin_memory() for name in TENSORS if len(value := getattr(self, name))}
        return replace(self, **tensors)


def collate(samples: Sequence[Sample], files: Sequence[str]) -> TrainBatch:
    """Samples of one frame size -> a batch."""

    def index(counts: list[int]) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts))

    def flat(boxes: list[NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.concatenate(boxes)).reshape(-1, 4)

    return TrainBatch(
        images=torch.from_numpy(np.stack([s.image for s in samples])),
        batch_idx=index([len(s.boxes) for s in samples]),
        cls=torch.from_numpy(np.concatenate([s.classes for s in samples])).reshape(-1, 1),
        boxes_px=flat([s.boxes for s in samples]),
        ignore_idx=index([len(s.ignore) for s in samples]),
        ignore_px=flat([s.ignore for s in samples]),
        files=tuple(files),
    )


def nothing(frame: tuple[int, int]) -> TrainBatch:
    """The batch of a process that has no image in a step: a black image that is ignored everywhere, of no file.

    Its loss and its gradients are zero, and the process has something to do beside the others.
    """
    height, width = frame
    black = np.zeros((height, width, 3), np.uint8)
    none, everywhere = np.zeros((0, 4), np.float32), np.array([[0, 0, width, height]], np.float32)
    return collate([Sample(black, none, np.zeros(0, np.int64), everywhere)], ())


@dataclass(frozen=True, slots=True, eq=False)
class TrainSet:
    """The training images as augmented batches of `frame` (height, width).

    `custom` is a user's own augmentation; `custom_at` tells where it works: instead of `augmentation`, before it on
    each image as read, or after it on the finished frame.  `repeats` (n,) tells how often an epoch shows each image
    (see `sampling`), first in a frame or as one of the others in a mosaic; None: once.
    """

    split: Split
    store: ImageStore
    frame: tuple[int, int]
    batch: int
    seed: int
    augmentation: Augmentation
    custom: CustomAugment | None = None
    custom_at: CustomAt = "instead"
    repeats: NDArray[np.float64] | None = None
    _ends: NDArray[np.float64] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", None if self.repeats is None else np.cumsum(self.repeats))

    def __len__(self) -> int:
        """Batches an epoch; the last may be smaller."""
        images = len(self.split.records) if self.repeats is None else round(float(self.repeats.sum()))
        return -(-images // self.batch)

    def keys(self, epoch: int) -> Iterator[BatchKey]:
        """The key of each batch of an epoch, in a random order of its own.

        Where an image is shown again in the epoch, n is added to its number each time (see `epoch_images`).
        """
        rng = np.random.default_rng((self.seed, ORDER, epoch))
        if self.repeats is None:
            order = rng.permutation(len(self.split.records))
        else:
            order = epoch_images(self.repeats, rng)
        for start in range(0, len(order), self.batch):
            yield epoch, order[start : start + self.batch]

    def load(self, key: BatchKey, augmentation: Augmentation | None = None) -> TrainBatch:
        """The batch of a key, augmented by `augmentation` (the set's own when None); of no images it is `nothing`."""
        epoch, numbers = key
        if not len(numbers):
            return nothing(self.frame)
        samples = [self.sample(epoch, int(number), augmentation or self.augmentation) for number in numbers]
        n = len(self.split.records)
        return collate(samples, [self.split.records.file_names[int(number) % n] for number in numbers])

    def sample(self, epoch: int, number: int, augmentation: Augmentation) -> Sample:
        """Image `number` (modulo their count n) as epoch `epoch` shows it."""
        records, custom = self.split.records, self.custom

        def read(image: int) -> Sample:
            return self.store.sample(records[image])

        if custom is None:
            return apply(self.drawn(epoch, number, augmentation), read, self.frame)
        own = np.random.default_rng((self.seed, CUSTOM, epoch, number))  # apart from ours

        def changed(sample: Sample) -> Sample:
            return customised(sample, custom, own, len(self.split.names))

        if self.custom_at == "instead":
            return letterboxed(changed(read(number % len(records))), self.frame)
        drawn = self.drawn(epoch, number, augmentation)
        if self.custom_at == "before":
            return apply(drawn, lambda image: changed(read(image)), self.frame)
        return letterboxed(changed(apply(drawn, read, self.frame)), self.frame)

    def drawn(self, epoch: int, number: int, augmentation: Augmentation) -> Drawn:
        """What is drawn by lot for that sample, before any pixel is touched."""
        n = len(self.split.records)
        rng = np.random.default_rng((self.seed, SAMPLES, epoch, number))
        return draw(number % n, n, augmentation, rng, self._ends)
