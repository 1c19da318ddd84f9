"""16-bit files of fewer bits: one depth for a data set, whichever of its frames are dark; arrays and files agree."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gfldet.data.depth import Depth, depth_of
from gfldet.data.load import load_images
from gfldet.data.sources import iter_source
from gfldet.data.spec import DataSpec, load_spec
from gfldet.data.split import load_split
from gfldet.machine.shared import Pool


@pytest.fixture
def frames(tmp_path: Path, text) -> DataSpec:
    """A camera of 12 bits: a bright frame, a dark one, and a picture of 8 bits beside them."""
    (tmp_path / "images").mkdir()
    for name, largest in (("bright", 4000), ("dark", 700)):
        ramp = np.linspace(0, largest, 200).astype(np.uint16).reshape(10, 20)
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), ramp)
    cv2.imwrite(str(tmp_path / "images/plain.png"), np.full((10, 20), 77, np.uint8))
    text("labels/dark.txt", "0 .5 .5 .5 .5")
    return load_spec(text("d.yaml", "train: images\nval: images\nnames: [cat]"))


def test_the_depth_that_holds_the_largest_sample() -> None:
    largest = (0, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535)
    assert [depth_of(np.array([0, value], np.uint16)) for value in largest] == [8, 8, 10, 10, 12, 12, 14, 14, 16, 16]
    assert Depth().used is None
    assert Depth(12).used is None


def test_a_data_set_has_one_depth(frames: DataSpec) -> None:
    split = load_split(frames, "train")
    assert split.bits == 12
    assert [record.bits for record in split.records] == [12, 12, None]
    assert [(f.code, f.severity, f.count) for f in split.findings][-1] == ("samples-scaled", "notice", 2)
    assert "2 16-bit images use 12 bits or fewer" in split.warnings[-1]


@pytest.mark.parametrize("budget", [0, 10**6])
def test_a_dark_frame_stays_dark_kept_or_read_again(frames: DataSpec, budget: int) -> None:
    loaded = load_images(frames, "train", (64, 64), Pool(budget), "error", lambda line: None, False)
    bright, dark, plain = (loaded.store.get(record) for record in loaded.split.records)
    assert (bright.max(), dark.max(), plain.max()) == (4000 >> 4, 700 >> 4, 77)
    assert loaded.store.left == (budget - 3 * 10 * 20 * 3 if budget else 0)


def test_another_split_takes_the_depth_of_training(frames: DataSpec) -> None:
    split = load_split(frames, "val", bits=10)
    assert split.bits == 10
    assert [f.code for f in split.findings][-1] == "samples-above-range"
    assert "1 of 2 16-bit images with samples of more than sample_bits=10 bits" in split.warnings[-1]
    assert "samples-" not in "".join(f.code for f in load_split(frames, "val", bits=14).findings)


def test_prediction_reads_as_training_did_and_tells_once(frames: DataSpec, tmp_path: Path) -> None:
    said: list[str] = []
    files = [str(tmp_path / f"images/{name}.png") for name in ("dark", "bright", "dark", "plain")]
    found = [frame.image.max() for frame in iter_source(files, warn=said.append, bits=12)]
    assert found == [700 >> 4, 4000 >> 4, 700 >> 4, 77]
    assert said == []
    array = cv2.imread(files[0], cv2.IMREAD_UNCHANGED)
    assert [frame.image.max() for frame in iter_source(array, bits=12)] == [700 >> 4]
    found = [frame.image.max() for frame in iter_source(files, warn=said.append)]
    assert found == [700 >> 2, 4000 >> 4, 700 >> 2, 77]
    (told,) = said
    assert told == f"{files[0]}: uses fewer than its 16 bits; such images are read each by its own range, unless " + (
        "sample_bits is set"
    )
    said.clear()
    list(iter_source(files, warn=said.append, bits=10))
    assert said == [f"{files[1]}: holds samples of more than sample_bits=10 bits; the larger ones are white"]


def test_a_real_16_bit_picture_keeps_its_high_byte_without_a_word(tmp_path: Path) -> None:
    ramp = np.linspace(0, 60000, 200).astype(np.uint16).reshape(10, 20)
    cv2.imwrite(str(tmp_path / "a.png"), ramp)
    said: list[str] = []
    (frame,) = iter_source(str(tmp_path / "a.png"), warn=said.append)
    assert (frame.image == ramp[..., None] >> 8).all()
    assert said == []
