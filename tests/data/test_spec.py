"""The data YAML: every mistake told at once, the format found by looking, COCO's classes taken from its JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.errors import DataError

YOLO = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def coco_json(*categories: tuple[int, str], boxes: Sequence[int] = ()) -> str:
    """A COCO JSON of one image, with a box of each of the categories `boxes`."""
    rows = [{"id": i, "name": n} for i, n in categories]
    annotations = [{"id": i, "image_id": 1, "category_id": i, "bbox": [1, 1, 5, 5]} for i in boxes]
    images = [{"id": 1, "file_name": "a.jpg"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": rows})


def test_a_yolo_yaml(image, text, tmp_path: Path) -> None:
    image("set/images/train/a.jpg")
    spec = load_spec(text("d.yaml", "path: set\nformat: yolo\ntest: [t1, t2]\n" + YOLO))
    assert (spec.source, spec.root, spec.format) == (tmp_path / "d.yaml", tmp_path / "set", "yolo")
    assert (spec.train, spec.val, spec.test) == (("images/train",), ("images/val",), ("t1", "t2"))
    assert (spec.names, spec.category_ids) == (("cat", "dog"), (0, 1))
    assert spec.entries("train") == [tmp_path / "set" / "images/train"]


def test_paths_are_relative_to_the_yaml_not_to_where_one_stands(image, text, monkeypatch, tmp_path: Path) -> None:
    image("images/train/a.jpg")
    source = text("d.yaml", "format: yolo\n" + YOLO)
    monkeypatch.chdir("/")
    assert load_spec(str(source)).entries("train") == [tmp_path / "images/train"]


def test_names_by_id_in_any_order(text) -> None:
    spec = load_spec(text("d.yaml", "format: yolo\ntrain: x\nnames: {1: dog, 0: cat, 2: 3}"))
    assert spec.names == ("cat", "dog", "3")


def test_a_missing_split_or_path_is_told_when_it_is_asked_for(image, text, tmp_path: Path) -> None:
    image("train/images/a.jpg")
    spec = load_spec(text("d.yaml", "format: yolo\ntrain: ../train/images\nval: [train/images, nope]\nnames: [a]"))
    with pytest.raises(DataError, match=r"has no split 'test'; it has: train, val"):
        spec.entries("test")
    with pytest.raises(DataError, match="val: not found:") as caught:
        spec.entries("val")
    assert str(tmp_path / "nope") in str(caught.value)
    assert spec.entries("train") == [tmp_path / "train/images"]


def test_all_mistakes_are_told_at_once(text) -> None:
    with pytest.raises(DataError) as caught:
        load_spec(text("d.yaml", "trian: a\nval: 3\nnc: 3\nformat: yolov8\nnames: [cat, cat, yes]\n"))
    for told in (
        "trian: unknown key; allowed are path, train,",
        "Did you mean 'train'?",
        "val: expected a path or a list of paths, got 3",
        "format: 'yolov8' is not one of yolo, coco, voc. Did you mean 'yolo'?",
        "names: 'cat' appears 2 times",
        "names: True (id 2) is not text; put it in quotes",
    ):
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("{0: cat, 2: dog}", "ids must run from 0 to 1 without a gap; got 0 to 2, missing 1"),
        ("{1: cat, 2: dog}", "missing 0"),
        ("{-1: cat, 0: dog}", "got -1 to 0"),
        ("{a: cat}", "id 'a' is not a whole number"),
        ("[]", "expected a list of names"),
        ("cat", "expected a list of names"),
        ("['']", "is not text"),
        ("null", "names: missing"),
    ],
)
def test_names_that_cannot_be_used(text, names: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        load_spec(text("d.yaml", f"format: yolo\ntrain: x\nnames: {names}"))


def test_keys_of_other_programs(text) -> None:
    extra = "nc: 2\ndownload: https://example.com/get.sh\nroboflow: {license: MIT}\n"
    assert load_spec(text("d.yaml", "format: yolo\n" + extra + YOLO)).names == ("cat", "dog")
    with pytest.raises(DataError, match="nc: 3 does not match the 2 names"):
        load_spec(text("d.yaml", "format: yolo\nnc: 3\n" + YOLO))


def test_no_yaml(text, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data YAML; expected a file, a folder, or a built-in set: shapes"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(DataError, match=r"d\.yaml:2: is not valid YAML"):
        load_spec(text("d.yaml", "train: a\n  val: [b\n"))
    with pytest.raises(DataError, match="expected 'key: value' lines"):
        load_spec(text("d.yaml", "- a\n"))
    with pytest.raises(DataError, match="no split"):
        load_spec(text("d.yaml", "names: [a]"))
    with pytest.raises(DataError, match=r"path: folder .*gone not found"):
        load_spec(text("d.yaml", "path: gone\n" + YOLO))
    for name in ("one", "two"):  # of other data, which may be meant as well
        (tmp_path / name / "images").mkdir(parents=True)
    with pytest.raises(DataError, match=r"d\.yaml: path: folder .*gone not found; it is relative to the YAML's"):
        load_spec(text("d.yaml", "path: gone\n" + YOLO))
    (tmp_path / "d.yaml").write_bytes(b"names: [\xff\xfe]")
    with pytest.raises(DataError, match="is not a UTF-8 text file"):
        load_spec(tmp_path / "d.yaml")


# ---------------------------------------------------------------- found out by looking


def test_yolo_is_seen_in_folders_and_lists(image, text) -> None:
    image("images/train/a.jpg")
    text("labels/train/a.txt", "")
    assert load_spec(text("d.yaml", YOLO)).format == "yolo"
    text("list.txt", "images/train/a.jpg\n")
    assert load_spec(text("d.yaml", "train: list.txt\nval: list.txt\nnames: [a]")).format == "yolo"


def test_voc_is_seen_in_lists_and_folders(image, text) -> None:
    image("JPEGImages/a.jpg")
    text("Annotations/a.xml", "<annotation/>")
    text("ImageSets/Main/train.txt", "a\n")
    assert load_spec(text("d.yaml", "train: ImageSets/Main/train.txt\nnames: [a]")).format == "voc"
    image("train/a.jpg")
    text("train/a.xml", "<annotation/>")
    assert load_spec(text("d.yaml", "train: train\nnames: [a]")).format == "voc"


def test_coco_is_seen_by_its_suffix(text) -> None:
    text("t.json", coco_json((1, "a")))
    assert load_spec(text("d.yaml", "train: t.json")).format == "coco"


def test_what_was_seen_is_told_where_the_format_cannot_be_told(image, text, tmp_path: Path) -> None:
    image("photos/a.jpg")
    text("photos/a.json", "{}")
    with pytest.raises(DataError, match="format of the data is not clear") as caught:
        load_spec(text("d.yaml", "train: photos\nval: gone\nnames: [a]"))
    assert f"{tmp_path / 'photos'}: 1 image, 0 .txt, 0 .xml, 1 .json" in str(caught.value)
    assert f"{tmp_path / 'gone'}: not found" in str(caught.value)
    assert "Add 'format: yolo'" in str(caught.value)


# ---------------------------------------------------------------- COCO


def test_coco_names_and_ids_come_from_the_json(text, tmp_path: Path) -> None:
    text("t.json", coco_json((91, "zebra"), (0, "ant"), (7, "bee")))
    (tmp_path / "photos").mkdir()
    spec = load_spec(text("d.yaml", "train: t.json\nimages: photos"))
    assert (spec.names, spec.category_ids) == (("ant", "bee", "zebra"), (0, 7, 91))
    assert spec.image_folder("train") == tmp_path / "photos"
    spec = load_spec(text("d.yaml", "train: t.json\nval: t.json\nimages: {val: gone}"))
    assert spec.image_folder("train") is None
    with pytest.raises(DataError, match=r"images: not found: .*gone"):
        spec.image_folder("val")


def test_coco_names_in_the_yaml_must_be_those_of_the_json(text) -> None:
    text("t.json", coco_json((1, "ant"), (7, "bee"), boxes=[1, 7]))
    by_list = load_spec(text("d.yaml", "train: t.json\nnames: [bee, ant]"))
    assert (by_list.names, by_list.category_ids) == (("bee", "ant"), (7, 1))
    by_id = load_spec(text("d.yaml", "train: t.json\nnames: {7: bee, 1: ant}"))
    assert (by_id.names, by_id.category_ids) == (("ant", "bee"), (1, 7))
    for names in ("[bee]", "[bee, ant, cow]", "{0: ant, 1: bee}"):
        with pytest.raises(DataError, match="names do not match the categories"):
            load_spec(text("d.yaml", f"train: t.json\nnames: {names}"))


def test_coco_mistakes(text) -> None:
    text("t.json", coco_json((1, "ant")))
    with pytest.raises(DataError, match="images: expected a folder"):
        load_spec(text("d.yaml", "train: t.json\nimages: {tarin: a}"))
    with pytest.raises(DataError, match="images: only the format coco takes this key"):
        load_spec(text("d.yaml", "format: yolo\nimages: a\n" + YOLO))
    with pytest.raises(DataError, match=r"not found:\n.*gone.json"):
        load_spec(text("d.yaml", "format: coco\ntrain: gone.json"))


# ---------------------------------------------------------------- built in


def test_the_built_in_set_by_name() -> None:
    spec = load_spec("shapes")
    assert spec.format == "shapes"
    assert spec.names == ("circle", "square", "triangle", "star")
    assert spec.test is None


def test_ids_with_a_hole_of_a_thousand_million(text) -> None:
    source = text("d.yaml", "train: a\nnames: {0: a, 1000000000: b}\nformat: yolo\n")
    with pytest.raises(DataError, match="ids must run from 0 to 1 without a gap; got 0 to 1000000000, missing 1"):
        load_spec(source)


def test_sixty_thousand_names_take_no_longer_than_their_reading(text, image) -> None:
    image("images/a.png")
    text("labels/a.txt", "59999 .5 .5 .2 .2\n")
    names = ", ".join(f"n{i}" for i in range(60_000))
    spec = load_spec(text("d.yaml", f"train: images\nnames: [{names}]\n"))
    assert len(spec.names) == 60_000


@pytest.mark.parametrize("key", ["names", "train", "path", "nc", "format", "images", "kpt_shape"])
def test_aliases_that_unfold_without_an_end(text, key: str) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}, *a{i}, *a{i}]" for i in range(20))]
    source = text("d.yaml", "\n".join([*lines, f"{key}: *a20"]))
    with pytest.raises(DataError, match=r"d\.yaml: its aliases unfold"):
        load_spec(source)


@pytest.mark.parametrize("folder", ["x" * 300, '"a\\0b"', "loop", "pipe"])
@pytest.mark.parametrize("key", ["path", "train"])
def test_names_that_no_folder_can_have(text, tmp_path: Path, folder: str, key: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    lines = {"path": ".", "train": "images", "names": "[a]", "format": "yolo"} | {key: folder}
    source = text("d.yaml", "\n".join(f"{name}: {value}" for name, value in lines.items()))
    with pytest.raises(DataError, match=str(tmp_path)):
        load_split(load_spec(source), "train")


def test_of_many_classes_the_first_that_differs_is_told() -> None:
    spec = replace(load_spec("shapes"), names=tuple(f"class {number}" for number in range(80)))
    spec.check_classes(spec.names, "x.pt")
    swapped = (*spec.names[:7], spec.names[8], spec.names[7], *spec.names[9:])
    told = "the 80 of x.pt: the first that differs is number 7, 'class 7' in the data and 'class 8' in the model"
    with pytest.raises(DataError, match=told):
        spec.check_classes(swapped, "x.pt")
    with pytest.raises(DataError, match=r"the 79 of x.pt: .* number 79, 'class 79' in the data and none in the model"):
        spec.check_classes(spec.names[:-1], "x.pt")
