"""Loggers: observers that hand a run to the tool in which its user watches runs: TensorBoard, MLflow, Weights & Biases.

Each is an extra, and its package is imported here alone.  All are given the same: the settings, the numbers of each
epoch by the names of results.csv, those of the best weights, the pictures of the run folder, and report.html.  Where a
tool keeps its data, and whether it sends them anywhere, is up to the user's own settings of that tool.  Without any,
nothing leaves this machine: W&B is offline, and what the packages report of their own use and failures is off.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gfldet.errors import ConfigError
from gfldet.files import MAX_TEXT, Unreadable, contents, file_names, is_file
from gfldet.messages import teller
from gfldet.metrics.coco import DetectionMetrics
from gfldet.report.run_page import REPORT
from gfldet.train.events import EndReport, EpochReport, Observer, RunFacts
from gfldet.train.observers import metrics_by_name, numbers_of

CSV = "csv"  # the word of `log` for results.csv, which every run writes
_MOST_PARAMS = 100  # that a server of MLflow takes at once
_LONGEST_PARAM = 500  # letters of a setting, as every version of MLflow takes them


class Logger(Observer):
    """What the loggers have in common; a subclass has a tool that it opens, fills and closes.

    Losses are logged once an epoch, as their reading makes a GPU wait.  What is not a number is left out.
    """

    def __init__(self) -> None:
        self._facts: RunFacts | None = None
        self._epoch = 0  # the last one, from 1, as in results.csv

    def begin(self, facts: RunFacts) -> None:
        self._facts, self._epoch = facts, facts.epoch
        where = self.open(facts)
        teller(bool(facts.settings.get("verbose", True)))(f"log: {where}")

    def epoch(self, report: EpochReport) -> None:
        self._epoch = report.epoch + 1
        self.log_numbers(_known(numbers_of(report)), self._epoch)

    def end(self, report: EndReport) -> None:
        """Log the best weights' metrics and the files, if the run came that far.  What never began has no end."""
        if self._facts is None:
            return
        try:
            if report.metrics is not None:
                self.log_numbers(_of_best(report.metrics), self._epoch)
            if report.reason in ("finished", "patience"):
                self.log_files(*files_of(self._facts.folder), self._epoch)
        finally:
            self._close(report)

    def left_out(self) -> None:
        self._close(EndReport("failed"))

    def _close(self, report: EndReport) -> None:
        """Close the tool, once, if it was opened."""
        begun, self._facts = self._facts, None
        if begun is not None:
            self.close(report)

    def open(self, facts: RunFacts) -> str:
        """Begin the run in the tool, or go on with it if `facts` are those of a resumed run, and log its settings.

        Returns where the user finds it.
        """
        raise NotImplementedError

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Log finite numbers of an epoch, which counts from 1."""
        raise NotImplementedError

    def log_files(self, pictures: Sequence[Path], page: Path | None, epoch: int) -> None:
        """Log what the end of a run drew: pictures, and report.html if there is one."""
        raise NotImplementedError

    def close(self, report: EndReport) -> None:
        """The run is over, in whatever way `report` tells, or cannot be logged any more; also where `open` failed half
        way."""
        raise NotImplementedError


def make_loggers(names: Sequence[str]) -> list[Logger]:
    """The loggers of these words of `log`; ConfigError with the command that installs all packages that are missing."""
    made: list[Logger] = []
    missing: dict[str, ImportError] = {}
    for name in names:
        if name == CSV:
            continue
        try:
            made.append(LOGGERS[name]())
        except ImportError as error:
            missing[name] = error
    if missing:
        words, why = ",".join(missing), "; ".join(map(str, missing.values()))
        raise ConfigError(f"log={words}: not installed, or broken ({why}); pip install 'gfldet[{words}]'")
    return made


def files_of(folder: Path) -> tuple[list[Path], Path | None]:
    """The pictures of a run folder, and its page."""
    page = folder / REPORT
    pictures = [folder / name for name in sorted(file_names(folder)) if name.endswith((".jpg", ".png"))]
    return pictures, page if is_file(page) else None


def _known(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _of_best(metrics: DetectionMetrics) -> dict[str, float]:
    """The metrics of the best weights: `best/mAP50` for `metrics/mAP50`."""
    named = {name.replace("metrics/", "best/"): value for name, value in metrics_by_name(metrics).items()}
    return _known(named)


def _kept_id(file: Path, facts: RunFacts) -> str:
    """The tool's name for a run that goes on, as `file` in its folder keeps it; empty for a run that begins."""
    with suppress(Unreadable, UnicodeDecodeError):
        return contents(file, MAX_TEXT).decode("ascii").strip() if facts.epoch else ""
    return ""


class TensorBoard(Logger):
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__()
        self._make = SummaryWriter
        self._writer: Any = None

    def open(self, facts: RunFacts) -> str:
        folder = facts.folder / "tensorboard"
        # What was logged of epochs that are done again, or of an earlier run in this folder, is not shown any more.
        self._writer = self._make(str(folder), purge_step=facts.epoch + 1)
        rows = "".join(f"| {name} | {value} |\n" for name, value in facts.settings.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", facts.epoch)
        self._writer.flush()
        return f"tensorboard --logdir {facts.folder.parent}"

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def log_files(self, pictures: Sequence[Path], page: Path | None, epoch: int) -> None:
        for path in pictures:
            with Image.open(path) as picture:
                self._writer.add_image(path.stem, np.asarray(picture.convert("RGB")), epoch, dataformats="HWC")
        if page is not None:  # it shows no HTML
            self._writer.add_text("report", str(page.absolute()), epoch)

    def close(self, report: EndReport) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflow(Logger):
    """A run of MLflow where its own settings tell (MLFLOW_TRACKING_URI), else where it keeps its runs by default.

    It works with a client of its own, so a run that the user has open in this process is not touched.
    """

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it is asked when the package is imported
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

        super().__init__()
        self._make, self._metric, self._param, self._error = MlflowClient, Metric, Param, MlflowException
        self._client: Any = None
        self._run = ""

    def open(self, facts: RunFacts) -> str:
        self._client = self._make()
        file = facts.folder / "mlflow_run.txt"
        if not self._goes_on(_kept_id(file, facts)):
            self._new_run(facts)
        file.write_text(self._run, encoding="ascii")
        self._client.log_artifact(self._run, str(facts.folder / "args.yaml"))
        return f"run {self._run} in {self._client.tracking_uri}"

    def _goes_on(self, run: str) -> bool:
        """Go on with the run, if there is one in this store.  Its parameters stay: MLflow does not change them, and
        args.yaml has those of now."""
        with suppress(self._error):
            if run:
                self._client.update_run(run, status="RUNNING")
                self._run = run
        return bool(self._run)

    def _new_run(self, facts: RunFacts) -> None:
        """Begin a run with the settings as parameters."""
        client, given = self._client, os.environ
        experiment = given.get("MLFLOW_EXPERIMENT_ID")
        if not experiment:
            name = given.get("MLFLOW_EXPERIMENT_NAME") or "gfldet"
            found = client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else client.create_experiment(name)
        self._run = str(client.create_run(experiment, run_name=facts.folder.name).info.run_id)
        params = [self._param(name, str(value)[:_LONGEST_PARAM]) for name, value in facts.settings.items()]
        for first in range(0, len(params), _MOST_PARAMS):
            client.log_batch(self._run, params=params[first : first + _MOST_PARAMS])

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._run, [self._metric(name, value, now, epoch) for name, value in numbers.items()])

    def log_files(self, pictures: Sequence[Path], page: Path | None, epoch: int) -> None:
        for path in pictures:
            self._client.log_artifact(self._run, str(path), "pictures")
        if page is not None:
            self._client.log_artifact(self._run, str(page))

    def close(self, report: EndReport) -> None:
        status = {"interrupted": "KILLED", "failed": "FAILED"}.get(report.reason, "FINISHED")
        if self._run:
            self._client.set_terminated(self._run, status)


class WandB(Logger):
    """A run of Weights & Biases: offline, in the folder `wandb` of the run, unless WANDB_MODE tells otherwise."""

    def __init__(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it is asked when the package is imported
        from wandb import Html, Settings, init
        from wandb import Image as Picture

        super().__init__()
        self._init, self._settings, self._picture, self._html = init, Settings, Picture, Html
        self._run: Any = None

    def open(self, facts: RunFacts) -> str:
        given, file = os.environ, facts.folder / "wandb_run.txt"
        mode = given.get("WANDB_MODE") or "offline"
        name = _kept_id(file, facts) or given.get("WANDB_RUN_ID") or secrets.token_hex(4)
        self._run = self._init(
            project=given.get("WANDB_PROJECT") or "gfldet",
            name=given.get("WANDB_NAME") or facts.folder.name,
            dir=given.get("WANDB_DIR") or str(facts.folder),
            id=name,
            resume="allow" if mode == "online" else None,  # offline it knows no resuming: the parts have one id
            config=dict(facts.settings),
            mode=mode,
            settings=self._settings(console="off", silent=True),  # the terminal is the run's own
        )
        file.write_text(name, encoding="ascii")
        if mode == "online":
            return str(self._run.url)
        if mode != "offline":
            return f"WANDB_MODE={mode}"
        return f"{Path(self._run.dir).parent}; wandb sync uploads it, if you want"

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._run.log({"epoch": epoch, **numbers}, step=epoch)

    def log_files(self, pictures: Sequence[Path], page: Path | None, epoch: int) -> None:
        self._run.log({path.stem: self._picture(str(path)) for path in pictures}, step=epoch)
        if page is not None:
            with page.open(encoding="utf-8") as text:
                self._run.log({"report": self._html(text, inject=False)}, step=epoch)

    def close(self, report: EndReport) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(report.reason in ("interrupted", "failed")))


LOGGERS: Mapping[str, type[Logger]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
"""The words of `log` beside CSV, each also the name of an extra and of its package."""
