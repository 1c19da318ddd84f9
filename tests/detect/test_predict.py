"""Prediction: frames of any shape to boxes in their own pixels, and the files that are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torch import Tensor

from gfldet.data.sources import Frame
from gfldet.detect import saver as savers
from gfldet.detect.detector import Selection
from gfldet.detect.predict import Prediction, Predictor, image_ids
from gfldet.detect.saver import Saver
from gfldet.detect.torch_detector import TorchDetector
from gfldet.errors import DataError, OutputError
from gfldet.metrics.table import coco_results, joined, table_of
from gfldet.nn.tasks import DetectionModel

Draw = Callable[..., np.ndarray]


@pytest.fixture
def frame(draw: Draw) -> Callable[..., Frame]:
    """name, width, height -> a frame with a red and a blue rectangle in known places."""

    def make(name: str, width: int = 64, height: int = 48, index: int | None = None, fps: float | None = None) -> Frame:
        rectangles = [(0, 8, 4, 24, 20), (1, width - 24, height - 20, width - 8, height - 4)]
        return Frame(draw(rectangles, width, height, 0), f"in/{name}.png", name, f"{name}.png", index, fps)

    return make


def saved(predictions: list[Prediction]) -> list[dict[str, Any]]:
    """Their rows in predictions.json."""
    table = joined([table_of(number, one.detections) for number, one in enumerate(predictions)])
    return list(coco_results(table, [(one.image_id, one.frame.file_name) for one in predictions], (7, 91)))


def finder(model: DetectionModel, **options: Any) -> Predictor:
    values: dict[str, Any] = {"size": (128, 128), "selection": Selection(conf=0.25), **options}
    return Predictor(TorchDetector(model), **values)


@pytest.mark.parametrize("rect", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_boxes_are_in_the_pixels_of_each_frame(
    colour_finder: DetectionModel, frame: Callable[..., Frame], rect: bool, batch: int
) -> None:
    frames = [frame("a"), frame("b"), frame("c"), frame("d", 200, 100), frame("e", 50, 60), frame("f")]
    found = list(finder(colour_finder, rect=rect)(frames, batch))
    assert [prediction.frame.name for prediction in found] == list("abcdef")
    for prediction in found:
        results = prediction.results
        height, width = results.orig_shape
        assert results.boxes.xyxy.tolist() == [
            pytest.approx([8, 4, 24, 20], abs=1.5),
            pytest.approx([width - 24, height - 20, width - 8, height - 4], abs=1.5),
        ]
        assert results.boxes.cls.tolist() == [0, 1]
        assert results.boxes.conf.tolist() == pytest.approx([0.9, 0.8])
        assert (results.orig_img[..., ::-1] == prediction.frame.image).all()  # BGR
        assert results.names == {0: "red", 1: "blue"}
        assert set(results.speed) == {"preprocess", "inference", "postprocess"}
        rows = saved([prediction])
        assert [one["category_id"] for one in rows] == [7, 91]
        assert rows[0]["bbox"] == pytest.approx([8, 4, 16, 16], abs=2)


def test_neighbours_of_one_size_go_together(colour_finder: DetectionModel, frame: Callable[..., Frame]) -> None:
    shapes = []
    infer = colour_finder.infer

    def watched(x: Tensor) -> Any:
        shapes.append(tuple(x.shape))
        return infer(x)

    colour_finder.infer = watched  # type: ignore[method-assign]
    frames = [frame("a"), frame("b"), frame("c"), frame("d", 128, 40), frame("e")]
    list(finder(colour_finder)(frames, 2))
    # 64 x 48 becomes 128 x 96 in its frame; 128 x 40 is padded to 128 x 64.
    assert shapes == [(2, 3, 96, 128), (1, 3, 96, 128), (1, 3, 64, 128), (1, 3, 96, 128)]


def test_frames_are_not_read_ahead(colour_finder: DetectionModel, frame: Callable[..., Frame]) -> None:
    drawn: list[str] = []

    def frames() -> Any:
        for name in "abcd":
            drawn.append(name)
            yield frame(name)

    found = finder(colour_finder)(frames(), 1)
    next(found)
    assert drawn == ["a"]


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_what_was_read_before_a_bad_frame_is_predicted(
    colour_finder: DetectionModel, frame: Callable[..., Frame], batch: int
) -> None:
    def frames() -> Any:
        yield from (frame("a"), frame("b"), frame("c"))
        raise DataError("d.png: cannot be decoded")

    got = []
    with pytest.raises(DataError, match=r"d\.png: cannot be decoded"):
        got.extend(finder(colour_finder)(frames(), batch))
    assert [one.frame.name for one in got] == ["a", "b", "c"]


def test_no_frames_no_predictions(colour_finder: DetectionModel) -> None:
    assert list(finder(colour_finder)([], 4)) == []


@pytest.mark.parametrize(("classes", "kept"), [(None, [0, 1]), ([1], [1]), ([0, 1], [0, 1]), ([], [])])
def test_classes_that_are_wanted(
    colour_finder: DetectionModel, frame: Callable[..., Frame], classes: Any, kept: list[int]
) -> None:
    (prediction,) = finder(colour_finder, classes=classes)([frame("a")], 1)
    assert prediction.results.boxes.cls.tolist() == kept
    assert len(saved([prediction])) == len(kept)


@pytest.mark.parametrize(("name", "image_id"), [("000139", 139), ("0", 0), ("a-2", "a-2"), ("1.5", "1.5")])
def test_image_ids(colour_finder: DetectionModel, frame: Callable[..., Frame], name: str, image_id: Any) -> None:
    (prediction,) = finder(colour_finder)([frame(name)], 1)
    assert {(one["image_id"], one["file_name"]) for one in saved([prediction])} == {(image_id, f"{name}.png")}


def test_ids_are_unique_and_stay_numbers_where_they_can() -> None:
    assert image_ids(["1", "01", "0001", "000139", "2", "a", "a-2"]) == ["1", "01", "0001", 139, 2, "a", "a-2"]
    assert image_ids(["5", "\u0665"]) == ["5", "\u0665"]  # an Arabic five is a five
    assert image_ids([]) == []


# ------------------------------------------------------------------------------------------------- what is written


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def saver(folder: Path, **options: Any) -> Saver:
    values = {
        "pictures": False,
        "txt": False,
        "scores_in_txt": False,
        "coco": False,
        "category_ids": (7, 91),
        **options,
    }
    return Saver(lambda: made(folder), **values)


@pytest.fixture
def predictions(colour_finder: DetectionModel, frame: Callable[..., Frame]) -> Callable[..., list[Prediction]]:
    return lambda *frames: list(finder(colour_finder)(frames or (frame("a"), frame("b")), 1))


def test_everything_is_written(tmp_path: Path, predictions: Callable[..., list[Prediction]]) -> None:
    folder = tmp_path / "new" / "run"
    into = saver(folder, pictures=True, txt=True, coco=True)
    assert not folder.exists()
    found = predictions()
    for one in found:
        into.add(one)
    into.close()
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "a.jpg",
        "b.jpg",
        "labels/a.txt",
        "labels/b.txt",
        "predictions.json",
    ]
    assert cv2.imread(str(folder / "a.jpg")).shape == (48, 64, 3)
    rows = [line.split() for line in (folder / "labels" / "a.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == ["0", "1"]
    assert [float(v) for v in rows[0][1:]] == pytest.approx([16 / 64, 12 / 48, 16 / 64, 16 / 48], abs=0.02)
    assert json.loads((folder / "predictions.json").read_text()) == saved(found)


def test_each_image_has_an_id_of_its_own_in_a_file(
    tmp_path: Path, predictions: Callable[..., list[Prediction]], frame: Callable[..., Frame]
) -> None:
    into = saver(tmp_path / "run", coco=True)
    for one in predictions(*(frame(name) for name in ("1", "01", "0001", "07"))):
        into.add(one)
    into.close()
    rows = json.loads((tmp_path / "run" / "predictions.json").read_text())
    assert {(row["image_id"], row["file_name"]) for row in rows} == {
        ("1", "1.png"),
        ("01", "01.png"),
        ("0001", "0001.png"),
        (7, "07.png"),
    }


def test_scores_go_into_label_files_when_asked(tmp_path: Path, predictions: Callable[..., list[Prediction]]) -> None:
    into = saver(tmp_path, txt=True, scores_in_txt=True)
    into.add(predictions()[0])
    into.close()
    rows = [line.split() for line in (tmp_path / "labels" / "a.txt").read_text().splitlines()]
    assert [row[-1] for row in rows] == ["0.900000", "0.800000"]
    assert {len(row) for row in rows} == {6}


def test_no_predictions_no_folder(tmp_path: Path) -> None:
    into = saver(tmp_path / "run", pictures=True, txt=True, coco=True)
    into.close()
    assert list(tmp_path.iterdir()) == []


def frames_of(path: Path) -> tuple[float, list[np.ndarray]]:
    """Frames a second and the frames of a video."""
    capture = cv2.VideoCapture(str(path))
    fps, frames = capture.get(cv2.CAP_PROP_FPS), []
    while (got := capture.read())[0]:
        frames.append(got[1])
    capture.release()
    return fps, frames


def test_videos_are_written_as_videos(
    tmp_path: Path, predictions: Callable[..., list[Prediction]], frame: Callable[..., Frame]
) -> None:
    frames = [frame(f"clip_{i:06d}", index=i, fps=10.0) for i in (0, 2, 4)]
    frames += [frame(f"clip-2_{i:06d}", 96, 64, index=i, fps=20.0) for i in (0, 2)]  # another folder's clip.avi
    into = saver(tmp_path, pictures=True, vid_stride=2)
    for one in predictions(*frames, frame("photo")):
        into.add(one)
    into.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip-2.mp4", "clip.mp4", "photo.jpg"]
    fps, shown = frames_of(tmp_path / "clip.mp4")
    assert (fps, len(shown), shown[0].shape) == (5.0, 3, (48, 64, 3))
    fps, shown = frames_of(tmp_path / "clip-2.mp4")
    assert (fps, len(shown), shown[0].shape) == (10.0, 2, (64, 96, 3))


def test_a_video_that_cannot_be_written(
    tmp_path: Path, predictions: Callable[..., list[Prediction]], frame: Callable[..., Frame]
) -> None:
    (tmp_path / "clip.mp4").mkdir()
    into = saver(tmp_path, pictures=True)
    with pytest.raises(OutputError, match=r"clip\.mp4: the video cannot be written; choose another project="):
        into.add(predictions(frame("clip_000000", index=0, fps=10.0))[0])
    into.close()


def test_a_video_on_a_full_disk(
    tmp_path: Path,
    predictions: Callable[..., list[Prediction]],
    frame: Callable[..., Frame],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenCV itself raises nothing: it leaves out frames, and the end of the file."""
    into = saver(tmp_path, pictures=True)
    first, second = predictions(*(frame(f"clip_{i:06d}", index=i, fps=10.0) for i in (0, 1)))
    into.add(first)
    monkeypatch.setattr(savers, "disk_is_full", lambda folder: folder == tmp_path)
    with pytest.raises(
        OutputError, match=r"clip\.mp4: no space left on the disk; free space, or choose another project="
    ):
        into.add(second)
    into.close()
    into = saver(tmp_path, pictures=True)
    monkeypatch.setattr(savers, "disk_is_full", lambda folder: False)
    into.add(first)
    assert into._video is not None
    into._video.release()
    (tmp_path / "clip.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:100])
    with pytest.raises(OutputError, match=r"clip\.mp4: its end is missing; free space, or choose another project="):
        into.close()
