"""The command `predict` in several processes: each has files of its own, and their results come together in one folder.

A process predicts for a while, then all meet: rank 0 gets what was found, without pixels, and tells and lists it in the
order of the source.  Pictures, videos and label files are written by the process that has the pixels.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from secrets import token_hex

import gfldet
from gfldet.config.load import dump
from gfldet.config.schema import PredictSettings
from gfldet.data.sources import Entry, Remark, Unreadable, unreadable
from gfldet.detect.lists import Lists, Noted, noted
from gfldet.detect.predict import Prediction
from gfldet.detect.saver import Saver
from gfldet.detect.share import Found, Order, own_entries
from gfldet.errors import ConfigError, shown
from gfldet.messages import Tell, teller, warn
from gfldet.predicting import (
    Subject,
    entries_to_read,
    labels_of,
    predictions_of,
    predictor_of,
    tell_of_nothing,
    writes,
)
from gfldet.ranks.value import Ranks
from gfldet.store import runs

WHILE = 1.0  # s between two meetings, at which each waits for the image that another has in hand
OWN = {"device", "threads", "verbose"}  # may differ: no result depends on them


def predict_together(subject: Subject, settings: PredictSettings, ranks: Ranks, likeness: str) -> Path | None:
    """Predict `settings.source`, which the `ranks` share out; the folder of the results, if there is one.

    `likeness` tells the model from others.  Raises what `predicting.predict` does, in all processes; ConfigError where
    they differ in model or settings, or where labels for other programs would need pixels of another process;
    OutputError where a machine does not see the folder that rank 0 made.
    """
    predictor = ranks.together(lambda: predictor_of(subject, settings))
    entries = ranks.of_first(lambda: _to_read(settings))
    ranks.check_same("what they predict with", lambda: _to_share(settings, likeness))
    own = own_entries(entries, settings.track, ranks)
    order, tell = Order(ranks.size), teller(settings.verbose)
    images = detections = 0
    remarks: list[Remark] = []
    predictions = predictions_of(predictor, entries, settings, own, remarks.append)
    begun = ranks.together(lambda: _first(predictions))
    some = any(ranks.gathered(bool(begun.first)))  # where nothing can be read nothing is written
    with ExitStack() as held:
        folder = _folder(settings, ranks, held) if some and writes(settings) else None
        with ExitStack() as writing:
            saver = _saver(settings, folder, writing) if folder else None
            lists = _lists(subject, settings, folder, writing) if folder and ranks.leads else None
            found = _Finding(begun.all(predictions), saver, remarks)
            writing.callback(found.close)
            while not order.done:
                ready = order.add(ranks.gathered(ranks.together(found.for_a_while)))
                counts = [len(one.detections) for one in ready if isinstance(one, Noted)]
                images, detections = images + len(counts), detections + sum(counts)
                ranks.of_first(lambda: _take(ready, lists, tell))  # noqa: B023  (called before `ready` is another)
            ranks.together(writing.pop_all().close)
        ranks.together(lambda: found.fail_at(order.failed))
        ranks.together(lambda: _raise(order.bad))
    tell_of_nothing(images, detections, predictor, tell)
    return folder


def _to_read(settings: PredictSettings) -> list[Entry]:
    """What there is to open; ConfigError where labels for other programs need more of it than a file's path."""
    entries = entries_to_read(settings)
    if any(entry.what == "memory" for entry in entries):
        raise ConfigError("source: several processes share out files; predict finds what is in memory, in one process")
    other = next((entry for entry in entries if entry.what != "image"), None)
    if settings.save_format and other is not None:
        raise ConfigError(
            f"save_format={', '.join(settings.save_format)}: several processes label files of pictures, and "
            f"{shown(other.path, quoted=False)} is none; label it in one process, with one device and without torchrun"
        )
    return entries


def _to_share(settings: PredictSettings, likeness: str) -> dict[str, object]:
    """What all processes must have alike."""
    return {**dump(settings, OWN), "the model": likeness, "gfldet": gfldet.__version__}


def _folder(settings: PredictSettings, ranks: Ranks, held: ExitStack) -> Path:
    """The folder of the results, which rank 0 makes and which all see; it goes again if nothing comes into it."""
    where = (settings.project, settings.name, "predict", settings.exist_ok)
    folder = ranks.of_first(lambda: held.enter_context(runs.claimed(*where)))
    mark = ranks.of_first(lambda: _marked(folder))
    try:
        ranks.together(lambda: runs.check_seen(folder, mark.maker, mark.file))
    finally:
        if ranks.leads:
            (folder / mark.file).unlink()
    return folder


@dataclass(frozen=True, slots=True)
class _Mark:
    """A file in the folder of results until all have seen it, and who made it, which it tells."""

    file: str
    maker: str


def _marked(folder: Path) -> _Mark:
    """A mark of a name that no file there has."""
    mark = _Mark(f".made-{token_hex(8)}", f"{platform.node()}, process {os.getpid()}")
    (folder / mark.file).write_text(mark.maker, encoding="utf-8")
    return mark


def _saver(settings: PredictSettings, folder: Path, writing: ExitStack) -> Saver:
    """Who writes what takes the pixels of this process."""
    saver = Saver(
        lambda: folder,
        settings.save,
        settings.save_txt,
        settings.save_conf,
        coco=False,
        category_ids=(),
        line_width=settings.line_width,
        vid_stride=settings.vid_stride,
    )
    writing.callback(saver.close)
    return saver


def _lists(subject: Subject, settings: PredictSettings, folder: Path, writing: ExitStack) -> Lists:
    """Who lists the predictions of all processes."""
    lists = Lists(folder, settings.save_json, subject.category_ids, labels_of(subject, settings))
    writing.callback(lists.close)
    return lists


@dataclass(slots=True)
class _Begun:
    """The first prediction of this process, if it has one, or what is wrong with all of its entries."""

    first: list[Prediction]
    error: Unreadable | None = None

    def all(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """The first and the others; Unreadable after them, as they raise it."""
        if self.first:
            yield self.first.pop()  # held here no longer
        if self.error is not None:
            raise self.error
        yield from predictions


def _first(predictions: Iterator[Prediction]) -> _Begun:
    try:
        return _Begun(list(islice(predictions, 1)))
    except Unreadable as error:
        return _Begun([], error)


class _Finding:
    """The predictions of this process, whose pictures `saver` writes, and the `remarks` that are made on the way."""

    def __init__(self, predictions: Iterator[Prediction], saver: Saver | None, remarks: list[Remark]) -> None:
        self._saver, self._remarks = saver, remarks
        self._noted = self._saved(predictions)
        self._failure: tuple[int, Exception] | None = None  # the entry that could not be written, and why
        self.close = self._noted.close

    def _saved(self, predictions: Iterator[Prediction]) -> Generator[Noted, None, None]:
        """The predictions, each once its picture is written, up to the first that cannot be."""
        for prediction in predictions:
            if self._saver is not None:
                try:
                    self._saver.add(prediction)
                except Exception as error:
                    self._failure = prediction.frame.entry, error
                    return
            yield noted(prediction, prediction.line)
            del prediction  # two large pictures would take twice the memory

    def for_a_while(self) -> Found:
        """What is found until the next meeting."""
        until, some, done, bad = time.monotonic() + WHILE, [], True, {}
        try:
            for one in self._noted:
                some.append(one)
                if time.monotonic() > until:
                    done = False
                    break
        except Unreadable as error:  # after all that can be read
            bad = dict(error.problems)
        failed = self._failure[0] if self._failure else math.inf
        return Found(some, done, self._told(), bad, failed)

    def _told(self) -> list[Remark]:
        """The remarks since the last time.  The thread that reads files makes more of them meanwhile."""
        some = self._remarks[:]
        del self._remarks[: len(some)]
        return some

    def fail_at(self, entry: float) -> None:
        """Raise what this process failed by at the entry, if it did."""
        if self._failure is not None and self._failure[0] == entry:
            raise self._failure[1]


def _take(ready: Sequence[Noted | Remark], lists: Lists | None, tell: Tell) -> None:
    """Tell and list what has its turn."""
    for one in ready:
        if isinstance(one, Remark):
            warn(one.text)
            continue
        tell(one.line)
        if lists is not None:
            lists.add(one)


def _raise(bad: Mapping[int, str]) -> None:
    """Unreadable, where a process could not read entries."""
    if bad:
        raise unreadable(bad)
