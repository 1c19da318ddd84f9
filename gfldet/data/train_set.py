"""Images in memory -> augmented samples -> training batches.

What a training sample looks like follows from (seed, epoch, position) alone, never from which thread makes it or when:
the data of epoch 7 are the same in a resumed run, and with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfldet.data.augment import Augmentation, CustomAugment, Sample, augmented, checked, letterboxed
from gfldet.data.image_store import ImageStore
from gfldet.data.records import Split
from gfldet.data.sampling import epoch_images
from gfldet.ops.images import image_tensor

ORDER, SAMPLES = 0, 1  # first numbers of the random streams drawn from one seed


@dataclass(frozen=True, slots=True, eq=False)
class TrainBatch:
    """A training batch on the CPU: images (B, H, W, 3) uint8; truths and ignore regions flat over the batch, boxes xywh
    normalised to the frame; `files` names the images that begin each sample, for messages."""

    images: Tensor
    batch_idx: Tensor
    cls: Tensor
    bboxes: Tensor
    ignore_idx: Tensor
    ignore_bboxes: Tensor
    files: tuple[str, ...]

    def to(self, device: torch.device) -> dict[str, Tensor]:
        """The batch dict that `DetectionModel` takes; images become float in [0, 1], (B, 3, H, W), channels last."""
        images = image_tensor(self.images, device)
        rest = {name: getattr(self, name) for name in ("batch_idx", "cls", "bboxes", "ignore_idx", "ignore_bboxes")}
        return {"img": images, **{name: value.to(device, non_blocking=True) for name, value in rest.items()}}


def collate(samples: Sequence[Sample], files: Sequence[str]) -> TrainBatch:
    """Samples of one frame size -> a batch."""
    height, width = samples[0].image.shape[:2]

    def index(counts: list[int]) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts))

    def normalised(boxes: list[NDArray[np.float32]]) -> Tensor:
        flat = torch.from_numpy(np.concatenate(boxes)).reshape(-1, 4)
        low, high = flat[:, :2], flat[:, 2:]
        return torch.cat(((low + high) / 2, high - low), dim=1) / torch.tensor([width, height, width, height])

    return TrainBatch(
        images=torch.from_numpy(np.stack([s.image for s in samples])),
        batch_idx=index([len(s.boxes) for s in samples]),
        cls=torch.from_numpy(np.concatenate([s.classes for s in samples])).reshape(-1, 1),
        bboxes=normalised([s.boxes for s in samples]),
        ignore_idx=index([len(s.ignore) for s in samples]),
        ignore_bboxes=normalised([s.ignore for s in samples]),
        files=tuple(files),
    )


@dataclass(frozen=True, slots=True, eq=False)
class TrainSet:
    """The training images as augmented batches of `frame` (height, width).

    `repeats` (n,) says how often an epoch shows each image (see `sampling`); None: once.
    """

    split: Split
    store: ImageStore
    frame: tuple[int, int]
    batch: int
    seed: int
    augmentation: Augmentation
    custom: CustomAugment | None = None
    repeats: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Batches an epoch; the last may be smaller."""
        images = len(self.split.records) if self.repeats is None else round(float(self.repeats.sum()))
        return -(-images // self.batch)

    def keys(self, epoch: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(epoch, image numbers (B,)) of each batch of an epoch, in a random order of its own.

        Where an image is shown again in the epoch, n is added to its number each time (see `epoch_images`).
        """
        rng = np.random.default_rng((self.seed, ORDER, epoch))
        if self.repeats is None:
            order = rng.permutation(len(self.split.records))
        else:
            order = epoch_images(self.repeats, rng)
        for start in range(0, len(order), self.batch):
            yield epoch, order[start : start + self.batch]

    def load(self, key: tuple[int, NDArray[np.int64]], augmentation: Augmentation | None = None) -> TrainBatch:
        """The batch of a key, augmented by `augmentation` (the set's own when None)."""
        epoch, numbers = key
        samples = [self.sample(epoch, int(number), augmentation or self.augmentation) for number in numbers]
        n = len(self.split.records)
        return collate(samples, [self.split.records[int(number) % n].file_name for number in numbers])

    def sample(self, epoch: int, number: int, augmentation: Augmentation) -> Sample:
        """Image `number` (modulo their count n) as epoch `epoch` shows it."""
        rng = np.random.default_rng((self.seed, SAMPLES, epoch, number))
        records = self.split.records
        first = self.store.sample(records[number % len(records)])
        if self.custom is not None:
            name = getattr(self.custom, "__name__", type(self.custom).__name__)
            made = checked(self.custom(_writable(first), rng), name, len(self.split.names))
            return letterboxed(made, self.frame)

        def draw() -> Sample:
            return self.store.sample(records[rng.integers(len(records))])

        return augmented(first, draw, self.frame, augmentation, rng)


def _writable(sample: Sample) -> Sample:
    """A copy that a user's function may write into."""
    return Sample(sample.image.copy(), sample.boxes.copy(), sample.classes.copy(), sample.ignore.copy())
