"""Tracks: objects that cross keep their ids, in results, label files, predictions.json and in the drawn video."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gfldet import Model, cli
from gfldet.data.sources import Frame
from gfldet.detect import track
from gfldet.detect.predict import Prediction
from gfldet.detect.track import tracked
from gfldet.errors import ConfigError
from gfldet.ops.detections import Detections
from gfldet.results import Results

QUIET: dict[str, Any] = {"imgsz": 96, "threads": 1, "verbose": False}


@pytest.fixture
def trackers() -> Any:
    return pytest.importorskip("trackers")


def prediction(index: int | None, places: list[tuple[float, float]], scores: list[float], path: str = "a.mp4") -> Any:
    """A frame in which boxes of 20 x 20 px are found with their left upper corners at `places`."""
    corners = np.array(places, np.float32).reshape(-1, 2)
    boxes = np.concatenate((corners, corners + 20), axis=1)
    image = np.zeros((100, 200, 3), np.uint8)
    found = Detections(boxes, np.array(scores, np.float32), np.zeros(len(boxes), np.int64))
    rows = np.column_stack((boxes, found.scores, found.classes))
    frame = Frame(image, path, f"a_{index}", path, index, None if index is None else 25.0)
    return Prediction(frame, Results(image, path, {0: "car"}, rows), found)


def crossing(path: str = "a.mp4") -> Iterator[Prediction]:
    """Two objects that move towards each other on lines 8 px apart, meet, and go on; the first found comes first."""
    for step in range(30):
        left, right = (4.0 * step, 40.0), (160 - 4.0 * step, 48.0)
        places = [left, right] if step % 3 else [right, left]
        yield prediction(step, places, [0.9, 0.8], path)


def ids_of_both(found: list[Prediction]) -> list[tuple[int, ...]]:
    """The ids of the upper and of the lower object, frame by frame."""
    return [tuple(int(one.results.boxes.id[row]) for row in np.argsort(one.results.boxes.xyxy[:, 1])) for one in found]


def test_objects_that_cross_keep_their_ids(trackers: Any) -> None:
    ids = ids_of_both(list(tracked(crossing(), 1)))
    assert ids[0] == (-1, -1)  # one frame may be a false alarm
    assert set(ids[1:]) in ({(0, 1)}, {(1, 0)})


def test_each_video_has_tracks_of_its_own(trackers: Any) -> None:
    both = list(tracked([*crossing(), *crossing("b.mp4")], 1))
    assert ids_of_both(both[30:]) == ids_of_both(both[:30])


def test_what_is_hidden_for_a_moment_is_known_again(trackers: Any) -> None:
    """Frames without a detection, and one with a low score, which begins no track."""
    frames = [
        prediction(i, [(4.0 * i, 40)] if i not in (6, 7) else [], [0.9] if i not in (6, 7) else []) for i in range(12)
    ]
    frames.append(prediction(12, [(48, 40), (150, 70)], [0.3, 0.4]))
    found = list(tracked(frames, 1))
    ids = [one.results.boxes.id.tolist() for one in found]
    assert ids[1:6] == [[0]] * 5
    assert ids[6:8] == [[], []]
    assert ids[8:12] == [[0]] * 4
    assert ids[12] == [0, -1]
    assert found[12].detections.tracks is not None
    assert found[12].detections.tracks.tolist() == [0, -1]


def test_pictures_that_follow_each_other_are_frames(trackers: Any) -> None:
    found = list(tracked([prediction(None, [(4.0 * i, 40)], [0.9], f"{i}.jpg") for i in range(4)], 5))
    assert [one.results.boxes.id.tolist() for one in found] == [[-1], [0], [0], [0]]


def test_a_video_is_tracked_into_all_files(trackers: Any, model: Model, tmp_path: Path, draw: Any, clip: Any) -> None:
    frames = []
    for step in range(12):
        red, blue = (0, 2 + 6 * step, 4, 22 + 6 * step, 24), (1, 70 - 6 * step, 34, 90 - 6 * step, 54)
        frames.append(draw([red, blue], 96, 64, 0))
    clip(frames)
    found = model.predict("clip.avi", track=True, save=True, save_txt=True, save_conf=True, save_json=True, **QUIET)
    assert [sorted(results.boxes.id.tolist()) for results in found] == [[-1, -1]] + [[0, 1]] * 11
    last = found[-1]
    assert last.boxes.is_track
    assert last[0].boxes.id.tolist() == [last.boxes.id[0]]
    assert last.summary()[0]["track_id"] == int(last.boxes.id[0])
    assert last.to_csv().splitlines()[0] == "name,class,confidence,box,track_id"
    run = tmp_path / "runs/predict"
    rows = [row.split() for row in (run / "labels/clip_000011.txt").read_text().splitlines()]
    assert [(int(row[0]), int(row[6])) for row in rows] == list(zip(last.boxes.cls, last.boxes.id, strict=True))
    kept = [row["track_id"] for row in json.loads((run / "predictions.json").read_text())]
    assert kept == [track for results in found for track in results.boxes.id.tolist()]
    assert (run / "clip.mp4").stat().st_size > 0
    untracked = model.predict("clip.avi", **QUIET)[-1]
    assert untracked.boxes.id is None
    assert (last.plot() != untracked.plot()).any()  # the ids are drawn


def test_supervision_takes_the_ids(trackers: Any) -> None:
    supervision = pytest.importorskip("supervision")
    one = list(tracked(crossing(), 1))[-1].results
    assert supervision.Detections.from_ultralytics(one).tracker_id.tolist() == one.boxes.id.tolist()


def test_without_the_package(
    model: Model, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ConfigError):
        model.predict("a.png", track=True, save=True)
    assert cli.main(["predict", f"model={trained}", "source=a.png", "track=true"]) == 2
    told = capsys.readouterr().err
    assert told == "gfldet: track=true: the package trackers is not installed; pip install 'gfldet[track]'\n"
    assert not Path("runs").exists()


def test_the_frame_before_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "_tracker", lambda fps: fps)
    monkeypatch.setattr(track, "_tracks", lambda tracker, found: np.zeros(len(found), np.int64))
    alive: list[weakref.ref[np.ndarray]] = []
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def predictions() -> Iterator[Prediction]:
        for number in range(3):
            assert all(one() is None for one in alive)
            image = np.zeros((8, 8, 3), np.uint8)
            alive.append(weakref.ref(image))
            results = Results(image, "a.mp4", {0: "x"}, np.zeros((0, 6)), {}, f"a_{number}")
            handed = [Prediction(Frame(image, "a.mp4", f"a_{number}", "a.mp4", number), results, empty)]
            del image, results
            yield handed.pop()

    for found in tracked(predictions(), 1):
        del found
    assert len(alive) == 3
