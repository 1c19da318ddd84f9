"""Where the file is that a text means: what exists is taken, what is found otherwise is told; two are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gfldet.data.finder import Finder, SeveralError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "train/images/a.jpg",
        "valid/images/a.jpg",
        "images/Train/b b.jpg",
        "obj_train_data/c.jpg",
        "x/d.jpg",
        "y/d.jpg",
        "images/upload/e.jpg",
        "Photos/one/f.jpg",
        "Photos/two/f.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("train/images", "train/images"),
        ("../train/images", "train/images"),
        ("../../NAME-3/valid/images", "valid/images"),
        ("..\\train\\images\\", "train/images"),
        ("C:\\data\\train\\images", "train/images"),
        ("/home/me/set/train/images/", "train/images"),
        ("set/obj_train_data", "obj_train_data"),
        ("validation/images", "valid/images"),
        ("images/train", "images/Train"),
        ("data/PHOTOS", "Photos"),
        ("../test/images", None),
        ("nothing", None),
    ],
)
def test_an_entry_of_the_data_yaml(root: Path, written: str, found: str | None) -> None:
    assert Finder(root).entry(written, "d.yaml") == (found and root / found)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("images/upload/e.jpg", "images/upload/e.jpg"),
        ("data/obj_train_data/c.jpg", "obj_train_data/c.jpg"),
        ("./../obj_train_data/c.jpg", "obj_train_data/c.jpg"),
        ("images\\upload\\e.jpg", "images/upload/e.jpg"),
        ("D:\\me\\images\\upload\\E.JPG", "images/upload/e.jpg"),
        ("..\\..\\label-studio\\media\\upload\\4\\e.jpg", "images/upload/e.jpg"),
        ("/data/local-files/?d=images/upload/e.jpg", "images/upload/e.jpg"),
        ("https://host/images/upload/e.jpg?token=a/b", "images/upload/e.jpg"),
        ("gs://bucket/b%20b.jpg", "images/Train/b b.jpg"),
        ("file:///C:/me/c.jpg", "obj_train_data/c.jpg"),
        ("train/1/a.jpg", "train/images/a.jpg"),
        ("photos/two/f.jpg", "Photos/two/f.jpg"),
        ("test/a.jpg", None),
        ("none.jpg", None),
        ("\0", None),
        ("\ud800.jpg", None),
        ("a/" * 3000 + "z.jpg", None),
        ("http://", None),
    ],
)
def test_a_name_in_a_list_or_a_json(root: Path, written: str, found: str | None) -> None:
    (one,) = Finder(root).find_all([written], [root], "t.json")
    assert (one.path if one.there else None) == (found and root / found)
    assert one.problem == ""


def test_a_path_that_exists_wins_without_a_search(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "walk", lambda *a, **k: pytest.fail("searched"))
    finder = Finder(root)
    found = finder.find_all(["d.jpg", "../images/upload/e.jpg"], [root / "x", root], "t.json")
    assert [one.path for one in found] == [root / "x/d.jpg", root / "x/../images/upload/e.jpg"]
    assert finder.entry("x", "d.yaml") == root / "x"
    assert finder.take_notices() == []


def test_the_files_are_looked_through_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks, walk = [], os.walk
    monkeypatch.setattr(os, "walk", lambda top, **k: walks.append(top) or walk(top, **k))
    finder = Finder(root)
    for name in ("q/e.jpg", "q/c.jpg", "none.jpg"):
        finder.find_all([name], [root], "t.json")
    assert walks == [root]


def test_two_candidates_are_none(root: Path) -> None:
    (one,) = Finder(root).find_all(["q/d.jpg"], [root], "t.json")
    assert not one.there
    assert str(root / "x/d.jpg") in one.problem
    assert str(root / "y/d.jpg") in one.problem
    with pytest.raises(SeveralError, match="several files below"):
        Finder(root).entry("q/d.jpg", "d.yaml")


def test_a_candidate_below_the_first_folder_is_nearer(root: Path) -> None:
    (one,) = Finder(root).find_all(["q/f.jpg"], [root / "Photos/one"], "t.json")
    assert one.path == root / "Photos/one/f.jpg"


def test_two_texts_never_mean_one_file(root: Path) -> None:
    one, two = Finder(root).find_all(["p/c.jpg", "obj_train_data/c.jpg"], [root], "l.txt")
    assert (one.there, two.there) == (False, True)
    assert "c.jpg is named so but belongs to 'obj_train_data/c.jpg'" in one.problem
    again = Finder(root).find_all(["data/obj_train_data/c.jpg"] * 2, [root], "l.txt")
    assert [one.there for one in again] == [True, True]


def test_each_choice_is_told_once_with_its_count(root: Path) -> None:
    (root / "obj_train_data/g.jpg").write_bytes(b"")
    finder = Finder(root)
    names = ["data/obj_train_data/c.jpg", "data/obj_train_data/g.jpg", "images/upload/e.jpg", "z/e.jpg"]
    finder.find_all(names[:2], [root], "l.txt")
    assert finder.take_notices() == [
        "l.txt: 2 paths do not exist as written and were found elsewhere, 'data/obj_train_data/c.jpg' as "
        "'obj_train_data/c.jpg'"
    ]
    finder.find_all(names[:2], [root], "l.txt")
    assert finder.take_notices() == []
    finder.entry("../train/images", "d.yaml")
    finder.entry("../train/images", "d.yaml")
    assert "1 path " in finder.take_notices()[0]


def test_many_kinds_of_choice_are_counted_together(tmp_path: Path) -> None:
    for k in range(9):
        (tmp_path / f"f{k}").mkdir()
        (tmp_path / f"f{k}" / f"{k}.jpg").write_bytes(b"")
    finder = Finder(tmp_path)
    finder.find_all([f"q{k}/{k}.jpg" for k in range(9)], [tmp_path], "l.txt")
    told = finder.take_notices()
    assert len(told) == 6
    assert told[-1] == "l.txt: 4 more paths were found in 4 other ways"


def test_labels_by_the_stems_of_the_images(tmp_path: Path) -> None:
    names = (
        "labels/train_labels/a.txt",
        "labels/val_labels/a.txt",
        "labels/train_labels/b.txt",
        "one/c.txt",
        "two/c.txt",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    finder, images = Finder(tmp_path), [tmp_path / f"images/train/{stem}.jpg" for stem in "abz"]
    found = finder.labels_of(images, ".txt")
    assert [found.get(image) for image in images] == [tmp_path / names[0], tmp_path / names[2], None]
    assert "2 labels " in finder.take_notices()[0]
    with pytest.raises(SeveralError, match="two"):
        finder.labels_of([tmp_path / "images/c.jpg"], ".txt")
    assert finder.labels_of([tmp_path / "photos/one/c.jpg"], ".txt") == {
        tmp_path / "photos/one/c.jpg": tmp_path / names[3]
    }


def test_the_top_of_a_disk_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to("/")
    assert Finder(Path("/")).entry("no/such/folder", "d.yaml") is None
    assert Finder(tmp_path).entry("no/such/folder", "d.yaml") is None
    assert Finder(Path("/")).files(".txt") == []
