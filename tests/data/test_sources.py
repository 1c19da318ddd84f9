"""Everything one can predict on gives RGB frames with a name of their own; bad input is told before the first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfldet.data.sources import Frame, iter_source
from gfldet.errors import DataError


def names(frames: list[Frame]) -> list[tuple[str, str]]:
    return [(frame.name, frame.file_name) for frame in frames]


def test_a_file(image, tmp_path: Path) -> None:
    path = image("a.png", 40, 20)
    (frame,) = iter_source(str(path))
    assert (frame.image == np.array(Image.open(path))).all()
    assert (frame.path, frame.name, frame.file_name, frame.index) == (str(path), "a", "a.png", None)


def test_a_folder_without_its_subfolders(image, tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "a.jpg", "sub/c.jpg", ".d.jpg"):
        image(name)
    (tmp_path / "notes.md").touch()
    assert names(list(iter_source(tmp_path))) == [("a", "a.jpg"), ("a-2", "a.png"), ("b", "b.jpg")]


def test_a_glob(image, tmp_path: Path) -> None:
    for name in ("x/b.jpg", "x/y/b.jpg", "x/y/c.png"):
        image(name)
    (tmp_path / "x/y/d.txt").touch()
    assert names(list(iter_source(str(tmp_path / "x" / "**" / "*")))) == [
        ("b", "b.jpg"),
        ("b-2", "y/b.jpg"),
        ("c", "y/c.png"),
    ]
    assert names(list(iter_source(str(tmp_path / "x" / "y" / "*.png")))) == [("c", "c.png")]


def test_a_list_of_paths(image, text) -> None:
    image("photos/a.jpg")
    image("photos/b.jpg")
    frames = list(iter_source(text("list.txt", "photos/b.jpg\nphotos/a.jpg\n")))
    assert names(frames) == [("b", "b.jpg"), ("a", "a.jpg")]


def test_arrays_are_bgr_and_pil_images_rgb(image) -> None:
    bgr = np.array([[[1, 2, 3]]], np.uint8)
    frames = list(iter_source([bgr, Image.fromarray(bgr), image("a.png")]))
    assert frames[0].image.tolist() == [[[3, 2, 1]]]
    assert frames[1].image.tolist() == [[[1, 2, 3]]]
    assert [frame.name for frame in frames] == ["image0", "image1", "a"]
    assert next(iter(iter_source(bgr))).image.tolist() == [[[3, 2, 1]]]


@pytest.fixture
def video(clip: Callable[..., Path]) -> Path:
    """Seven frames of grey levels 0, 30, 60, ..."""
    return clip(np.full((24, 32, 3), (0, 0, n * 30), np.uint8) for n in range(7))


@pytest.mark.parametrize(("stride", "expected"), [(1, range(7)), (3, [0, 3, 6]), (10, [0])])
def test_a_video_with_its_stride(video: Path, stride: int, expected: list[int]) -> None:
    frames = list(iter_source(video, vid_stride=stride))
    assert [frame.index for frame in frames] == list(expected)
    assert [frame.name for frame in frames] == [f"clip_{n:06d}" for n in expected]
    assert {frame.fps for frame in frames} == {10}
    for frame in frames:
        assert frame.index is not None
        np.testing.assert_allclose(frame.image.mean((0, 1)), [0, 0, frame.index * 30], atol=6)


def test_videos_and_images_of_one_folder(video: Path, image, tmp_path: Path) -> None:
    image("zebra.jpg")
    assert [frame.file_name for frame in iter_source(tmp_path, vid_stride=7)] == ["clip.avi", "zebra.jpg"]


def test_frames_of_a_video_beside_pictures_taken_from_it(video: Path, image, tmp_path: Path) -> None:
    """Names are unique also where pictures are called as the frames of a video would be."""
    image("clip_000001.png")
    frames = list(iter_source(tmp_path))
    assert [frame.name for frame in frames if frame.index is not None][:2] == ["clip-2_000000", "clip-2_000001"]
    assert frames[-1].name == "clip_000001"
    assert len({frame.name for frame in frames}) == len(frames)


def test_many_files_of_one_name(image, tmp_path: Path) -> None:
    paths = [str(image(f"{folder}/A.png" if folder % 2 else f"{folder}/a.png")) for folder in range(4)]
    assert [frame.name for frame in iter_source(paths)] == ["a", "A-2", "a-3", "A-4"]


def test_the_built_in_set() -> None:
    frames = iter_source("shapes")
    first = next(frames)
    assert (first.name, first.image.shape) == ("000000", (320, 320, 3))
    frames.close()  # type: ignore[attr-defined]
    (one,) = iter_source(first.path)
    assert (one.image == first.image).all()


def test_bad_files_are_all_told_before_the_first_frame(image, text, tmp_path: Path) -> None:
    image("a.jpg")
    text("b.jpg", "")
    text("c.png", "<html>")
    with pytest.raises(DataError, match="2 files of the source cannot be read") as caught:
        iter_source(tmp_path)
    assert "b.jpg: is empty" in str(caught.value)
    assert "c.png: is not a readable image" in str(caught.value)
    told: list[str] = []
    frames = list(iter_source(tmp_path, on_bad="skip", warn=told.append))
    assert names(frames) == [("a", "a.jpg")]
    assert len(told) == 2
    assert told[0].startswith(f"left out (on_bad=skip): {tmp_path / 'b.jpg'}: is empty")


def test_a_file_that_turns_out_bad_later_does_not_stop_the_others(image, tmp_path: Path) -> None:
    whole = image("a.png", 64, 64)
    whole.write_bytes(whole.read_bytes()[:-2000])
    image("b.png")
    frames = iter_source(tmp_path)
    assert next(frames).name == "b"
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        next(frames)
    told: list[str] = []
    assert [frame.name for frame in iter_source(tmp_path, on_bad="skip", warn=told.append)] == ["b"]
    assert "a.png: cannot be decoded" in told[0]
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        next(iter_source(whole))


def test_nothing_left_is_an_error_even_when_skipping(text, tmp_path: Path) -> None:
    text("b.jpg", "")
    with pytest.raises(DataError, match="is empty"):
        iter_source(tmp_path, on_bad="skip")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere/a.jpg", "no such file or folder"),
        ("nowhere/*.jpg", "matches no image or video"),
        ("ftp://camera/1", "ftp:// is not read; a stream begins with rtsp"),
        ([], "the list is empty"),
        (None, "got NoneType"),
        (True, "got bool"),
        (np.zeros((2, 8, 8, 3), np.uint8), "image0: expected an array of shape"),
        (np.zeros((8, 8, 3), np.int32), "image0: expected samples of uint8"),
        (np.full((8, 8, 3), -1.0), "image0: float samples from -1 to -1; expected 0 to 1, or 0 to 255"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((3, 8, 8), np.uint8)], "image1: expected an array of shape"),
    ],
)
def test_sources_that_cannot_be_used(source: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        iter_source(source)  # type: ignore[arg-type]


def test_folders_and_lists_without_images(image, text, tmp_path: Path) -> None:
    image("deep/sub/a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image or video in this folder; there are some in subfolders"):
        iter_source(tmp_path / "deep")
    with pytest.raises(DataError, match=r"no image or video in this folder$"):
        iter_source(tmp_path / "empty")
    with pytest.raises(DataError, match="lists no image"):
        iter_source(text("list.txt", "\n"))
    with pytest.raises(DataError, match="does not exist"):
        iter_source(text("list.txt", "gone.jpg"))


def test_a_video_that_is_none(text) -> None:
    with pytest.raises(DataError, match="is empty"):
        iter_source(text("a.mp4", ""))
    with pytest.raises(DataError, match="cannot be opened as a video"):
        list(iter_source(text("b.mp4", "no video")))


def test_a_stride_below_one(image) -> None:
    with pytest.raises(DataError, match="vid_stride=0: expected 1 or more"):
        iter_source(image("a.jpg"), vid_stride=0)


def test_a_damaged_jpeg_is_used_and_told(image) -> None:
    path = image("a.jpg", 64, 64)
    path.write_bytes(path.read_bytes()[:-300])
    told: list[str] = []
    assert len(list(iter_source(path, warn=told.append))) == 1
    assert "ends too early" in told[0]


@pytest.mark.parametrize("source", ["x" * 300, "a\0b", "\ud800.jpg", "a\0*.jpg", "9" * 5000, "[z-a]", "**/none.jpg"])
def test_names_that_no_file_can_have(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to(".")
    Path("again").symlink_to(".")
    with pytest.raises(DataError) as caught:
        iter_source(source)
    assert len(str(caught.value)) < 600


def test_pipes_and_devices_are_told(image, tmp_path: Path) -> None:
    image("a.png")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: cannot be read \(it is a pipe or a device\); give a file"):
        iter_source(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        iter_source("/dev/zero")


def test_lists_without_an_end() -> None:
    source: list = []
    source.append(source)
    with pytest.raises(DataError, match="nested too deep"):
        iter_source(source)


@pytest.mark.parametrize("number", [10**9, 10**400, -5])
def test_cameras_that_there_cannot_be(number: int) -> None:
    with pytest.raises(DataError, match="expected the number of a camera"):
        iter_source(number)
