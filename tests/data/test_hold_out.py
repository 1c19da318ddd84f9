"""A share of the training images as val: the same for train and val, by names alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gfldet.data.hold_out import held_out
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.errors import DataError

NAMES = [f"images/{k:03d}.jpg" for k in range(50)]


def test_a_share_is_held_out_by_names_alone() -> None:
    out = held_out(NAMES, 0.2)
    assert sum(out) == 10
    chosen = {name for name, is_out in zip(NAMES, out, strict=True) if is_out}
    assert out == held_out([f"/elsewhere/{Path(name).name}" for name in NAMES], 0.2)
    turned = held_out(NAMES[::-1], 0.2)
    assert {name for name, is_out in zip(NAMES[::-1], turned, strict=True) if is_out} == chosen
    assert held_out([*NAMES, "images/new.jpg"], 0.2)[:50] != [not o for o in out]
    assert chosen != set(NAMES[:10])


def test_more_images_hardly_move_the_others() -> None:
    more = held_out([*NAMES, *(f"images/new{k}.jpg" for k in range(10))], 0.2)[:50]
    assert sum(a != b for a, b in zip(held_out(NAMES, 0.2), more, strict=True)) <= 3


def test_copies_of_one_picture_stay_together() -> None:
    names = [f"{k:02d}_jpg.rf.{copy}.jpg" for k in range(20) for copy in "abc"]
    out = held_out(names, 0.2)
    assert sum(out) == 12
    assert all(len({out[3 * k + c] for c in range(3)}) == 1 for k in range(20))


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(1, 0.2, 0), (2, 0.01, 1), (2, 0.9, 1), (3, 0.9, 2), (0, 0.2, 0)]
)
def test_both_sides_have_an_image_if_there_are_two(count: int, share: float, expected: int) -> None:
    assert sum(held_out(NAMES[:count], share)) == expected


def test_train_and_val_share_out_the_same_images(image, text, tmp_path: Path) -> None:
    for k in range(10):
        image(f"set/images/{k}.jpg")
        text(f"set/labels/{k}.txt", "0 .5 .5 .5 .5")
    source = text("set/d.yaml", "train: images\nnames: [a]")
    with pytest.raises(DataError, match="has no split 'val'"):
        load_split(load_spec(source), "val")
    spec = load_spec(source, val_share=0.3)
    assert "no val split: 30% of the training images" in spec.notices[-1]
    parts = [[record.file_name for record in load_split(spec, name).records] for name in ("train", "val")]
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(parts[0] + parts[1]) == sorted(f"{k}.jpg" for k in range(10))
    assert [record.image_id for record in load_split(spec, "val").records] == [0, 1, 2]
    shutil.move(tmp_path / "set", tmp_path / "moved")
    again = load_split(load_spec(tmp_path / "moved" / "d.yaml", val_share=0.3), "val")
    assert [record.file_name for record in again.records] == parts[1]


def test_a_val_split_of_its_own_is_left_alone(image, text) -> None:
    image("images/a.jpg")
    text("labels/a.txt", "")
    spec = load_spec(text("d.yaml", "train: images\nval: images\nnames: [a]"), val_share=0.3)
    assert (spec.val_share, spec.notices) == (0.0, ())
    assert len(load_split(spec, "val").records) == 1
