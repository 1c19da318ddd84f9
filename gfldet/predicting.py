"""The command `predict`: a model that finds, and settings, to `Results`, and to what is written of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gfldet.config.schema import PredictSettings
from gfldet.data.sources import iter_source
from gfldet.detect.detector import Detector, Selection
from gfldet.detect.predict import Prediction, Predictor
from gfldet.detect.track import check_installed, tracked
from gfldet.errors import ConfigError
from gfldet.messages import teller, warn
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
    detector = subject.detector()
    predictor = Predictor(
        detector,
        settings.height_width,
        Selection(**settings.selection(CONF)),
        _class_numbers(subject.names, settings.classes),
        tiles=tiles_of(**settings.tiles(), multiple=detector.multiple),
    )
    on_bad: Literal["error", "skip"] = "skip" if settings.on_bad == "skip" else "error"
    frames = iter_source(settings.source, settings.vid_stride, on_bad, warn, settings.sample_bits)
    saver = _saver(subject, settings)
    if settings.track:
        check_installed()
    # One image at a time is as fast on a CPU, and shows and saves each as soon as it is done.
    batch = settings.batch if "batch" in settings.explicit or detector.device != "cpu" else 1
    images = detections = 0
    try:
        found = predictor(frames, batch)
        for prediction in tracked(found, settings.vid_stride) if settings.track else found:
            if saver is not None:
                saver.add(prediction)
                writes_to(saver.folder)
            if settings.verbose:
                tell(f"{prediction.results.path}: {prediction.results.verbose()}")
            _warn_of_limit(prediction, predictor)
            images, detections = images + 1, detections + len(prediction.results)
            yield prediction.results
            del prediction  # two large pictures would take twice the memory
        if images > 1 and not detections and settings.verbose:
            tell(
                f"nothing was found in {images} images at conf={predictor.selection.conf:g}; a lower one shows what "
                "scores less (val tells which suits a model)"
            )
    finally:
        if saver is not None:
            saver.close()


def _saver(subject: Subject, settings: PredictSettings) -> Saver | None:
    """Who writes the predictions; None if nothing is to be written."""
    if not (settings.save or settings.save_txt or settings.save_json or settings.save_format):
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
        _labels(subject, settings) if settings.save_format else None,
    )


def _labels(subject: Subject, settings: PredictSettings) -> Callable[[Path], LabelFiles]:
    """What makes the writer of labels for other programs in a folder."""
    from gfldet.labels.writer import LabelFiles

    return partial(
        LabelFiles,
        formats=settings.save_format or (),
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


def _warn_of_limit(prediction: Prediction, predictor: Predictor) -> None:
    """Warn where a picture that was cut has as many detections as one may have: large ones often hold more."""
    found, most, tiles = prediction.results, predictor.selection.max_det, predictor.tiles
    if tiles is not None and tiles.cut(*found.orig_shape) and len(found) >= most:
        warn(
            f"{found.path}: {most} detections, as many as max_det allows, and there may be more; give a larger max_det"
        )
