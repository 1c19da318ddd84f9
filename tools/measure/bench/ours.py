"""What is measured inside gfldet's Python.  Imports stand in the tasks: nothing may start before a core is chosen."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from measure.bench import probe
from measure.bench.scales import scale


def warm() -> dict[str, Any]:
    """Versions; and read what every command reads, so that no measured one pays for a cold disk or list of fonts."""
    import matplotlib.font_manager  # noqa: F401
    import torchvision  # noqa: F401

    return probe.versions("gfldet")


def assigner(problem: str, threads: int, repeats: int, size: int) -> dict[str, Any]:
    """Memory of the first call on a saved problem, then the time of `repeats` more."""
    import numpy as np
    import torch

    from gfldet.assigners import Predictions, TaskAlignedAssigner, Truths
    from gfldet.ops.points import grids
    from measure.bench.problem import STRIDES

    torch.set_num_threads(threads)
    given = {name: torch.from_numpy(value) for name, value in np.load(problem).items()}
    images, count = given["classes"].shape
    predictions = Predictions(given["logits"], given["boxes"])
    index = torch.arange(images).repeat_interleave(count)
    truths = Truths(given["truths"].flatten(0, 1), given["classes"].flatten(), index)
    levels = grids([(size // stride, size // stride) for stride in STRIDES], STRIDES)
    assign = TaskAlignedAssigner(topk=10, alpha=0.5, beta=6.0)

    def call() -> int:
        return len(assign(predictions, truths, levels, reach=15).point)

    memory = probe.extra_memory(call)
    return {"memory": memory, "seconds": probe.seconds(call, repeats), "positives": call()}


def mosaic(data: str, imgsz: int, batch: int, at_least: float) -> dict[str, Any]:
    """Images a second of processor time: the training batches, defaults on, for `at_least` seconds of it."""
    from gfldet.data.draw import Augmentation
    from gfldet.data.gather import open_image
    from gfldet.data.image_store import ImageStore
    from gfldet.data.spec import load_spec
    from gfldet.data.split import load_split
    from gfldet.data.train_set import TrainSet
    from gfldet.machine.cores import set_threads
    from gfldet.machine.memory import memory_budget
    from gfldet.machine.shared import pool

    set_threads(1)
    store = ImageStore((imgsz, imgsz), pool(memory_budget("auto")), lambda record: open_image(record.path))
    split = load_split(load_spec(data), "train", "skip", visit=store.keep, place=store.place)
    batches = TrainSet(split, store, (imgsz, imgsz), batch, seed=0, augmentation=Augmentation())
    batches.load(next(batches.keys(0)))
    done, epoch, began = 0, 1, time.process_time()
    while time.process_time() - began < at_least:
        for key in batches.keys(epoch):
            done += len(batches.load(key).images)
        epoch += 1
    return {"rate": done / (time.process_time() - began)}


def loss(data: str, imgsz: int, batch: int, repeats: int) -> dict[str, Any]:
    """Seconds of whole training steps of gfldet-n, and of what loss and assigner take in them, gradient included."""
    import torch

    from gfldet.config.load import resolve
    from gfldet.machine.cores import threads_of
    from gfldet.machine.memory import freed_memory_kept
    from gfldet.model import Model
    from gfldet.train import prepare

    settings = resolve("train", {"data": data, "imgsz": imgsz, "batch": batch, "val": False, "verbose": False})
    with prepare.run_folder(settings, None) as folder, threads_of(settings.threads), freed_memory_kept() as keep:
        trainer = prepare.prepare_training(settings, Model("gfldet-n").description, None, folder)
        trainer.model.train()
        made = trainer.train.load(next(trainer.train.keys(0)))
        on_device = made.to(trainer.device)
        with torch.autocast(trainer.device.type, dtype=trainer.precision, enabled=trainer.precision is not None):
            maps = [m.detach().requires_grad_() for m in trainer.model.graph(on_device["img"])]

        def step() -> None:
            trainer._step(made)

        def criterion() -> None:
            with torch.autocast(trainer.device.type, dtype=trainer.precision, enabled=trainer.precision is not None):
                trainer.model.criterion(maps, on_device).total.backward()

        step()
        keep()
        criterion()
        return {"step": probe.seconds(step, repeats), "loss": probe.seconds(criterion, repeats)}


def detector(model: str) -> Any:
    """What `probe.frames` and `probe.files` measure."""
    from gfldet.model import Model

    return Model(model)


def export(data: str, imgsz: int, formats: list[str], folder: str, model: str = "gfldet-n") -> dict[str, Any]:
    """Export a model, by default gfldet-n with fresh weights; the files by format."""
    from pathlib import Path

    from gfldet.model import Model

    files = {}
    for format in formats:
        out = str(Path(folder) / f"bench.{'xml' if format == 'openvino' else 'onnx'}")
        given = {"data": data, "imgsz": imgsz, "dynamic": True, "exist_ok": True, "verbose": False}
        files[format] = str(Model(model).export(format=format, out=out, **given))
    return files


def runtime(file: str, data: str, imgsz: int, repeats: int) -> dict[str, Any]:
    """Milliseconds an image of `predict`, from files to `Results`, and of its decoding and bare session in them."""
    from gfldet.data.images import read_image
    from gfldet.data.spec import load_spec
    from gfldet.data.split import index_split
    from gfldet.detect import exported as runner
    from gfldet.model import Model
    from gfldet.ops import letterbox

    paths = [item.path for item in index_split(load_spec(data), "val").items][:40]
    model, engine = Model(file), runner.load(file).engine
    images = [read_image(path) for path in paths]
    sizes = [image.shape for image in images]
    frames = [letterbox.rectangle(s[0], s[1], (imgsz, imgsz), engine.card.multiple) for s in sizes]
    inputs = [runner.planes(letterbox.framed(i, f)[None], engine.card) for i, f in zip(images, frames, strict=True)]

    def whole() -> None:
        for _ in model.predict(paths, stream=True, imgsz=imgsz, verbose=False):
            pass

    def decoding() -> None:
        for path in paths:
            read_image(path)

    def bare() -> None:
        for one in inputs:
            engine.run(one)

    whole()
    bare()
    found: dict[str, list[float]] = {"whole": [], "decoding": [], "bare": []}
    for _ in range(repeats):  # in turns, so that all three meet the same weather
        for name, work in (("whole", whole), ("decoding", decoding), ("bare", bare)):
            found[name] += probe.seconds(work, 1)
    return {name: [1000 * s / len(paths) for s in seconds] for name, seconds in found.items()}


if __name__ == "__main__":
    probe.serve(
        {
            "warm": warm,
            "assigner": assigner,
            "mosaic": mosaic,
            "loss": loss,
            "export": export,
            "runtime": runtime,
            "frames": partial(probe.frames, detector),
            "files": partial(probe.files, detector),
            "scale": scale,
        }
    )
