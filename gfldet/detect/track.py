"""Tracks: one id for what is one object in successive frames.  ByteTrack, by the package `trackers` (Apache-2.0).

Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", 2022: boxes are matched to where
the Kalman filter of each track expects its object, first those of high scores, then the others.  Class and looks play
no part.  The package is an extra and is imported here alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfldet.boxes import Boxes
from gfldet.data.sources import FPS
from gfldet.detect.predict import Prediction
from gfldet.errors import ConfigError
from gfldet.ops.detections import Detections

SURE = 0.5  # score from which a box may begin a track, and is matched first; scores of gfldet go by the overlap
MEMORY = 1.0  # s for which a track waits for an object that is hidden


def check_installed() -> None:
    """ConfigError with the command that installs what tracking needs, if it is not here."""
    _tracker(FPS)


def tracked(predictions: Iterable[Prediction], vid_stride: int) -> Iterator[Prediction]:
    """The predictions, with tracks.  Each video has tracks of its own; successive pictures are frames of one.

    Ids count from 0 in each video.  A detection has -1 as long as it may be a false alarm: in the first frame in which
    an object is seen, and below `SURE` until it is matched.
    """
    source, tracker = "", None
    for prediction in predictions:
        frame = prediction.frame
        name = "" if frame.index is None else frame.path
        if tracker is None or name != source or frame.index == 0:
            source, tracker = name, _tracker(frame.rate(vid_stride))
        found = prediction.detections
        tracks = _tracks(tracker, found)
        results = prediction.results
        results.boxes = Boxes(results.boxes.data, results.orig_shape, tracks)
        yield replace(prediction, detections=replace(found, tracks=tracks))
        del prediction, frame, results  # not held while the next frame is read


def _tracks(tracker: Any, found: Detections) -> NDArray[np.int64]:
    """(D,) the track of each detection in the next frame; -1 for none yet."""
    import supervision

    rows = np.arange(len(found))
    given = supervision.Detections(
        xyxy=found.boxes.astype(np.float64),
        confidence=found.scores.astype(np.float64),
        class_id=found.classes,
        data={"row": rows},
    )
    matched = tracker.update(given)  # in an order of its own
    tracks = np.full(len(found), -1, np.int64)
    if len(matched):
        tracks[matched.data["row"]] = matched.tracker_id
    return tracks


def _tracker(fps: float) -> Any:
    """A tracker without tracks; ConfigError where the package is not installed."""
    try:
        from trackers import ByteTrackTracker
    except ImportError as error:
        raise ConfigError("track=true: the package trackers is not installed; pip install 'gfldet[track]'") from error
    return ByteTrackTracker(
        lost_track_buffer=max(1, round(MEMORY * fps)),
        frame_rate=30.0,  # of which the buffer above is counted
        track_activation_threshold=SURE,
        high_conf_det_threshold=SURE,
    )
