"""The command `val`: a model that finds, and settings, to its metrics and what is written of them.

Apart from `model`, so that a prediction does not wait for what a validation reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import gfldet
from gfldet.config.load import dump
from gfldet.config.schema import ValSettings
from gfldet.data.eval_set import EvalSet
from gfldet.data.likeness import likeness
from gfldet.data.load import LoadedSplit, eval_set, load_images, open_data, tell_findings
from gfldet.detect.detector import Detector, Selection
from gfldet.detect.validate import validate
from gfldet.machine.cores import loader_threads
from gfldet.machine.memory import memory_budget
from gfldet.machine.shared import Pool, pool
from gfldet.messages import teller, warn
from gfldet.metrics.coco import DetectionMetrics, check_evaluator, format_table
from gfldet.ops.letterbox import check_frame
from gfldet.ops.tiles import tiles_of
from gfldet.ranks.value import Ranks
from gfldet.report.run_page import REPORT, write_run_page
from gfldet.report.validation import curves_of, draw_examples, write_validation
from gfldet.viz.beside import meanwhile

OWN = {"device", "threads", "workers", "verbose", "plots"}  # may differ: no result depends on them


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is measured: where it came from, its classes, what makes it ready to find, and what gives a text
    that tells it from others."""

    source: str
    names: tuple[str, ...]
    detector: Callable[[], Detector]
    likeness: Callable[[], str]


def measure(subject: Subject, settings: ValSettings, folder: Path, ranks: Ranks) -> DetectionMetrics:
    """The metrics of a model on a split, which its processes share out; rank 0 writes them into the run's folder."""
    ranks.check_same("settings", lambda: {**dump(settings, OWN), "gfldet": gfldet.__version__})
    memory = pool(memory_budget("auto"), ranks.local_size, ranks.gathered)
    detector, loaded, data = ranks.together(lambda: _opened(subject, settings, memory))
    ranks.check_same("what they measure", lambda: {**likeness(loaded.split), "the model": subject.likeness()})
    found = validate(
        detector,
        data,
        Selection(**settings.selection()),
        loader_threads(settings.workers, detector.device == "cpu", ranks.local_size),
        settings.evaluator,
        ranks=ranks,
    )
    if ranks.leads:
        plots = settings.plots and _can_plot()
        with meanwhile(curves_of(folder, found.metrics, loaded.split.names) if plots else ()):
            write_validation(folder, found, loaded.split)
            teller(settings.verbose)(format_table(found.metrics))
        if plots:
            draw_examples(folder, found, loaded.split, loaded.store)
        if settings.plots:
            write_run_page(folder / REPORT, found, loaded.split, loaded.store, f"{subject.source} on {settings.data}")
    return found.metrics


def _opened(subject: Subject, settings: ValSettings, memory: Pool) -> tuple[Detector, LoadedSplit, EvalSet]:
    """The model, the split with its images, those that `memory` has room for in it, and the batches of these."""
    detector = subject.detector()
    tiles = tiles_of(**settings.tiles(), multiple=detector.multiple)
    rect = settings.rect and detector.frame is None
    if not rect:
        check_frame(settings.height_width, detector.multiple)
    check_evaluator(settings.evaluator)
    spec = open_data(settings.data, settings.val_share)
    spec.check_classes(subject.names, subject.source)
    loaded = load_images(
        spec,
        settings.split,
        settings.height_width if tiles is None else None,
        memory,
        settings.on_bad,
        teller(settings.verbose),
        settings.verbose,
        settings.sample_bits,
        check=settings.check_images,
    )
    tell_findings(loaded.split.findings)
    size, batch = settings.height_width, settings.batch
    return detector, loaded, eval_set(loaded, size, batch, detector.multiple, rect, detector.pad_colour, tiles)


def _can_plot() -> bool:
    """Whether matplotlib is here, which a small environment for exported files may lack; tells if it is not."""
    there = find_spec("matplotlib") is not None
    if not there:
        warn("plots=true: matplotlib is not installed, so no curves are drawn; pip install matplotlib")
    return there
