"""Sizes by headers: those that decoding gives, or none; a file that a header does not settle is not plain."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from gfldet.data.headers import HEADS, header_size, plain_size
from gfldet.data.images import read_image

PICTURE = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(key: str, value: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(key, value)
    return info


PLAIN = {
    "a.jpg": {},
    "progressive.jpg": {"progressive": True},
    "turned.jpg": {"exif": turned(6)},
    "upright.jpg": {"exif": turned(1)},
    "profile.jpg": {"icc_profile": bytes(3 * HEADS[0])},
    "comment.jpg": {"comment": b"\xff\xc0\xff\xda" * 20},
    "a.png": {},
    "text.png": {"pnginfo": chunk("Software", "a program")},
}
OTHERS = {
    "turned.png": {"exif": turned(6)},
    "xmp.png": {"pnginfo": chunk("XML:com.adobe.xmp", "<x tiff:Orientation='6'/>")},
    "a.bmp": {},
    "a.webp": {},
    "turned.webp": {"exif": turned(8)},
    "a.tif": {},
}


@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_header_tells_the_size_that_decoding_gives(tmp_path: Path, name: str, mode: str) -> None:
    file = tmp_path / name
    Image.fromarray(PICTURE).convert(mode).save(file, **{**PLAIN, **OTHERS}[name])
    height, width = read_image(file).shape[:2]
    assert header_size(str(file)) == (width, height)
    assert plain_size(str(file)) == ((width, height) if name in PLAIN else None)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_file_that_ends_early_is_not_plain(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    Image.fromarray(PICTURE).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole + bytes(20) if name == "a.jpg" else whole)  # some programs fill up a JPEG
    assert plain_size(str(file)) == (50, 30)
    for length in (len(whole) - 3, len(whole) // 2, 100, 20, 3, 0):
        file.write_bytes(whole[:length])
        assert plain_size(str(file)) is None
    file.unlink()
    assert plain_size(str(file)) is None
    assert header_size(str(file)) is None
    assert header_size(str(tmp_path)) is None


def test_samples_of_more_than_8_bits_are_not_plain(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), np.full((10, 20), 4000, np.uint16))
    assert plain_size(str(file)) is None
    assert header_size(str(file)) == (20, 10)


def test_a_png_whose_chunks_lead_nowhere_is_not_plain(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(file)
    data = bytearray(file.read_bytes())
    data[33:37] = b"\x7f\xff\xff\xff"
    file.write_bytes(data)
    assert plain_size(str(file)) is None
