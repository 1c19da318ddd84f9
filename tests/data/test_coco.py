"""COCO JSON: ids survive, crowds become regions to ignore, what is wrong is told by annotation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gfldet.data.finder import Finder
from gfldet.data.formats import EMPTY, SWAPPED, coco_file
from gfldet.data.formats.coco import categories_of, index
from gfldet.data.formats.coco_file import CocoFiles, read_coco
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.errors import DataError

CATEGORIES = [{"id": 91, "name": "zebra"}, {"id": 0, "name": "ant"}, {"id": 7, "name": "bee"}]
NAMES, IDS = ("ant", "bee", "zebra"), (0, 7, 91)


def document(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    images = [{"id": 5, "file_name": "a.jpg", "width": 40, "height": 20}, {"id": "x", "file_name": "sub/b.jpg"}]
    return {"images": images, "annotations": list(annotations), "categories": CATEGORIES, **changes}


def box(image_id: Any, category_id: Any, *bbox: float, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image_id, "category_id": category_id, "bbox": list(bbox), **more}


def load(text, content: dict[str, Any]):
    file = read_coco(text("t.json", json.dumps(content)))
    return index([file], Finder(file.path.parent), None, NAMES, IDS)


def test_categories_by_ascending_id(tmp_path: Path) -> None:
    assert categories_of(tmp_path, CATEGORIES) == dict(zip(IDS, NAMES, strict=True))
    assert list(categories_of(tmp_path, CATEGORIES)) == list(IDS)


def test_boxes_classes_and_ids(text, tmp_path: Path) -> None:
    found = load(text, document(box(5, 91, 1, 2, 10, 5), box("x", 0, 0, 0, 4, 4), box(5, 7, 3, 3, 1.5, 2)))
    first, second = found.items
    assert (first.image_id, first.file_name, first.path) == (5, "a.jpg", tmp_path / "a.jpg")
    assert (second.image_id, second.file_name) == ("x", "sub/b.jpg")
    assert first.labels().boxes == [(1, 2, 11, 7), (3, 3, 4.5, 5)]
    assert first.labels().classes == [2, 1]
    assert first.labels().declared == (40, 20)
    assert second.labels().declared is None
    assert second.labels().classes == [0]


def test_the_folder_of_the_images(text, tmp_path: Path) -> None:
    found = index(
        [read_coco(text("t.json", json.dumps(document())))], Finder(tmp_path), tmp_path / "photos", NAMES, IDS
    )
    assert found.items[1].path == tmp_path / "photos" / "sub" / "b.jpg"


def test_crowds_are_marked_to_be_ignored(text) -> None:
    labels = load(text, document(box(5, 0, 1, 1, 5, 5, iscrowd=1), box(5, 0, 1, 1, 5, 5, iscrowd=0))).items[0].labels()
    assert labels.crowd == [True, False]


def test_crowds_written_as_text_and_as_words(text) -> None:
    given = {"0": False, "1": True, False: False, True: True, None: False}
    rows = [box(5, 0, 1, 1, 5, 5, iscrowd=value) for value in given]
    labels = load(text, document(*rows)).items[0].labels()
    assert labels.crowd == list(given.values())
    assert labels.problems == []


@pytest.mark.parametrize("value", ["yes", "", 2, -1, 0.5, [], {}, "true", float("nan")])
def test_a_crowd_that_is_neither_0_nor_1_is_a_problem(text, value: object) -> None:
    (problem,) = load(text, document(box(5, 0, 1, 1, 5, 5, iscrowd=value))).items[0].labels().problems
    assert problem.endswith(f"annotation 1 of image 5: iscrowd is {value!r}; expected 0 or 1")


def test_numbers_beyond_reason_are_problems(text) -> None:
    rows = [box(5, 10**400, 1, 1, 5, 5), box(5, 0, 10**400, 1, 5, 5), box(5, [0], 1, 1, 5, 5)]
    found = load(text, document(*rows, box(10**400, 0, 1, 1, 5, 5), box([5], 0, 1, 1, 5, 5)))
    assert [p.split(": ")[2][:19] for p in found.items[0].labels().problems] == [
        "unknown category_id",
        "bbox is [a number o",
        "unknown category_id",
    ]
    assert len(found.problems) == 2
    assert max(map(len, found.problems)) < 300


def test_a_file_is_read_once_and_again_after_an_edit(text, monkeypatch) -> None:
    reads: list[Path] = []
    monkeypatch.setattr(coco_file, "read_coco", lambda path: reads.append(path) or read_coco(path))
    file, files = text("t.json", json.dumps(document())), CocoFiles()
    assert files[file] is files[file]
    text("t.json", json.dumps(document(box(5, 91, 1, 2, 10, 5))))
    assert len(files[file].boxes) == 1
    assert reads == [file, file]


def test_training_reads_a_shared_file_once(text, image, monkeypatch) -> None:
    image("a.jpg")
    image("sub/b.jpg")
    reads: list[Path] = []
    monkeypatch.setattr(coco_file, "read_coco", lambda path: reads.append(path) or read_coco(path))
    text("t.json", json.dumps(document(box(5, 91, 1, 2, 10, 5))))
    spec = load_spec(text("d.yaml", "train: t.json\nval: t.json"))
    assert [len(load_split(spec, name).records) for name in ("train", "val")] == [2, 2]
    assert len(reads) == 1


def test_annotations_in_any_order_go_to_their_images(text) -> None:
    rows = [box("x", 0, k, 0, 1, 1) if k % 3 else box(5, 7, k, 0, 1, 1) for k in range(10)]
    content = document(*({**row, "id": f"n{k}"} for k, row in enumerate(rows)))
    first, second = load(text, dict(reversed(content.items()))).items  # the annotations before the images
    assert [b[0] for b in first.labels().boxes] == [0, 3, 6, 9]
    assert [b[0] for b in second.labels().boxes] == [1, 2, 4, 5, 7, 8]
    assert [p.split(": ")[1] for p in first.labels().places] == [f"annotation n{k} of image 5" for k in (0, 3, 6, 9)]


@pytest.mark.parametrize("together", [2, 3, 512])
def test_rows_that_are_taken_together_are_the_same(text, monkeypatch, together: int) -> None:
    """Plain rows between each kind of odd one; one by one, no row takes the way of the others."""
    odd: list[dict[str, Any]] = [
        {"bbox": None}, {"bbox": [1, 2, 3]}, {"bbox": [1, 2, "3", 4]}, {"bbox": [1, 2, True, 4]},
        {"bbox": [10**400] * 4},
        {"bbox": [1, 2, float("nan"), 4]}, {"bbox": {"a": 1}}, {"iscrowd": None}, {"iscrowd": "1"}, {"iscrowd": 2},
        {"iscrowd": True}, {"id": None}, {"id": "one"}, {"id": 2**63}, {"image_id": "5"}, {"image_id": 5.0},
        {"image_id": 9}, {"image_id": None}, {"category_id": "7"}, {"category_id": 7.0}, {"category_id": True},
    ]  # fmt: skip
    rows = [{**box(5, 7, n, 2, 3, 4 + n), "id": n, "iscrowd": n % 2} for n in range(60)]
    for n, change in enumerate(odd):
        rows[2 * n] |= change
        rows[2 * n] = {name: value for name, value in rows[2 * n].items() if (name, value) != ("id", None)}

    def told(number: int) -> list[Any]:
        monkeypatch.setattr(coco_file, "TOGETHER", number)
        found = load(text, document(*rows))
        labels = [item.labels() for item in found.items]
        return [
            found.problems,
            *((one.boxes, one.classes, one.crowd, one.problems, list(one.places)) for one in labels),
        ]

    whole = told(together)
    monkeypatch.setattr(coco_file._Annotations, "_add_plain", lambda self, rows: False)
    assert told(1) == whole
    assert len(whole[1][0]) > 40


def test_negative_and_zero_sizes_are_noted(text) -> None:
    labels = load(text, document(box(5, 0, 10, 10, -4, 5), box(5, 0, 1, 1, 0, 5))).items[0].labels()
    assert labels.boxes == [(6, 10, 10, 15)]
    assert [kind for kind, _ in labels.notes] == [SWAPPED, EMPTY]


def test_unknown_category_and_broken_bbox_are_problems_of_the_image(text) -> None:
    bad = [box(5, 8, 1, 1, 5, 5), box(5, 0, 1, 1, 5), box(5, 0, 1, 1, 5, float("nan")), {"id": 4, "image_id": 5}]
    bad[3]["category_id"] = 0
    problems = load(text, document(*bad)).items[0].labels().problems
    assert len(problems) == 4
    assert "annotation 1 of image 5: unknown category_id 8; 'categories' holds 0, 7, 91" in problems[0]
    assert "expected 4 finite numbers [x, y, width, height]" in problems[1]
    assert "nan" in problems[2]
    assert "annotation 4 of image 5: bbox is None" in problems[3]


def test_unknown_image_and_repeated_image_id_are_problems_of_the_file(text) -> None:
    images = [{"id": 5, "file_name": "a.jpg"}, {"id": 5, "file_name": "b.jpg"}, {"file_name": "c.jpg"}]
    found = load(text, document(box(6, 0, 1, 1, 5, 5), images=images))
    assert len(found.items) == 1
    assert "images[1]: id 5 is used twice (b.jpg)" in found.problems[0]
    assert "images[2]: expected an 'id' and a 'file_name'" in found.problems[1]
    assert "annotation 1: unknown image_id 6" in found.problems[2]


def test_other_categories_than_the_data_set_has(text) -> None:
    other = [{"id": 0, "name": "ant"}, {"id": 8, "name": "bee"}, {"id": 91, "name": "zebra"}]
    with pytest.raises(DataError, match="its categories are not those of the data set") as caught:
        load(text, document(categories=other))
    assert "id 7: '(missing)' here, 'bee' expected" in str(caught.value)
    assert "id 8: 'bee' here, '(missing)' expected" in str(caught.value)
    assert "id 0" not in str(caught.value)


@pytest.mark.parametrize(
    ("categories", "reason"),
    [
        ([], "it is empty"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "id 1 is used 2 times"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "name 'a' is used 2 times"),
        ([{"id": "one", "name": "a"}], r"\('one', 'a'\)"),
        ([{"id": True, "name": "a"}], r"\(True, 'a'\)"),
    ],
)
def test_categories_that_cannot_be_used(tmp_path: Path, categories: list[Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        categories_of(tmp_path, categories)


def test_a_file_that_is_no_coco_json(text, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.json:3: is not valid JSON: .*\(column 1\)"):
        read_coco(text("t.json", '{"images": [],\n"annotations": [],\n]'))
    for content in ("[]", "{}", '{"images": [], "annotations": [3], "categories": []}'):
        with pytest.raises(DataError, match="is not a COCO file; expected an object with the lists images"):
            read_coco(text("t.json", content))
    (tmp_path / "t.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="is not valid JSON"):
        read_coco(tmp_path / "t.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_coco(tmp_path / "none.json")


def test_no_images(text) -> None:
    with pytest.raises(DataError, match="holds no images"):
        load(text, document(images=[]))
