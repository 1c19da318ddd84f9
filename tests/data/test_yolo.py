"""YOLO txt: where labels are looked for, and what each kind of row becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gfldet.data import text as lines
from gfldet.data.finder import Finder
from gfldet.data.formats import EMPTY, POLYGON, REPEATED_ROW, Index, by_kind, with_places, yolo
from gfldet.data.formats.yolo import index, label_candidates, read_labels
from gfldet.errors import DataError

NAMES = ("cat", "dog", "fish")


def texts(found: Index) -> list[str]:
    """What is told of an index."""
    return [*found.warnings, *(with_places(kind, places) for kind, places in by_kind(found.notes).items())]


def rows(text, *lines: str):
    return read_labels(text("a.txt", "\n".join(lines)), NAMES)


def test_a_row_is_centre_and_size(text) -> None:
    labels = rows(text, "1 0.5 0.5 0.25 0.5", "", "2.0 .25 .25 .5 .5")
    assert labels.boxes == [(0.375, 0.25, 0.625, 0.75), (0.0, 0.0, 0.5, 0.5)]
    assert labels.classes == [1, 2]
    assert labels.normalised
    assert [place.rsplit(":", 1)[1] for place in labels.places] == ["1", "3"]
    assert (labels.problems, labels.notes) == ([], [])


EVEN = ("0", "1", "2.0", "0.5", ".25", "1e-3")
ODD = ("2", "3", "-1", "1e-20", "2.1", "-0.5", "-2.5", "nan", "inf", "x", "1_0")


def test_plain_rows_are_read_as_the_others_are(tmp_path: Path) -> None:
    """Rows of five words drawn from odd and even ones: what is read at once is what is read row by row."""
    rng, plain = np.random.default_rng(0), 0
    for _ in range(2000):
        words = [*EVEN, *ODD[: rng.integers(0, len(ODD) + 1)]]
        lines = [" ".join(words[n] for n in rng.integers(0, len(words), 5)) for _ in range(rng.integers(0, 3))]
        file = tmp_path / "a.txt"
        at_once, one_by_one = yolo._plain_rows(file, lines, len(NAMES)), yolo._rows(file, lines, NAMES, None)
        if at_once is None:
            assert one_by_one.problems or one_by_one.notes
            continue
        plain += len(lines) > 0
        assert list(at_once.places) == one_by_one.places
        assert [place.line for place in at_once.places] == [place.line for place in one_by_one.places]
        assert at_once.boxes == one_by_one.boxes
        assert (at_once.classes, at_once.crowd) == (one_by_one.classes, one_by_one.crowd)
        assert one_by_one.problems == one_by_one.notes == []
    assert plain > 50


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf0 .5 .5 .2 .2\r\n1 .5 .5 .4 .4\r\n")
    assert read_labels(tmp_path / "a.txt", NAMES).classes == [0, 1]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_or_missing_file_is_background(text, tmp_path: Path, content: str) -> None:
    for file in (text("a.txt", content), tmp_path / "none.txt"):
        labels = read_labels(file, NAMES)
        assert (labels.boxes, labels.problems, labels.notes) == ([], [], [])


def test_polygons_become_their_bounding_boxes_and_are_told(text) -> None:
    labels = rows(text, "0 .1 .2 .5 .1 .3 .6", "1 .5 .5 .2 .2")
    assert labels.boxes[0] == (0.1, 0.1, 0.5, 0.6)
    assert [(kind, place.rsplit(":", 1)[1]) for kind, place in labels.notes] == [(POLYGON, "1")]


def test_boxes_without_area_and_repeated_rows_are_dropped_and_told(text) -> None:
    labels = rows(text, "0 .5 .5 0 .2", "1 .5 .5 .2 .2", "1 0.50 .5 .2 .2", "2 .5 .5 .2 .2")
    assert labels.classes == [1, 2]
    assert [(kind, place.rsplit(":", 1)[1]) for kind, place in labels.notes] == [(EMPTY, "1"), (REPEATED_ROW, "3")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 .5 .5 .2", "4 values; expected 'class cx cy w h'"),
        ("0 .5 .5 .2 .2 .9", "a sixth value, such as a confidence"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "8 values"),
        ("3 .5 .5 .2 .2", "class 3 is out of range; the data YAML names 3 classes, 0 to 2"),
        ("-1 .5 .5 .2 .2", "class -1 is out of range"),
        ("1.5 .5 .5 .2 .2", "class 1.5 is not a whole number"),
        ("nan .5 .5 .2 .2", "class nan is not a whole number"),
        ("Dgo .5 .5 .2 .2", "class 'Dgo' is not a number; expected a class id. Did you mean 'dog'?"),
        ("0 .5 x .2 .2", "is not all numbers"),
        ("0 .5 nan .2 .2", "not finite"),
        ("0 .5 .5 inf .2", "not finite"),
        ("0 .5 .5 -.2 .2", "negative size -0.2 x 0.2"),
        ("0 120 80 40 30", "value 120 looks like pixels"),
        ("0 .1 .1 .2 .2 300 .3", "value 300 looks like pixels"),
        ("0,.5,.5,.2,.2", "1 values"),
    ],
)
def test_a_row_that_is_no_box_is_a_problem_with_file_and_line(text, row: str, reason: str) -> None:
    labels = rows(text, "0 .5 .5 .2 .2", row)
    assert len(labels.problems) == 1
    assert labels.problems[0].startswith(labels.places[0].rsplit(":", 1)[0] + ":2: ")
    assert reason in labels.problems[0]
    assert labels.classes == [0], "the good row is kept"


def test_all_problems_of_a_file_are_told(text) -> None:
    assert len(rows(text, "9 .5 .5 .2 .2", "0 .5", "0 .5 .5 .2 .2", "0 .5 .5 .2 50").problems) == 3


def test_a_label_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"0 \xff\xfe .5")
    problems = read_labels(tmp_path / "a.txt", NAMES).problems
    assert len(problems) == 1
    assert "is not a UTF-8 text file" in problems[0]


def test_the_last_images_in_the_path_becomes_labels() -> None:
    assert label_candidates(Path("/images/pets/images/train"))[0] == Path("/images/pets/labels/train")
    assert label_candidates(Path("/pets/train/images"))[0] == Path("/pets/train/labels")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images/train", "labels/train"),
        ("train/images", "train/labels"),
        ("train", "train/labels"),
        ("train", "labels/train"),
        ("train", "labels"),
        ("train", "train"),
        ("images", "images"),
    ],
)
def test_labels_are_found_in_each_usual_place(image, text, tmp_path: Path, images: str, labels: str) -> None:
    image(f"{images}/a.jpg")
    image(f"{images}/b.JPG", format="JPEG")
    text(f"{labels}/b.txt", "1 .5 .5 .2 .2")
    found = index([tmp_path / images], Finder(tmp_path), NAMES)
    assert [item.file_name for item in found.items] == ["a.jpg", "b.JPG"]
    assert [item.image_id for item in found.items] == [0, 1]
    assert [item.labels().classes for item in found.items] == [[], [1]]
    assert texts(found) == ["1 image has no label file and counts as background: a.jpg"]


def test_subfolders_and_several_folders(image, text, tmp_path: Path) -> None:
    for part in ("one", "two/deep"):
        image(f"images/{part}/a.jpg")
        text(f"labels/{part}/a.txt", "0 .5 .5 .2 .2")
    found = index([tmp_path / "images"], Finder(tmp_path), NAMES)
    assert [item.file_name for item in found.items] == ["one/a.jpg", "two/deep/a.jpg"]
    assert [item.labels().classes for item in found.items] == [[0], [0]]
    both = index([tmp_path / "images/two", tmp_path / "images/one"], Finder(tmp_path), NAMES)
    assert [item.file_name for item in both.items] == ["images/two/deep/a.jpg", "images/one/a.jpg"]


def test_a_folder_of_labels_is_looked_into_once(image, text, tmp_path: Path, monkeypatch) -> None:
    for k in range(4):
        image(f"images/{k}.jpg")
        text(f"labels/{k}.txt", "0 .5 .5 .2 .2")
    looks: list[Path] = []
    monkeypatch.setattr(yolo, "label_folder", lambda folder: looks.append(folder) or tmp_path / "labels")
    index([tmp_path / "images"], Finder(tmp_path), NAMES)
    assert looks == [tmp_path / "images"]


def test_a_list_of_paths_relative_to_itself_or_to_the_root(image, text, tmp_path: Path) -> None:
    image("images/a.jpg")
    absolute = image("images/b.jpg")
    text("labels/a.txt", "2 .5 .5 .2 .2")
    lists = text("lists/train.txt", f"images/a.jpg\n\n../images/a.jpg\n{absolute}\n")
    found = index([lists], Finder(tmp_path), NAMES)
    assert [item.path.name for item in found.items] == ["a.jpg", "a.jpg", "b.jpg"]
    assert [item.labels().classes for item in found.items] == [[2], [2], []]


def test_an_image_listed_twice_is_told(image, text, tmp_path: Path) -> None:
    path = image("images/a.jpg")
    text("labels/a.txt", "2 .5 .5 .2 .2")
    found = index([text("train.txt", "images/a.jpg\nimages/a.jpg")], Finder(tmp_path), NAMES)
    assert texts(found) == [f"1 image is listed more than once and counts each time: {path}"]


def test_label_files_without_an_image_are_told(image, text, tmp_path: Path) -> None:
    image("images/a.jpg")
    text("labels/a.txt", "")
    text("labels/classes.txt", "cat")
    lost = text("labels/b.txt", "0 .5 .5 .2 .2")
    found = index([tmp_path / "images"], Finder(tmp_path), NAMES)
    assert texts(found) == [f"1 label file has no image and was skipped: {lost}"]


def test_a_labels_folder_shared_with_another_split_is_no_cause_for_a_warning(image, text, tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(f"{split}/{split}0.jpg")
        text(f"labels/{split}0.txt", "0 .5 .5 .2 .2")
    assert texts(index([tmp_path / "train"], Finder(tmp_path), NAMES)) == []


def test_not_one_label_file_is_an_error_that_tells_where_it_looked(image, tmp_path: Path) -> None:
    image("images/a.jpg")
    with pytest.raises(DataError, match="none of the images has a label file") as caught:
        index([tmp_path / "images"], Finder(tmp_path), NAMES)
    assert str(tmp_path / "labels" / "a.txt") in str(caught.value)


def test_an_empty_folder_or_list_is_an_error(text, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for entry in (tmp_path / "empty", text("train.txt", "\n")):
        with pytest.raises(DataError, match="no image found"):
            index([entry], Finder(tmp_path), NAMES)
    with pytest.raises(DataError, match=r"expected a folder of images, or a \.txt list"):
        index([text("train.csv", "a.jpg")], Finder(tmp_path), NAMES)


def test_a_label_file_of_any_size_is_told(text, monkeypatch: pytest.MonkeyPatch) -> None:
    file = text("a.txt", "x" * 100_000)
    (problem,) = read_labels(file, NAMES).problems
    assert len(problem) < len(str(file)) + 200
    text("a.txt", "spam spam\n" * 5000)
    problems = read_labels(file, NAMES).problems
    assert len(problems) == 1001
    assert problems[-1] == f"{file}: has more problems than these 1000; is it a label file?"
    with file.open("wb") as sparse:
        sparse.truncate(500 << 20)
    assert read_labels(file, NAMES).problems == [f"{file}: has 524 MB, and 17 MB is the most that is read"]


def test_a_list_of_too_many_lines(text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 3)
    assert lines.read_list(text("three.txt", "a.jpg\r\nb.jpg\r\nc.jpg\r\n"), tmp_path)[2].name == "c.jpg"
    with pytest.raises(DataError, match=r"many\.txt: holds more than 3 lines, which is the most that is read"):
        lines.read_list(text("many.txt", "a\n" * 7), tmp_path)
