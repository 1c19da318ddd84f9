"""A whole training run: its loop, its curves, the measure of its best weights, and what its observers are told."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from gfldet.detect.detector import Selection
from gfldet.detect.torch_detector import for_inference
from gfldet.detect.validate import validate
from gfldet.errors import LostError, worded
from gfldet.messages import teller
from gfldet.metrics.coco import DetectionMetrics, format_table
from gfldet.report.run_page import REPORT, write_run_page
from gfldet.report.validation import draw_validation, write_validation
from gfldet.train.events import EndReport, Reason
from gfldet.train.memory import train_in_memory
from gfldet.train.observers import RESULTS
from gfldet.train.progress import out_of_patience
from gfldet.train.trainer import Trainer
from gfldet.viz.plots import plot_results


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left: its folder, the checkpoint of its best weights, the epoch (from 0) that these are of, and their
    metrics on the val split (None without validation)."""

    folder: Path
    best: Path
    best_epoch: int
    metrics: DetectionMetrics | None


def run_training(trainer: Trainer) -> RunResult:
    """Do a run that was prepared (see `prepare.prepare_training`), from its next step to its last picture.

    Every observer that was told of the beginning is told of the end, also of one by an error, which is then raised.
    """
    end = EndReport("failed")
    try:
        trainer.observers.begin(trainer.facts())
        progress = train_in_memory(trainer)
        with torch.random.fork_rng(devices=()):  # last.pt is written once more, and is to tell what it told
            result = _finish(trainer)
        trainer.end()
        reason: Reason = "finished" if progress.epoch >= trainer.plan.epochs else "patience"
        end = EndReport(reason, metrics=result.metrics)
        return result
    except BaseException as error:  # a kill too is an end, and nothing is swallowed
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted:
            error.args = (how_to_go_on(trainer),)
        elif isinstance(error, LostError):
            error.args = (f"{error}; {how_to_go_on(trainer)}",)
        end = EndReport("interrupted" if interrupted else "failed", error)
        raise
    finally:
        trainer.observers.end(end)


def how_to_go_on(trainer: Trainer) -> str:
    """What is kept of a run that was interrupted, and the command that goes on from there."""
    done, epochs = trainer.saved, trainer.plan.epochs
    if not done:
        return "no epoch was done yet, so nothing is kept"
    resume = shlex.quote(f"resume={trainer.folder}")
    if done >= epochs or out_of_patience(trainer.progress, trainer.settings.patience):
        return f"the training was done; gfldet train {resume} measures its best weights"
    return f"{worded(done, f'of {epochs} epochs [is|are] kept')}; gfldet train {resume} goes on from there"


def _finish(trainer: Trainer) -> RunResult:
    """Draw the curves, and measure and report the best weights; rank 0 draws and reports."""
    kept, best = trainer.keep_best(), trainer.weights / "best.pt"
    settings, folder, best_epoch = trainer.settings, trainer.folder, trainer.progress.best_epoch
    ranks = trainer.ranks
    model = kept.model(str(best))
    if settings.plots and ranks.leads:
        plot_results(folder / RESULTS, folder / "results.png")
    if trainer.val is None:
        return RunResult(folder, best, best_epoch, None)
    detector, selection = for_inference(model, trainer.device), Selection(**settings.selection())
    found = validate(detector, trainer.val, selection, trainer.workers, settings.evaluator, ranks=ranks)
    if ranks.leads:
        write_validation(folder, found, trainer.val.split)
    teller(settings.verbose)(f"best weights, of epoch {best_epoch + 1}:\n{format_table(found.metrics)}")
    if settings.plots and ranks.leads:
        draw_validation(folder, found, trainer.val.split, trainer.val.store)
        subject = f"{best}, of epoch {best_epoch + 1}, on {settings.data}"
        write_run_page(folder / REPORT, found, trainer.val.split, trainer.val.store, subject, folder / RESULTS)
    return RunResult(folder, best, best_epoch, found.metrics)
