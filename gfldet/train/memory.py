"""Which batch fits into the memory of a GPU: for `batch=auto`, and to say so when the memory was full."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gfldet.config.kinds import AUTO_BATCH
from gfldet.config.schema import TrainSettings
from gfldet.errors import WorkError, counted
from gfldet.machine.device import mixed_precision
from gfldet.messages import Tell
from gfldet.nn.tasks import DetectionModel
from gfldet.store.checkpoint import first_line
from gfldet.train.progress import Progress
from gfldet.train.trainer import Trainer

USUAL = 16  # the batch that the recipe was made with
MOST = 64  # more keep a GPU no busier, and give a run fewer steps
STEPS = 12  # of an epoch, at least: a run of a few hundred images lives on its steps
SHARE = 0.75  # of the free memory that a step is given: what is freed leaves gaps, and a validation comes beside it
COPIES = 6  # of the weights beside the model and its gradient: moments, average, what `StepGuard` keeps
TRUTHS = 32  # an image of the trial batches
FULL = ("can't allocate memory", "not enough memory")  # what torch says of a CPU's memory


def with_batch(
    settings: TrainSettings, model: DetectionModel, images: int, device: torch.device, tell: Tell
) -> TrainSettings:
    """The settings with a number for `batch=auto`, which is told: on a GPU the largest batch that fits, up to MOST and
    to so many of the `images` that an epoch has STEPS; elsewhere USUAL, as a processor gains nothing from a larger one.
    """
    if settings.batch != AUTO_BATCH:
        return settings
    most = min(MOST, max(USUAL, images // STEPS))
    batch, why = USUAL, "as beside a CPU more would not be faster"
    if device.type == "cuda":
        held = COPIES * sum(p.numel() * p.element_size() for p in model.parameters())
        batch = _largest_on_gpu(model, settings, device, held, most)
        why = f"the most that fit, up to {most}"
    if not batch:
        raise WorkError(f"batch=auto: {_not_even_one(settings, device)}")
    tell(f"batch=auto: {counted(batch, 'image')}, {why}")
    return replace(settings, batch=batch)


def train_in_memory(trainer: Trainer) -> Progress:
    """`Trainer.run`; where the memory is full a WorkError tells which batch would fit, and how to go on."""
    try:
        return trainer.run()
    except (RuntimeError, MemoryError) as error:
        if not is_full(error):
            raise
        reason = first_line(error)
    # Here the error is gone, and with it all that its traceback held.
    raise out_of_memory(trainer, reason)


def is_full(error: BaseException) -> bool:
    """Whether an error tells that there is no memory left, on a GPU or beside it."""
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in FULL)


def out_of_memory(trainer: Trainer, reason: str) -> WorkError:
    """The error that tells which batch would fit: on a GPU measured, elsewhere and in several processes half of it."""
    settings, device = trainer.settings, trainer.device
    batch, (height, width) = settings.batch, settings.height_width
    fits, how = batch // 2, "may fit"
    if device.type == "cuda" and trainer.ranks.size == 1:
        trainer.optimizer.zero_grad()
        torch.cuda.empty_cache()
        fits, how = min(_largest_on_gpu(trainer.model, settings, device, 0, batch), 3 * batch // 4), "would fit"
    head = f"out of memory on {device} with batch={batch} at {height} x {width} px ({reason}); "
    if not fits:
        return WorkError(head + _not_even_one(settings, device))
    again = ""
    if trainer.saved:
        resume = shlex.quote(f"resume={trainer.folder}")
        again = f"; gfldet train {resume} batch={fits} goes on after epoch {trainer.saved}"
    return WorkError(f"{head}batch={fits} {how}{again}")


def _not_even_one(settings: TrainSettings, device: torch.device) -> str:
    height, width = settings.height_width
    return f"not even one image of {height} x {width} px fits on {device}; give a smaller imgsz or another model"


def largest(measure: Callable[[int], int], room: int, most: int) -> int:
    """The largest batch, up to `most`, whose step takes no more than `room` bytes; 0 where there is none.

    `measure(batch)` gives the bytes of a step, or raises torch's OutOfMemoryError.  It is asked for 1, 2, 4, ... until
    a fourth of the room is taken; what more takes lies on the line through the last two.
    """
    points: list[tuple[int, int]] = []
    batch = 1
    while batch <= most:
        try:
            taken = measure(batch)
        except torch.cuda.OutOfMemoryError:
            taken = room + 1
        if taken > room:
            most = batch - 1
            break
        points.append((batch, taken))
        if 4 * taken > room:
            break
        batch *= 2
    if not points:
        return 0
    (before, less), (batch, taken) = points[-2] if len(points) > 1 else (0, 0), points[-1]
    each = max((taken - less) / (batch - before), 1.0)
    return min(most, batch + int((room - taken) / each))


def _largest_on_gpu(model: DetectionModel, settings: TrainSettings, device: torch.device, held: int, most: int) -> int:
    """`largest` for a training step of this model; `held` bytes are left for what the run holds beside it."""
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)

    def measure(batch: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        trial_step(model, batch, settings.height_width, mixed_precision(settings.amp, device), device)
        return torch.cuda.max_memory_allocated(device) - before

    found = largest(measure, int(SHARE * free) - held, most)
    torch.cuda.empty_cache()
    return found


def trial_step(
    model: DetectionModel, batch: int, frame: tuple[int, int], precision: torch.dtype | None, device: torch.device
) -> None:
    """Forward and backward of `batch` black images with TRUTHS boxes each, in a copy of the model, which is dropped."""
    trial = copy.deepcopy(model).to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
        loss, _ = trial(_trial_batch(batch, frame, device))
    loss.backward()


def _trial_batch(batch: int, frame: tuple[int, int], device: torch.device) -> dict[str, Tensor]:
    """The batch dict of a trial."""
    height, width = frame
    sides = np.array([width, height, width, height], np.float32)
    corners = np.sort(np.random.default_rng(0).random((batch * TRUTHS, 2, 2), np.float32), axis=1).reshape(-1, 4)
    image = torch.zeros((batch, 3, height, width), device=device).to(memory_format=torch.channels_last)
    return {
        "img": image,
        "batch_idx": torch.arange(batch, device=device).repeat_interleave(TRUTHS),
        "cls": torch.zeros((batch * TRUTHS, 1), dtype=torch.int64, device=device),
        "boxes_px": torch.from_numpy(corners * sides).to(device),
    }
