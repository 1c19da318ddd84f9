"""The command `predict`: a model that finds, and settings, to `Results`, and to what is written of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gfldet.config.schema import PredictSettings
from gfldet.data.sources import Entry, Remark, entries_of, frames_of
from gfldet.detect.detector import Detector, Selection
from gfldet.detect.predict import Prediction, Predictor
from gfldet.detect.track import check_installed, tracked
from gfldet.errors import ConfigError, counted
from gfldet.messages import Tell, teller, warn
from gfldet.ops.tiles import tiles_of
from gfldet.results import Results
from gfldet.store import runs

if TYPE_CHECKING:
    from gfldet.detect.saver import Saver
    from gfldet.labels.writer import LabelFiles

CONF = 0.25  # of detections for people; validation wants the doubtful ones too


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that predicts: where it came from, its classes by number, the ids that these have in the user's files,
    and what makes it ready to find."""

    source: str
    names: Mapping[int, str]
    category_ids: tuple[int, ...]
    detector: Callable[[], Detector]


def predict(
    subject: Subject, settings: PredictSettings, writes_to: Callable[[Path], None]
) -> Generator[Results, None, None]:
    """The results of `settings.source`, one image after the other; `writes_to` is told the folder, if there is one."""
    tell = teller(settings.verbose)
    predictor = predictor_of(subject, settings)
    entries = entries_to_read(settings)
    saver = _saver(subject, settings)
    images = detections = 0
    try:
        for prediction in predictions_of(predictor, entries, settings):
            if saver is not None:
                saver.add(prediction)
                writes_to(saver.folder)
            if settings.verbose:
                tell(prediction.line)
            images, detections = images + 1, detections + len(prediction.results)
            yield prediction.results
            del prediction  # two large pictures would take twice the memory
        tell_of_nothing(images, detections, predictor, tell)
    finally:
        if saver is not None:
            saver.close()


def predictor_of(subject: Subject, settings: PredictSettings) -> Predictor:
    """What finds by the settings; ConfigError for a class that the model does not have, or for a missing package."""
    detector = subject.detector()
    if settings.track:
        check_installed()
    return Predictor(
        detector,
        settings.height_width,
        Selection(**settings.selection(CONF)),
        _class_numbers(subject.names, settings.classes),
        tiles=tiles_of(**settings.tiles(), multiple=detector.multiple),
    )


def entries_to_read(settings: PredictSettings) -> list[Entry]:
    """What there is to open in `settings.source`; see `data.sources`."""
    return entries_of(settings.source, settings.vid_stride, _on_bad(settings), warn)


def predictions_of(
    predictor: Predictor,
    entries: Sequence[Entry],
    settings: PredictSettings,
    own: Container[int] | None = None,
    remark: Callable[[Remark], None] = lambda remark: warn(remark.text),
) -> Iterator[Prediction]:
    """The predictions for the entries, or for those whose positions are in `own`; `remark` is told what to warn of."""
    frames = frames_of(entries, settings.vid_stride, _on_bad(settings), remark, settings.sample_bits, own)
    # One image at a time is as fast on a CPU, and shows and saves each as soon as it is done.
    batch = settings.batch if "batch" in settings.explicit or predictor.detector.device != "cpu" else 1
    found = predictor(frames, batch)
    for prediction in tracked(found, settings.vid_stride) if settings.track else found:
        _warn_of_limit(prediction, predictor, remark)
        yield prediction
        del prediction


def tell_of_nothing(images: int, detections: int, predictor: Predictor, tell: Tell) -> None:
    """Say what to try where nothing was found in several images."""
    if images > 1 and not detections:
        tell(
            f"nothing was found in {counted(images, 'image')} at conf={predictor.selection.conf:g}; a lower one shows "
            "what scores less (val tells which suits a model)"
        )


def _on_bad(settings: PredictSettings) -> Literal["error", "skip"]:
    return "skip" if settings.on_bad == "skip" else "error"


def writes(settings: PredictSettings) -> bool:
    """Whether there is a folder of results."""
    return bool(settings.save or settings.save_txt or settings.save_json or settings.save_format)


def _saver(subject: Subject, settings: PredictSettings) -> Saver | None:
    """Who writes the predictions; None if nothing is to be written."""
    if not writes(settings):
        return None
    from gfldet.detect.saver import Saver

    where = (settings.project, settings.name, "predict", settings.exist_ok)
    runs.free_folder(*where)  # its mistakes now, not at the first prediction
    return Saver(
        lambda: runs.claim_folder(*where),
        settings.save,
        settings.save_txt,
        settings.save_conf,
        settings.save_json,
        subject.category_ids,
        settings.line_width,
        settings.vid_stride,
        labels_of(subject, settings),
    )


def labels_of(subject: Subject, settings: PredictSettings) -> Callable[[Path], LabelFiles] | None:
    """What makes the writer of labels for other programs in a folder; None if there are to be none."""
    if not settings.save_format:
        return None
    from gfldet.labels.writer import LabelFiles

    return partial(
        LabelFiles,
        formats=settings.save_format,
        names=list(subject.names.values()),
        ids=subject.category_ids,
        model=Path(subject.source).name,
        image_url=settings.image_url,
        tell=warn,
    )


def _class_numbers(names: Mapping[int, str], classes: tuple[int | str, ...] | None) -> tuple[int, ...] | None:
    """Classes given by name or number -> numbers; ConfigError names those that the model does not have."""
    if classes is None:
        return None
    numbers = {name: number for number, name in names.items()}
    unknown = [c for c in classes if c not in numbers and c not in names]
    if unknown:
        raise ConfigError(f"classes={unknown}: the model has {dict(names)}; give names or numbers of these")
    return tuple(numbers[c] if c in numbers else int(c) for c in classes)


def _warn_of_limit(prediction: Prediction, predictor: Predictor, remark: Callable[[Remark], None]) -> None:
    """Warn where a picture that was cut has as many detections as one may have: large ones often hold more."""
    found, most, tiles = prediction.results, predictor.selection.max_det, predictor.tiles
    if tiles is not None and tiles.cut(*found.orig_shape) and len(found) >= most:
        text = f"{counted(most, 'detection')}, as many as max_det allows, and there may be more; give a larger max_det"
        remark(Remark(prediction.frame.entry, f"{found.path}: {text}"))
