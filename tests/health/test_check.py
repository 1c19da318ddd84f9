"""A check finds every fault that was planted, and nothing where there is none."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import gfldet
from gfldet.cli import main
from gfldet.data.records import Finding
from gfldet.health.check import Health
from gfldet.health.codes import KINDS

Checked = Callable[..., Health]


def stems(findings: Iterable[Finding]) -> dict[str, set[str]]:
    """The stems of the files that each code was found for: of the label file, or of the image."""
    found: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        for path in (finding.file, finding.image):
            if path is not None:
                found[finding.code].add(path.stem)
    return found


def test_nothing_is_found_in_a_clean_set(planter: Any, checked: Checked) -> None:
    planter.good(40, "train")
    planter.good(20, "val")
    health = checked(planter.yaml(), reach=32)
    assert health.findings == ()
    assert not health.fails("notice")


# Label rows, and the code that they are to be found as.
ROWS = {
    "unreadable-labels": "0 .5 .5 .3 .3\nx .5 .5 .3 .3\n",
    "clipped-boxes": "0 .1 .5 .3 .3\n",
    "boxes-without-area": "0 .5 .5 .3 .3\n0 .2 .2 0 .1\n",
    "repeated-rows": "0 .5 .5 .3 .3\n0 .5 .5 .3 .3\n",
    "repeated-boxes": "0 .5 .5 .5 .5\n0 .25 .25 .75 .25 .75 .75 .25 .75\n",
    "polygons": "0 .3 .3 .6 .3 .6 .6\n",
    "box-outside": "0 1.1 .5 .3 .3\n",
    "box-tiny": "0 .5 .5 .02 .3\n",
    "box-nearly-repeated": "0 .5 .5 .3 .3\n0 .503 .5 .3 .3\n",
    "box-of-two-classes": "0 .5 .5 .3 .3\n1 .5 .5 .3 .31\n",
    "box-beyond-reach": "0 .5 .5 .55 .3\n",
    "box-odd-size": "1 .5 .5 .9 .9\n",
    "box-odd-shape": "1 .5 .5 .9 .06\n",
    "box-fills-image": "0 .5 .5 1 1\n",
}


def plant_rows(planter: Any, each: int) -> None:
    for code, rows in ROWS.items():
        for number in range(each):
            planter.plant(code, f"{code}-{number}", rows)


def plant_files(planter: Any, each: int) -> None:
    for number in range(each):
        planter.label(f"lost-{number}")
        planter.planted["labels-without-image"].add(f"lost-{number}")
        planter.image(f"bare-{number}")
        planter.planted["no-label-file"].add(f"bare-{number}")
        planter.plant("unreadable-image", f"broken-{number}")
        (planter.root / f"images/train/broken-{number}.png").write_bytes(b"no image")
        planter.plant("image-blank", f"blank-{number}")
        planter.image(f"blank-{number}", picture=np.full((64, 64, 3), 5 * number, np.uint8))
        planter.label(f"cut-{number}")
        cut = planter.image(f"cut-{number}", kind="jpg")
        cut.write_bytes(cut.read_bytes()[:-300])
        planter.planted["damaged-image"].add(f"cut-{number}")


def changed(picture: Any, number: int) -> Any:
    """The same scene as another camera's settings, another size or a worse JPEG give it."""
    if number % 4 == 0:
        return np.clip(picture.astype(int) + 12, 0, 255).astype(np.uint8)
    if number % 4 == 1:
        return cv2.resize(picture, (51, 51), interpolation=cv2.INTER_AREA)
    if number % 4 == 2:
        return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    return picture[1:, 1:]


def plant_copies(planter: Any, each: int) -> None:
    codes = {
        "image-repeated": ("train", False),
        "image-in-two-splits": ("val", False),
        "image-nearly-repeated": ("train", True),
        "image-nearly-in-two-splits": ("val", True),
    }
    for code, (split, near) in codes.items():
        for number in range(each):
            stem = f"{code}-{number}"
            path = planter.image(f"{stem}-a")
            planter.label(f"{stem}-a")
            picture = cv2.imread(str(path))
            planter.image(f"{stem}-b", split, changed(picture, number) if near else picture)
            planter.label(f"{stem}-b", split=split)
            planter.planted[code].add(f"{stem}-b")


@pytest.mark.parametrize("each", [2, pytest.param(20, marks=pytest.mark.long)])
def test_all_planted_faults_are_found(planter: Any, checked: Checked, each: int) -> None:
    planter.good(80, "train")
    planter.good(25, "val")
    planter.names += [name for k in range(each) for name in (f"empty{k}", f"few{k}", f"Big-Name{k}", f"big name{k}")]
    rows = [f"{2 + 4 * k + n} .{n + 2} .{n + 2} .3 .3\n" for k in range(each) for n in (1, 2, 3)]
    planter.image("classes")
    planter.label("classes", "".join(rows))
    plant_rows(planter, each)
    plant_files(planter, each)
    plant_copies(planter, each)
    health = checked(planter.yaml("kpt_shape: null\n"), reach=32)
    found = stems(health.findings)
    for code, planted in planter.planted.items():
        assert len(planted) == each
        assert planted <= found[code], code
    # What cannot be taken for anything else is found nowhere else.
    for code in ("unreadable-image", "unreadable-labels", "no-label-file", "labels-without-image", "image-blank"):
        assert found[code] == planter.planted[code]
    for code in ("box-outside", "box-tiny", "repeated-rows", "repeated-boxes", "box-nearly-repeated", "damaged-image"):
        assert {stem for stem in found[code] if stem != "classes"} == planter.planted[code], code
    for code in (code for code in planter.planted if code.startswith("image-")):
        assert found[code] == planter.planted[code], code
    labels = Counter((finding.code, finding.label) for finding in health.findings)
    assert all(labels["class-without-boxes", f"empty{k}"] == 1 for k in range(each))
    assert all(labels["class-rare", f"few{k}"] == 1 for k in range(each))
    assert all(labels["class-names-alike", f"big name{k}"] == 1 for k in range(each))
    assert {finding.code for finding in health.findings} <= KINDS.keys()
    assert all(finding.severity == KINDS[finding.code].severity for finding in health.findings)
    assert health.fails("error")


def test_a_finding_tells_file_line_box_and_class(planter: Any, checked: Checked) -> None:
    planter.good(40, "train")
    planter.good(20, "val")
    planter.plant("box-tiny", "a", "0 .5 .5 .3 .3\n\n1 .5 .5 .015625 .25\n")
    tiny = next(finding for finding in checked(planter.yaml()).findings if finding.code == "box-tiny")
    label = planter.root / "labels/train/a.txt"
    assert (tiny.file, tiny.line, tiny.label, tiny.split) == (label, 3, "other", "train")
    assert tiny.image == planter.root / "images/train/a.png"
    assert tiny.box == (31.5, 24.0, 32.5, 40.0)
    assert tiny.text == f"train: {label}:3: 'other', 1 x 16 px"


def coco_box(number: int, image: int, box: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1, "bbox": box, **more}


def test_faults_of_coco_files(planter: Any, checked: Checked) -> None:
    """Sides in the wrong order, sizes that are not the images', rows that belong nowhere; without lines."""
    images = [
        {"id": k, "file_name": planter.image(f"{k}").name, "width": 64 + (k == 3), "height": 64} for k in range(40)
    ]
    boxes = [coco_box(k, k, [20, 20, 18, 20]) for k in range(40)]
    boxes[5]["bbox"] = [40, 40, -20, -20]
    boxes += [
        coco_box(90, 7, [1, 1, "x", 4]),
        coco_box(91, 999, [1, 1, 4, 4]),
        coco_box(92, 8, [0, 0, 9, 9], iscrowd=1),
    ]
    file = planter.root / "a.json"
    rows = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    file.write_text(json.dumps(rows))
    (planter.root / "data.yaml").write_text("train: a.json\nval: a.json\nimages: images/train\n")
    found = checked(planter.root / "data.yaml").findings
    of_train = [(one.code, one.file, one.image and one.image.stem) for one in found if one.split == "train"]
    assert of_train == [
        ("unreadable-entry", file, None),
        ("unreadable-labels", file, "7"),
        ("swapped-sides", file, "5"),
        ("other-size", planter.root / "images/train/3.png", "3"),
    ]


def test_a_split_that_cannot_be_read_leaves_the_others(planter: Any, checked: Checked) -> None:
    planter.good(40, "train")
    path = planter.yaml()
    (found,) = checked(path).findings
    assert (found.code, found.severity, found.split) == ("unreadable-split", "error", "val")
    assert "not found" in found.text
    path.write_text("train: images/train\nnames: [thing, other]\n")
    assert [finding.code for finding in checked(path).findings] == ["no-val-split"]
    path.write_text("val: images/train\nnames: [thing, other]\n")
    assert [finding.code for finding in checked(path).findings] == ["no-train-split"]


def test_rows_that_may_be_keypoints_are_one_finding(planter: Any, checked: Checked) -> None:
    planter.good(40, "val")
    for number in range(30):
        planter.image(f"{number}")
        planter.label(f"{number}", "0 .5 .5 .3 .3 .45 .45 2 .55 .55 2\n")
    codes = Counter(finding.code for finding in checked(planter.yaml()).findings if finding.severity == "error")
    assert codes == {"unclear-rows": 1}


def test_small_boxes_are_counted_at_the_chosen_size(planter: Any, checked: Checked) -> None:
    planter.good(40, "train")
    planter.good(20, "val")
    path = planter.yaml()
    assert checked(path, imgsz=32).findings == ()
    found = {
        finding.split: finding for finding in checked(path, imgsz=24).findings if finding.code == "boxes-under-8px"
    }
    assert found["train"].count == 80
    assert found["train"].text == (
        "train: all 80 boxes are under 8 px at this imgsz; a larger imgsz shows more of what is in them"
    )


# ------------------------------------------------------------------------------------------------------- the command


def test_exit_codes_json_and_what_is_written(
    planter: Any, tiny_yaml: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    planter.good(40, "train")
    planter.good(20, "val")
    path = planter.yaml()
    before = sorted((file, file.stat().st_mtime_ns) for file in planter.root.rglob("*"))
    given = ["check", f"data={path}", "imgsz=64", f"model={tiny_yaml}", "page=false"]
    assert main(given) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing found"
    assert not (tmp_path / "runs").exists()
    planter.image("bare")
    assert main([*given, "json=true"]) == 0
    told = json.loads(capsys.readouterr().out)
    (finding,) = told["findings"]
    assert (finding["code"], finding["severity"], finding["split"]) == ("no-label-file", "warning", "train")
    assert told["counts"] == {"error": 0, "warning": 1, "notice": 0}
    assert told["splits"]["train"] == {"images": 41, "readable": 41, "without_boxes": 1, "boxes": 80}
    assert main([*given, "fail_at=warning", "verbose=false"]) == 1
    planter.plant("unreadable-labels", "bad", "0 .5 .5\n")
    assert main([*given[:-1], "json=new/found.json", "verbose=false"]) == 1
    assert capsys.readouterr().out == ""
    assert [one["severity"] for one in json.loads(Path("new/found.json").read_text())["findings"]] == [
        "error",
        "warning",
    ]
    assert sorted(file.name for file in (tmp_path / "runs/check").iterdir()) == ["check.html"]
    assert main([*given, "fail_at=never", "verbose=false"]) == 0
    after = [(file, file.stat().st_mtime_ns) for file, _ in before if file.is_file()]
    assert after == [(file, time) for file, time in before if file.is_file()]


def test_bad_input_is_refused_in_one_message(planter: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for word, told in (
        ("data=none.yaml", "none.yaml"),
        ("fail_at=sometimes", "error, warning, notice or never"),
        ("on_bad=skip", "on_bad"),
        ("model=none.pt", "none.pt"),
    ):
        assert main(["check", word, "verbose=false"]) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()


def test_the_call_from_python(planter: Any) -> None:
    planter.good(40, "train")
    planter.good(20, "val")
    health = gfldet.check(planter.yaml(), imgsz=64, page=False, verbose=False)
    assert health.findings == ()
    assert health.counts == {"error": 0, "warning": 0, "notice": 0}
