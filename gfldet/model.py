"""`Model`: what a user holds.  A facade over the rooms below, without mathematics of its own.

An exported file is opened, measured and predicted with without torch, so torch's side of the house is imported where it
is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from gfldet.config.load import resolve
from gfldet.config.schema import PredictSettings, Settings, ValSettings
from gfldet.data.likeness import hashed
from gfldet.data.sources import Source
from gfldet.detect import exported
from gfldet.detect.card import WEIGHTS_LICENCE
from gfldet.detect.detector import Detector
from gfldet.errors import ConfigError, Notice
from gfldet.familiar import Familiar
from gfldet.files import contents, is_file
from gfldet.machine.cores import FreeCores, part_of, threads_of
from gfldet.machine.memory import freed_memory_kept, some_freed_memory_kept
from gfldet.opening import fresh, import_weights, is_foreign, need_torch
from gfldet.predicting import Subject, predict
from gfldet.ranks.place import check_one_process, place_of
from gfldet.ranks.start import alone, joined
from gfldet.ranks.value import Ranks
from gfldet.ranks.watch import HOW_TO_GO_ON
from gfldet.results import Results
from gfldet.store import runs
from gfldet.weights.table import WEIGHTS

if TYPE_CHECKING:
    from gfldet.detect.torch_detector import KeptDetector
    from gfldet.imports.start import Start
    from gfldet.metrics.coco import DetectionMetrics
    from gfldet.nn.build import Description
    from gfldet.nn.tasks import DetectionModel
    from gfldet.store.checkpoint import Checkpoint
    from gfldet.train.events import Observer
    from gfldet.tune.course import TuneResult

__all__ = ["Model", "import_weights"]

WEIGHTS_SUFFIXES = (".pt", ".pth", ".ckpt", ".onnx")  # of ours and of other programs, but for what we exported
TILES = ("tile", "overlap", "tile_whole")
# What `val` takes over from the training run, so that it repeats the AP of its best epoch.
VALIDATED_WITH = (
    "data",
    "val_share",
    "imgsz",
    "sample_bits",
    "batch",
    "rect",
    "conf",
    "iou",
    "max_det",
    "agnostic_nms",
    *TILES,
)
PREDICTED_WITH = ("imgsz", "sample_bits", *TILES)  # how the training showed images to the model

Found = TypeVar("Found", ValSettings, PredictSettings)


class Model(Familiar):
    """A detector: `Model("gfldet-n.yaml")` with fresh weights, `Model("runs/train/weights/best.pt")` with trained ones,
    `Model("best.onnx")` an exported file, which predicts and validates without torch.

    model     the `DetectionModel` (not of an exported file)
    names     class number -> name
    save_dir  the folder that the last `train`, `val` or `predict` wrote to; None if it wrote nothing
    """

    def __init__(self, model: str | Path = "gfldet-n.yaml", task: str = "detect") -> None:
        """`model`: a name in cfg/models (with its scale), the path of a model YAML, of a .pt that gfldet wrote, of an
        .onnx or .xml that it exported, or of weights of another program, or the name of public weights that were
        downloaded (see `gfldet weights`).  `task`: there is this one only.

        Raises ConfigError or CheckpointError, saying what is wrong with it.
        """
        if task != self.task:
            raise ConfigError(f"task={task}: gfldet does one task, {self.task}; leave it out")
        self.source = str(model)
        self.save_dir: Path | None = None
        self._start: Start | None = None
        self._model: DetectionModel | None = None
        self._kept: KeptDetector | None = None
        self._exported: exported.ExportedDetector | None = None
        self._opened_with: tuple[str, int] = ("auto", 0)  # device and threads of the exported file
        self._free_cores = FreeCores()
        if self.source.endswith(exported.SUFFIXES) and not is_foreign(self.source):
            self._exported = exported.load(self.source)
            return
        need_torch(self.source)
        if self.source.endswith(WEIGHTS_SUFFIXES) or self.source in WEIGHTS:
            self._take(self.source)
        else:
            self._model = fresh(self.source)

    def _take(self, path: str | Path) -> None:
        """Weights of ours or of another program, which are this Model's source from now on."""
        from gfldet.imports.start import read_start

        self._kept = None
        self._start = read_start(path)
        self._model = self._start.checkpoint.model(str(path))
        self._pretrained = ""  # they are its own from now on
        self.source = str(path)

    @property
    def is_fresh(self) -> bool:
        """Whether its weights are random: it was made of a model YAML, and neither trained nor loaded since."""
        return self._start is None and self._exported is None

    @property
    def _checkpoint(self) -> Checkpoint | None:
        return self._start.checkpoint if self._start else None

    @property
    def model(self) -> DetectionModel:
        if self._model is None:
            raise ConfigError(
                f"{self.source}: an exported file predicts and validates, nothing else; use the .pt that it came from"
            )
        return self._model

    @model.setter
    def model(self, model: DetectionModel) -> None:
        self._model = model

    @property
    def names(self) -> dict[int, str]:
        return self._exported.names if self._exported else self.model.names

    @property
    def description(self) -> Description:
        return self.model.description

    def train(self, *, observers: Sequence[Observer] = (), **settings: Any) -> DetectionMetrics | None:
        """Train on `data` (the built-in shapes if not given) and take up the best weights.

        A Model with trained weights starts from these, so that a second `train` continues from the best weights of the
        first, and names their best.pt as `model` in its args.yaml; for fresh weights make another Model.  `observers`
        are told how the run goes (see `gfldet.Observer`).

        Returns the metrics of the best weights on the val split (None with val=False).  All settings: `gfldet train
        --help`.
        """
        from gfldet.train import elastic, prepare
        from gfldet.train import resume as resuming
        from gfldet.train.run import run_training

        given = self._to_train_with(settings)
        resolved = resolve("train", given)
        with joined(resuming.device_of_run(resolved, place_of()), HOW_TO_GO_ON) as ranks:
            again = elastic.own_run(resolved.project, resolved.resume, ranks)
            if again is not None:
                given.update(elastic.to_go_on(again))
                resolved = resolve("train", given)
            resume = ranks.of_first(lambda: resuming.find_resume(resolved))
            with prepare.run_folder(resolved, resume, ranks) as folder:
                begun = ranks.together(
                    lambda: resuming.beginning(given, resolved, resume, self.description, self._start)
                )
                _warn_of_notices(begun.settings)
                with threads_of(begun.settings.threads, self._cores_for(ranks)):
                    trainer = prepare.prepare_training(
                        begun.settings, begun.description, begun.start, folder, resume, self._observed(observers), ranks
                    )
                    elastic.leave_mark(folder, ranks)
                    self.save_dir = folder
                    result = run_training(trainer)
                elastic.remove_mark(folder, ranks)
        self._take(result.best)
        return result.metrics

    def tune(self, **settings: Any) -> TuneResult:
        """Find better settings for `data`: trials with other settings are trained from this Model, which stays as it
        is, and compared by their AP on the val split.

        What is given stays as it is in all trials.  Writes best.yaml, for `cfg=`, a table of the trials and a report
        that tells the gain beside its noise.  The same call again goes on where the last was interrupted.  Takes the
        package optuna.  All settings: `gfldet tune --help`.
        """
        from gfldet.tune.course import tune

        given = self._to_train_with(settings)
        resolved = resolve("tune", given)
        _warn_of_notices(resolved)
        _ = self.model  # an exported file has nothing to train

        def train(values: Mapping[str, Any], observer: Observer) -> float:
            trial = {name: value for name, value in values.items() if name != "model"}
            metrics = Model(self.source).train(observers=self._observed((observer,)), **trial)
            assert metrics is not None  # there is a val split, or it was refused
            return metrics.map

        result = tune(resolved, given.get("cfg"), train)
        self.save_dir = result.folder
        return result

    def val(self, **settings: Any) -> DetectionMetrics:
        """Measure the model on a split of `data`; writes metrics.json, predictions.json, pictures and report.html.

        `data`, `imgsz` and all that bears on the result are those of the training run unless given, so that the AP
        of its best epoch comes out again.  All settings: `gfldet val --help`.
        """
        from gfldet import validating

        given = {**settings, **self._named(settings)}
        resolved = self._framed(resolve("val", given, restored=self._trained_with(VALIDATED_WITH), file=self.source))
        self._warn_of_idle(resolved)
        _warn_of_notices(resolved)
        where = (resolved.project, resolved.name, "val", resolved.exist_ok)
        with ExitStack() as held:
            ranks = held.enter_context(joined(resolved.device))
            resolved = self._placed(resolved, ranks)
            folder = ranks.of_first(lambda: held.enter_context(runs.claimed(*where)))
            held.enter_context(self._threads(resolved, ranks))
            held.enter_context(freed_memory_kept())()
            names = tuple(self.names.values())
            subject = validating.Subject(self.source, names, lambda: self._detector(resolved), self._likeness)
            metrics = validating.measure(subject, resolved, folder, ranks)
            self.save_dir = folder
            return metrics

    def _likeness(self) -> str:
        """What tells this model from others."""
        if self._exported:
            parts = (Path(self.source), Path(self.source).with_suffix(".bin"))  # OpenVINO keeps the weights apart
            return hashed(contents(part) for part in parts if is_file(part))
        from gfldet.nn.summary import bytes_of_weights

        return hashed(bytes_of_weights(self.model))

    def _placed(self, settings: Found, ranks: Ranks) -> Found:
        """The settings with this process's own device, and with its part of the cores for an exported file, whose
        engine would take all of them."""
        several = self._exported is not None and ranks.local_size > 1
        threads = (settings.threads or part_of(ranks.local_size)()) if several else settings.threads
        return replace(settings, device=ranks.device, threads=threads)

    def _threads(self, settings: ValSettings | PredictSettings, ranks: Ranks) -> AbstractContextManager[None]:
        """The threads of this model while it finds; the caller's come back after it."""
        return threads_of(None if self._exported else settings.threads, self._cores_for(ranks))

    def _cores_for(self, ranks: Ranks) -> Callable[[], int]:
        """What tells how many cores this process takes where its threads are not set: several processes of one run
        would take each other for other work."""
        return self._free_cores if ranks.local_size == 1 else part_of(ranks.local_size)

    def _framed(self, settings: Found) -> Found:
        """The settings, with the image size of an exported file that takes this one only, unless the user gives one."""
        frame = self._exported.frame if self._exported else None
        return settings if frame is None or "imgsz" in settings.explicit else replace(settings, imgsz=frame)

    def _detector(self, settings: ValSettings | PredictSettings) -> Detector:
        """The model, ready to find, where and as the settings tell."""
        if self._exported is None:
            from gfldet.detect.torch_detector import KeptDetector
            from gfldet.machine.device import pick_device

            self._need_head()
            self._kept = self._kept or KeptDetector()
            return self._kept.of(self.model, pick_device(settings.device))
        if self._opened_with != (settings.device, settings.threads):
            self._exported = exported.load(self.source, settings.device, settings.threads)
            self._opened_with = (settings.device, settings.threads)
        frame = self._exported.frame
        if frame is not None and settings.height_width != frame:
            raise ConfigError(
                f"imgsz={settings.imgsz}: {self.source} takes frames of {frame[0]} x {frame[1]} px only; leave imgsz "
                "out, or export with dynamic=all"
            )
        return self._exported

    @overload
    def predict(self, source: Source, stream: Literal[False] = False, **settings: Any) -> list[Results]: ...
    @overload
    def predict(self, source: Source, stream: Literal[True], **settings: Any) -> Iterator[Results]: ...
    def predict(self, source: Source, stream: bool = False, **settings: Any) -> list[Results] | Iterator[Results]:
        """Find objects in a file, folder, glob, video, array (BGR, as opencv has it), tensor (RGB, channels first, as
        torchvision has it), PIL image, or a list of these (see `data.sources`).

        Returns a list of `Results`; with `stream` an iterator that holds one image at a time, for videos and large
        folders.  All settings: `gfldet predict --help`.
        """
        resolved = self._to_predict({**settings, "source": source})
        self._warn_of_idle(resolved)
        _warn_of_notices(resolved)
        ranks = alone(resolved.device)
        found = self._in_own_threads(self._placed(resolved, ranks), ranks)
        return found if stream else list(found)

    __call__ = predict

    def predict_together(self, source: Source, **settings: Any) -> None:
        """Predict by all processes that torchrun started, as `gfldet predict` does: all of them call this, share out
        the files of the source, and write into one folder.  `predict` itself is for the process that calls it alone.
        """
        from gfldet.together import predict_together

        resolved = self._to_predict({**settings, "source": source})
        self._warn_of_idle(resolved)
        _warn_of_notices(resolved)
        with joined(resolved.device) as ranks:
            resolved = self._placed(resolved, ranks)
            with self._threads(resolved, ranks):
                self.save_dir = predict_together(self._subject(resolved), resolved, ranks, self._likeness())

    def _to_predict(self, given: Mapping[str, Any]) -> PredictSettings:
        own, restored = self._named(given), self._trained_with(PREDICTED_WITH)
        return self._framed(resolve("predict", {**given, **own}, restored=restored, file=self.source))

    def _subject(self, settings: PredictSettings) -> Subject:
        return Subject(self.source, self.names, self._category_ids(), lambda: self._detector(settings))

    def _in_own_threads(self, settings: PredictSettings, ranks: Ranks) -> Iterator[Results]:
        """What is found; between one result and the next the caller has threads as before."""
        self.save_dir = None
        if self._exported is None and self._kept is None:  # torch's first call
            some_freed_memory_kept()
        found = predict(self._subject(settings), settings, self._writes_to)
        try:
            while True:
                with self._threads(settings, ranks):
                    one = next(found, None)
                if one is None:
                    return
                yield one
                del one  # the caller's alone
        finally:
            found.close()

    def _writes_to(self, folder: Path) -> None:
        self.save_dir = folder

    def export(self, format: str = "onnx", **settings: Any) -> Path:
        """Write the model as a file for other programs: ONNX, OpenVINO, or a folder with a web page; its path.

        The file is run on images and compared with this model first, and is not written where they differ.  `imgsz` is
        that of the training run unless given.  All settings: `gfldet export --help`.
        """
        from gfldet.export import job

        self._need_head()
        given = {**settings, **self._named(settings), "format": format}
        restored = self._trained_with(("imgsz", "sample_bits", "val_share"))
        resolved = resolve("export", given, restored=restored, file=self.source)
        check_one_process("export", resolved.device)
        _warn_of_notices(resolved)
        saved = self._checkpoint
        subject = job.Subject(
            self.model,
            self.source,
            self._category_ids(),
            (saved.licence if saved else "") or WEIGHTS_LICENCE,
            saved.settings.get("data") if saved else None,
            _tiles_of(saved),
        )
        with threads_of(None):  # what is exported runs in the engine's threads, and is compared there
            return job.export(subject, resolved)

    def _need_head(self) -> None:
        """ConfigError where there are the weights of a body alone, which finds nothing."""
        if self._checkpoint is not None and self._checkpoint.body_only:
            raise ConfigError(
                f"{self.source}: these are the weights of a body alone; the head that finds is to be learnt first: "
                f"gfldet train model={self.source} data=YOURS.yaml"
            )

    def _category_ids(self) -> tuple[int, ...]:
        """The ids that the classes have in the user's own files."""
        if self._exported:
            return self._exported.card.category_ids
        return self._checkpoint.category_ids if self._checkpoint else tuple(self.names)

    def _to_train_with(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a training, with the weights that were loaded into this object."""
        return {**({"pretrained": self._pretrained} if self._pretrained else {}), **settings, **self._named(settings)}

    def _named(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that are this object's to give: `model`, and the device that `to` chose."""
        if "model" in settings:
            raise ConfigError(
                f"model={settings['model']}: this Model is {self.source} already; make another, Model(...)"
            )
        device = {} if "device" in settings else self._chosen()
        return {"model": self.source, **device}

    def _warn_of_idle(self, given: Settings) -> None:
        """Warn of what the user gives for an NMS that this model does without, or that is in the exported graph."""
        card = self._exported.card if self._exported else None
        about_nms = {"iou", "agnostic_nms"} & given.explicit
        if about_nms and (card.end2end if card else self.model.end2end):
            idle = f"{', '.join(sorted(about_nms))}: without effect; this end-to-end model needs no NMS"
            warnings.warn(idle, Notice, stacklevel=3)
        elif card and card.layout == "detections":
            conf = getattr(given, "conf", None)
            if "conf" in given.explicit and conf is not None and conf < card.conf:
                about_nms.add("conf")
            if "max_det" in given.explicit and getattr(given, "max_det", 0) > card.max_det:
                about_nms.add("max_det")
            if about_nms:
                idle = (
                    f"{', '.join(sorted(about_nms))}: without effect; {self.source} chooses detections itself, with "
                    f"conf={card.conf:g}, iou={card.iou:g}, max_det={card.max_det}; export it anew for others"
                )
                warnings.warn(idle, Notice, stacklevel=3)

    def _trained_with(self, names: Iterable[str]) -> dict[str, Any]:
        """Settings of the training run that later commands go by where the user, also in a file, gives none."""
        saved = self._checkpoint.settings if self._checkpoint else {}
        if self._exported:
            card = self._exported.card
            tiles = dict(zip(TILES, card.tiles or (), strict=False))
            saved = {"imgsz": card.imgsz, "sample_bits": card.sample_bits, **tiles}
        return {name: saved[name] for name in names if name in saved}


def _tiles_of(saved: Checkpoint | None) -> tuple[int, float, bool] | None:
    """Side, overlap and whether pictures pass as a whole too, of a model that was trained on tiles."""
    kept = saved.settings if saved else {}
    return (kept["tile"], kept["overlap"], kept["tile_whole"]) if kept.get("tile") else None


def _warn_of_notices(settings: Settings) -> None:
    """Warn of each value that was changed or has no effect."""
    for notice in settings.notices:
        warnings.warn(notice, Notice, stacklevel=3)
