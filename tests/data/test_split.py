"""Loading a split: boxes in upright pixels, every problem in one message, every repair counted and named."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gfldet.data import gather
from gfldet.data import split as split_room
from gfldet.data.gather import open_image
from gfldet.data.likeness import likeness
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.errors import DataError

YOLO = "format: yolo\ntrain: images\nnames: [cat, dog]\n"


def test_yolo_boxes_come_out_in_pixels(image, text) -> None:
    image("images/a.png", 40, 20)
    image("images/b.png", 100, 50)
    text("labels/a.txt", "1 .5 .5 .5 .5\n0 .25 .25 .5 .5")
    split = load_split(load_spec(text("d.yaml", YOLO)), "train")
    first, second = split.records
    assert (split.name, split.names, split.category_ids) == ("train", ("cat", "dog"), (0, 1))
    assert first.boxes.tolist() == [[10, 5, 30, 15], [0, 0, 20, 10]]
    assert first.classes.tolist() == [1, 0]
    assert (first.boxes.dtype, first.classes.dtype) == (np.float32, np.int64)
    assert (first.width, first.height, first.file_name, first.image_id) == (40, 20, "a.png", 0)
    assert (second.boxes.shape, second.classes.shape, second.ignore.shape) == ((0, 4), (0,), (0, 4))
    assert split.warnings == ("train: 1 image has no label file and counts as background: b.png",)


def test_boxes_belong_to_the_upright_image(image, text) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image("images/a.jpg", 40, 20, exif=exif)  # stored 40 x 20, upright 20 x 40
    text("labels/a.txt", "0 .5 .5 .5 .5")
    (record,) = load_split(load_spec(text("d.yaml", YOLO)), "train").records
    assert (record.width, record.height) == (20, 40)
    assert record.boxes.tolist() == [[5, 10, 15, 30]]


def test_boxes_are_clipped_and_told_beyond_half_a_pixel(image, text) -> None:
    image("images/a.png", 100, 100)
    file = text("labels/a.txt", "0 .952 .5 .1 .1\n0 .95 .5 .2 .2\n0 1.5 .5 .2 .2\n1 .5 .5 .00001 .5\n")
    split = load_split(load_spec(text("d.yaml", YOLO)), "train")
    np.testing.assert_allclose(split.records[0].boxes, [[90.2, 45, 100, 55], [85, 40, 100, 60]], rtol=1e-6)
    assert split.warnings == (
        f"train: 2 boxes without any area inside the image were dropped: {file}:3, {file}:4",
        f"train: 1 box reached out of the image and was clipped: {file}:2",
    )


def test_what_is_left_out_counts_as_nothing_else(image, text) -> None:
    """An image without labels that cannot be read either is no background."""
    image("images/a.png")
    text("labels/a.txt", "0 .5 .5 .5 .5")
    text("images/b.png", "no image")
    split = load_split(load_spec(text("d.yaml", YOLO)), "train", on_bad="skip")
    (warning,) = split.warnings
    assert warning.startswith("train: left out (on_bad=skip): ")


def test_repairs_are_counted_over_all_images(image, text, tmp_path: Path) -> None:
    for n in range(25):
        image(f"images/{n:02d}.png")
        text(f"labels/{n:02d}.txt", "0 .1 .2 .5 .1 .3 .6")
    (warning,) = load_split(load_spec(text("d.yaml", YOLO)), "train").warnings
    assert warning.startswith("train: 25 polygon rows were read as the bounding boxes")
    assert f"{tmp_path / 'labels' / '19.txt'}:1, and 5 more" in warning


@pytest.fixture
def broken(image, text, tmp_path: Path) -> Path:
    """A set with one good image and one of each kind of trouble."""
    image("images/good.png")
    text("labels/good.txt", "0 .5 .5 .5 .5")
    image("images/class.png")
    text("labels/class.txt", "0 .5 .5 .5 .5\n7 .5 .5 .5 .5\n0 .5 .5")
    text("images/empty.jpg", "")
    text("images/page.jpg", "<html>")
    whole = image("images/cut.png", 64, 64).read_bytes()
    (tmp_path / "images/cut.png").write_bytes(whole[:-2000])
    return text("d.yaml", YOLO)


def test_every_problem_is_in_one_message(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_split(load_spec(broken), "train")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{broken}: train: 5 problems:"
    assert len(lines) == 7
    assert f"  {tmp_path}/labels/class.txt:2: class 7 is out of range; the data YAML names 2 classes, 0 to 1" in lines
    assert f"  {tmp_path}/labels/class.txt:3: 3 values; expected" in lines[2]
    assert f"  {tmp_path}/images/cut.png: cannot be decoded" in lines[3]
    assert f"  {tmp_path}/images/empty.jpg: is empty (0 bytes)" in lines[4]
    assert f"  {tmp_path}/images/page.jpg: is not a readable image" in lines[5]
    assert "on_bad=skip" in lines[6]


def test_skip_leaves_out_bad_images_and_names_them(broken: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    split = load_split(load_spec(broken), "train", on_bad="skip", visit=lambda path, i: seen.append(Path(path).name))
    assert [record.file_name for record in split.records] == ["good.png"]
    assert seen == ["good.png"]
    told = [warning for warning in split.warnings if "left out (on_bad=skip)" in warning]
    assert len(told) == 5
    assert f"train: left out (on_bad=skip): {tmp_path}/images/empty.jpg: is empty" in told[3]


def test_nothing_left_to_use(image, text, tmp_path: Path) -> None:
    image("images/a.png").write_bytes(b"")
    text("labels/a.txt", "")
    with pytest.raises(DataError, match="no image is left to use") as caught:
        load_split(load_spec(text("d.yaml", YOLO)), "train", on_bad="skip")
    assert "a.png: is empty" in str(caught.value)


def test_a_damaged_jpeg_is_used_and_told(image, text) -> None:
    whole = image("images/a.jpg", 64, 64).read_bytes()
    cut = image("images/a.jpg")
    cut.write_bytes(whole[:-300])
    text("labels/a.txt", "0 .5 .5 .5 .5")
    split = load_split(load_spec(text("d.yaml", YOLO)), "train")
    assert len(split.records) == 1
    assert f"train: {cut}: the JPEG ends too early" in split.warnings[0]


def test_visit_gets_every_image_and_progress_the_count(image, text) -> None:
    for n in range(20):
        image(f"images/{n:02d}.png", 10 + n, 10)
        text(f"labels/{n:02d}.txt", "0 .5 .5 .5 .5")
    visited: dict[str, tuple[int, ...]] = {}
    lock, counts = threading.Lock(), []

    def visit(path: str, picture: np.ndarray) -> None:
        with lock:
            visited[Path(path).name] = picture.shape

    split = load_split(
        load_spec(text("d.yaml", YOLO)), "train", visit=visit, workers=4, progress=lambda *n: counts.append(n)
    )
    assert visited == {f"{n:02d}.png": (10, 10 + n, 3) for n in range(20)}
    assert [record.width for record in split.records] == list(range(10, 30)), "order does not depend on the threads"
    assert counts == [(n, 20) for n in range(1, 21)]


def test_an_error_in_visit_is_not_swallowed(image, text) -> None:
    image("images/a.png")
    text("labels/a.txt", "")

    def visit(path: str, picture: np.ndarray) -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        load_split(load_spec(text("d.yaml", YOLO)), "train", visit=visit)


def test_an_edit_shows_in_the_next_load(image, text) -> None:
    image("images/a.png", 40, 20)
    text("labels/a.txt", "0 .5 .5 .5 .5")
    spec = load_spec(text("d.yaml", YOLO))
    assert load_split(spec, "train").records[0].classes.tolist() == [0]
    text("labels/a.txt", "1 .5 .5 .5 .5")
    image("images/a.png", 80, 20)
    (record,) = load_split(spec, "train").records
    assert (record.classes.tolist(), record.width) == ([1], 80)


# ---------------------------------------------------------------- COCO and VOC through the same door


def coco(text, annotations: list[dict], **image_row: object) -> Path:
    row = {"id": 42, "file_name": "a.png", **image_row}
    content = {"images": [row], "annotations": annotations, "categories": [{"id": 7, "name": "bee"}]}
    text("t.json", json.dumps(content))
    return text("d.yaml", "train: t.json\nval: t.json\nimages: photos")


def test_coco_ids_crowds_and_repeats(image, text, tmp_path: Path) -> None:
    image("photos/a.png", 40, 20)
    row = {"image_id": 42, "category_id": 7, "bbox": [1, 2, 10, 5]}
    source = coco(text, [{"id": 1, **row}, {"id": 2, **row}, {"id": 3, **row, "iscrowd": 1}])
    split = load_split(load_spec(source), "train")
    (record,) = split.records
    assert (record.image_id, split.category_ids, split.names) == (42, (7,), ("bee",))
    assert record.boxes.tolist() == [[1, 2, 11, 7], [1, 2, 11, 7]], "repeats stay: AP is that of the user's file"
    assert record.ignore.tolist() == [[1, 2, 11, 7]]
    place = f"{tmp_path / 't.json'}: annotation 2 of image 42"
    assert split.warnings == (
        f"train: 1 box repeats another box of the same class in the same image; kept as it is: {place}",
    )


def test_coco_problems_with_files_and_with_rows_stand_together(text, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    bad = {"id": 1, "image_id": 42, "category_id": 8, "bbox": [1, 2, 10, 5]}
    source = coco(text, [bad, {**bad, "id": 2, "image_id": 43}])
    with pytest.raises(DataError, match=r"train: 3 problems") as caught:
        load_split(load_spec(source), "train")
    for told in ("unknown category_id 8", "unknown image_id 43", "photos/a.png: does not exist"):
        assert told in str(caught.value)


def test_a_declared_size_that_is_not_the_upright_one_is_told(image, text) -> None:
    image("photos/a.png", 40, 20)
    (other,) = load_split(load_spec(coco(text, [], width=80, height=40)), "train").warnings
    assert "1 image has another size than its label file says" in other
    assert "a.png (80x40, not 40x20)" in other
    (turned,) = load_split(load_spec(coco(text, [], width=20, height=40)), "train").warnings
    assert "as an EXIF orientation does" in turned
    assert load_split(load_spec(coco(text, [], width=40, height=20)), "train").warnings == ()


def test_voc_lists_name_every_problem(image, text, tmp_path: Path) -> None:
    image("JPEGImages/a.jpg", 40, 20)
    thing = "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>9</ymax></bndbox></object>"
    text("Annotations/a.xml", f"<annotation>\n{thing.format('cat')}\n{thing.format('Dog')}\n</annotation>")
    text("ImageSets/Main/train.txt", "a\nb\n")
    spec = load_spec(text("d.yaml", "train: ImageSets/Main/train.txt\nnames: [cat, dog]"))
    with pytest.raises(DataError) as caught:
        load_split(spec, "train")
    assert "train.txt:2: 'b' has no image in" in str(caught.value)
    assert "a.xml:3: class 'Dog' is not among the names in the data YAML. Did you mean 'dog'?" in str(caught.value)
    text("Annotations/a.xml", f"<annotation>\n{thing.format('cat')}\n</annotation>")
    split = load_split(spec, "train", on_bad="skip")
    assert split.records[0].boxes.tolist() == [[1, 2, 11, 9]]
    assert split.records[0].file_name == "a.jpg"
    assert "train.txt:2: 'b' has no image" in split.warnings[0]


def test_the_built_in_set_goes_through_the_same_door() -> None:
    split = load_split(load_spec("shapes"), "val")
    assert len(split.records) == 40
    assert split.warnings == ()
    record = split.records[3]
    assert open_image(record.path).shape == (record.height, record.width, 3)
    with pytest.raises(DataError, match="has no split 'test'; it has: train, val"):
        load_split(load_spec("shapes"), "test")


# ---------------------------------------------------------------- a quick check


@pytest.fixture
def mixed(image, text, tmp_path: Path) -> Path:
    """Images of several kinds and boxes of several oddities, one image without labels."""
    for name, row in (
        ("a.png", "0 .5 .5 .5 .5"),
        ("b.jpg", "1 .9 .5 .4 .2\n1 .9 .5 .4 .2"),
        ("d.jpg", "0 1.5 .5 .1 .1"),
    ):
        image(f"images/{name}", 40, 20)
        text(f"labels/{Path(name).stem}.txt", row)
    exif = Image.Exif()
    exif[0x0112] = 6
    image("images/c.jpg", 40, 20, exif=exif)
    cv2.imwrite(str(tmp_path / "images/e.png"), np.full((10, 20), 900, np.uint16))
    return text("d.yaml", YOLO)


def test_a_quick_check_finds_what_a_full_one_does_and_decodes_no_plain_image(mixed: Path, monkeypatch) -> None:
    spec, decoded = load_spec(mixed), []
    full = load_split(spec, "train")
    read = gather.read_image
    monkeypatch.setattr(gather, "read_image", lambda path, *rest: decoded.append(Path(path).name) or read(path, *rest))
    quick = load_split(spec, "train", check="quick")
    assert decoded == ["e.png"]
    assert likeness(quick) == likeness(full)
    assert quick.findings == full.findings
    assert [record.bits for record in quick.records] == [None] * 4 + [10]


def test_a_quick_check_finds_what_is_missing_or_cut(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as full:
        load_split(load_spec(broken), "train")
    with pytest.raises(DataError) as quick:
        load_split(load_spec(broken), "train", check="quick")
    assert str(quick.value) == str(full.value)


def test_many_images_are_checked_by_their_headers_which_is_told(mixed: Path, monkeypatch) -> None:
    spec = load_spec(mixed)
    assert "checked-quick" not in {finding.code for finding in load_split(spec, "train", check="auto").findings}
    monkeypatch.setattr(split_room, "FULL_UP_TO", 4)
    (told,) = (one for one in load_split(spec, "train", check="auto").findings if one.code == "checked-quick")
    assert (told.severity, told.count) == ("notice", 5)
    assert "checked-quick" not in {finding.code for finding in load_split(spec, "train", check="quick").findings}


def test_the_places_of_images_are_known_before_they_are_decoded(mixed: Path) -> None:
    sizes = [(40, 20), (40, 20), (20, 40), (40, 20), (20, 10)]
    order: list[object] = []

    def place(paths, given) -> None:
        order.append(dict(zip((Path(path).name for path in paths), map(tuple, given.tolist()), strict=True)))

    for check in ("full", "quick"):
        load_split(load_spec(mixed), "train", workers=1, visit=lambda *one: order.append(1), check=check, place=place)
    names = ["a.png", "b.jpg", "c.jpg", "d.jpg", "e.png"]
    assert order == [dict(zip(names, sizes, strict=True)), 1, 1, 1, 1, 1, dict(zip(names, sizes, strict=True))]


def test_the_same_box_in_two_images_repeats_nothing(image, text) -> None:
    for name in "ab":
        image(f"images/{name}.png")
        text(f"labels/{name}.txt", "0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n")
    assert load_split(load_spec(text("d.yaml", YOLO)), "train").warnings == ()
