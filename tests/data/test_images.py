"""Every kind of image file comes out as the same upright RGB picture; what is no image is told with its path."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from gfldet.data import arrays, images, to_rgb
from gfldet.data.arrays import to_rgb_uint8
from gfldet.data.depth import Depth
from gfldet.data.images import ImageError, check_header, find_images, probe_size, read_image
from gfldet.errors import DataError

# 2 rows x 3 columns of plain colours, each blown up to 16 x 16 px: any turn or swapped channel shows.
PATCHES = np.array([[[200, 30, 30], [30, 200, 30], [30, 30, 200]], [[220, 220, 40], [40, 40, 40], [230, 230, 230]]])
PICTURE = np.kron(PATCHES, np.ones((16, 16, 1))).astype(np.uint8)


def patches(image: np.ndarray) -> np.ndarray:
    """The colour in the middle of each of the 2 x 3 patches."""
    assert image.shape == PICTURE.shape
    return image[8::16, 8::16].astype(int)


def stored(orientation: int) -> Image.Image:
    """PICTURE as a camera stores it under an EXIF orientation, by Pillow's names of the turns that undo it."""
    turn = Image.Transpose
    undo = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE}
    undo |= {6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270}
    picture = Image.fromarray(PICTURE)
    return picture.transpose(undo[orientation]) if orientation in undo else picture


def jpeg(picture: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def textured(height: int = 240, width: int = 320) -> np.ndarray:
    """A picture with detail everywhere, so that no two rows are alike."""
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(suffix, {})
    stored(orientation).save(path, exif=exif, **options)
    image = read_image(path)
    np.testing.assert_allclose(patches(image), PATCHES, atol=6)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert probe_size(path) == (48, 32)


def test_a_broken_exif_block_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (read_image(path) == PICTURE).all()


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tiff", "ppm"])
def test_lossless_kinds_give_the_very_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PICTURE).save(path)  # six colours, so even a GIF's palette holds them
    assert (read_image(path) == PICTURE).all()


def test_the_kind_is_told_by_the_bytes_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PICTURE).save(path, "PNG")
    assert (read_image(path) == PICTURE).all()


def test_a_path_beyond_ascii(tmp_path: Path) -> None:
    path = tmp_path / "Zürich 日本.jpg"
    path.write_bytes(jpeg(PICTURE))
    np.testing.assert_allclose(patches(read_image(path)), PATCHES, atol=6)


def test_grey_kinds(tmp_path: Path) -> None:
    grey = np.arange(0, 240, 10, np.uint8).reshape(4, 6)
    Image.fromarray(grey).save(tmp_path / "l.png")
    Image.fromarray(np.full((16, 16), 90, np.uint8)).save(tmp_path / "l.jpg")
    Image.fromarray(grey > 100).save(tmp_path / "1.png")
    Image.fromarray(np.stack([grey, np.full_like(grey, 255)], -1), "LA").save(tmp_path / "la.png")
    assert (read_image(tmp_path / "l.png") == grey[..., None]).all()
    assert read_image(tmp_path / "l.png").shape == (4, 6, 3)
    assert (read_image(tmp_path / "l.jpg") == 90).all()
    assert (read_image(tmp_path / "1.png") == (grey > 100)[..., None] * 255).all()
    assert (read_image(tmp_path / "la.png") == grey[..., None]).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_samples_keep_their_high_byte(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = np.array([[0, 255, 256], [511, 65280, 65535]], np.uint16)
    wide = samples if channels == 1 else np.stack([samples, samples[::-1], samples], -1)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), wide if channels == 1 else wide[..., ::-1])
    expected = np.repeat(samples[..., None], 3, 2) if channels == 1 else wide
    assert (read_image(path) == expected >> 8).all()
    assert read_image(path)[1, 0, 0] == 1  # 511 is 1, not 2: no rounding


@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (256, 10), (1023, 10), (4095, 12), (16383, 14), (16384, 16)])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_files_that_use_fewer_bits(tmp_path: Path, suffix: str, channels: int, largest: int, bits: int) -> None:
    ramp = np.linspace(0, largest, 600).astype(np.uint16).reshape(20, 30)
    wide = ramp if channels == 1 else np.stack([ramp, ramp[::-1], ramp // 2], -1)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), wide if channels == 1 else wide[..., ::-1])
    expected = np.repeat(ramp[..., None], 3, 2) if channels == 1 else wide
    depth = Depth()
    assert (read_image(path, depth=depth) == expected >> (bits - 8)).all()
    assert (depth.found, depth.used) == (bits, bits)
    if bits <= 12:
        assert (read_image(path, depth=Depth(12)) == expected >> 4).all(), "a dark frame of a 12-bit set"
    assert (read_image(path, depth=Depth(16)) == expected >> 8).all()
    assert (read_image(path, depth=Depth(8)) == np.minimum(expected, 255)).all(), "larger samples are white"
    array = to_rgb_uint8(wide if channels == 1 else wide[..., ::-1])
    assert (array == expected >> (bits - 8)).all(), "arrays go by the same rule"


def test_8_bit_files_have_no_depth(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(PICTURE).save(tmp_path / name)
        read_image(tmp_path / name, depth=(depth := Depth(12)))
        assert depth.used is None


def test_shallow_samples_with_opacity_and_orientation(tmp_path: Path) -> None:
    wide = np.zeros((2, 3, 4), np.uint16)
    wide[..., 2], wide[..., 3] = 4095, 65535  # red
    wide[0, 0, 3] = 0
    ok, data = cv2.imencode(".png", wide)
    (tmp_path / "a.png").write_bytes(data.tobytes())
    assert ok
    image = read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[1, 2].tolist() == [255, 0, 0]


def test_a_pgm_that_declares_its_largest_sample(tmp_path: Path) -> None:
    """A dark frame is not made lighter where the file itself says what white is."""
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 1 4095\n" + np.array([0, 1023], ">u2").tobytes())
    depth = Depth()
    assert read_image(path, depth=depth)[0, :, 0].tolist() == [0, 63]
    assert depth.found is None
    path.write_bytes(b"P5 2 1 65535\n" + np.array([0, 1023], ">u2").tobytes())
    assert read_image(path)[0, :, 0].tolist() == [0, 255]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    for suffix in ("png", "tiff"):
        Image.fromarray(pixels, "RGBA").save(tmp_path / f"a.{suffix}")
        image = read_image(tmp_path / f"a.{suffix}")
        assert image[0, 0].tolist() == [255, 255, 255], "the red hidden under alpha 0 must not show"
        assert image[0, 1].tolist() == [10, 20, 30]
        np.testing.assert_allclose(image[0, 2], 127, atol=1)


def test_palettes_with_and_without_a_transparent_colour(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "one.png", transparency=1)
    picture.save(tmp_path / "many.png", transparency=bytes([255, 0, 255]))
    picture.save(tmp_path / "one.gif", transparency=1)
    assert read_image(tmp_path / "plain.png")[0].tolist() == [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
    for name in ("one.png", "many.png", "one.gif"):
        assert read_image(tmp_path / name)[0].tolist() == [[200, 0, 0], [255, 255, 255], [0, 0, 200]], name


def test_cmyk_jpegs_are_read_as_adobe_writes_them(tmp_path: Path) -> None:
    """Cyan and yellow inks without magenta or black are green; the file stores 255 - ink, with or without a marker."""
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[..., 0] = inks[..., 2] = 255
    file = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(file, "JPEG", quality=95)
    adobe = file.getvalue()
    start = adobe.index(b"\xff\xee")  # the Adobe marker
    size = 2 + int.from_bytes(adobe[start + 2 : start + 4], "big")
    for content in (adobe, adobe[:start] + adobe[start + size :]):
        (tmp_path / "a.jpg").write_bytes(content)
        np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [0, 255, 0], atol=3)


def test_cmyk_tiff(tmp_path: Path) -> None:
    inks = np.array([[[0, 255, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tiff")
    assert read_image(tmp_path / "a.tiff")[0].tolist() == [[255, 0, 0], [0, 0, 0], [255, 255, 255]]


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (50, 150)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (read_image(path) == 50).all()


def test_a_jpeg_without_its_last_bytes_is_used_with_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    picture = textured()
    whole = jpeg(picture)
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    said: list[str] = []
    image = read_image(path, said.append)
    assert image.shape == (240, 320, 3)
    np.testing.assert_allclose(image[:120], cv2.imdecode(np.frombuffer(whole, np.uint8), 1)[:120, :, ::-1], atol=0)
    assert len(said) == 1
    assert str(path) in said[0]
    assert "ends too early" in said[0]
    assert "rows are grey" in said[0]
    assert capfd.readouterr().err == "", "libjpeg must not write to the terminal"


def test_a_jpeg_without_its_end_marker_alone_lacks_no_row(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(jpeg(textured())[:-2])
    said: list[str] = []
    read_image(path, said.append)
    assert "no whole row is missing" in said[0]


def test_a_cut_jpeg_stands_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "cut.jpg"
    path.write_bytes(jpeg(textured(), exif=exif)[:-2])
    assert read_image(path).shape == (320, 240, 3)


def test_a_jpeg_with_an_embedded_thumbnail_is_still_seen_as_cut(tmp_path: Path) -> None:
    whole = jpeg(textured())
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 4) + b"\xff\xd8\xff\xd9"  # an end marker before the pixels
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[:2] + thumbnail + whole[2 : len(whole) // 2])
    said: list[str] = []
    read_image(path, said.append)
    assert len(said) == 1


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_jpeg_with_corrupt_data_is_used_and_named(tmp_path: Path, where: float, capfd) -> None:
    data = bytearray(jpeg(textured()))
    at = int(len(data) * where)
    data[at : at + 60] = np.random.default_rng(1).integers(0, 255, 60, np.uint8).tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    said: list[str] = []
    assert read_image(path, said.append).shape == textured().shape
    assert len(said) == 1
    assert said[0].startswith(f"{path}: the JPEG's picture data are corrupt")
    assert capfd.readouterr().err == "", "nothing without the file's name"


def test_whole_jpegs_of_all_kinds_give_no_warning_and_the_same_pixels(tmp_path: Path) -> None:
    said: list[str] = []
    for number, (width, height) in enumerate([(1, 1), (7, 5), (8, 8), (33, 70), (200, 3), (150, 151)]):
        rng = np.random.default_rng(number)
        picture = rng.integers(0, 255, (height, width, 3), np.uint8)
        picture[height // 2 :] = (0, 128, 255)[number % 3]  # plain down to the last pixel, as a watermark or a bar
        for options in ({}, {"subsampling": 0}, {"progressive": True}, {"quality": 30, "optimize": True}):
            for mode in ("RGB", "L"):
                path = tmp_path / "a.jpg"
                Image.fromarray(picture).convert(mode).save(path, **options)
                assert (read_image(path, said.append) == read_image(path)).all()
    two = tmp_path / "a.mpo"
    Image.fromarray(PICTURE).save(two, save_all=True, append_images=[Image.fromarray(textured())])
    assert (read_image(two, said.append) == read_image(two)).all()
    assert said == []


def test_avif_and_jpeg_2000_where_pillow_reads_them(tmp_path: Path) -> None:
    for suffix, feature in (("avif", "avif"), ("jp2", "jpg_2000"), ("j2k", "jpg_2000")):
        path = tmp_path / f"a.{suffix}"
        if not features.check(feature):
            continue
        Image.fromarray(PICTURE).save(path, quality=100) if suffix == "avif" else Image.fromarray(PICTURE).save(path)
        np.testing.assert_allclose(patches(read_image(path)), PATCHES, atol=6)
        assert probe_size(path) == (48, 32)
        assert path in find_images(tmp_path)


@pytest.mark.parametrize("feature", ["avif", "jpg_2000"])
def test_avif_and_jpeg_2000_where_pillow_does_not(tmp_path: Path, monkeypatch, feature: str) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    monkeypatch.setattr(features, "check_codec", lambda name: False)
    start = b"\0\0\0\x1cftypavif" if feature == "avif" else b"\0\0\0\x0cjP  \r\n\x87\n"
    (tmp_path / "a.bin").write_bytes(start + bytes(30))
    with pytest.raises(ImageError, match="AVIF image" if feature == "avif" else "JPEG 2000 image"):
        read_image(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("bands", "planar"), [(2, False), (5, True), (6, False), (7, False), (12, False), (300, False)]
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_other_bands_tells_how_many(tmp_path: Path, bands: int, planar: bool, order: str, capsys) -> None:
    entries = [(256, 3, 1, 4), (257, 3, 1, 2), (258, 3, 1, 32), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200)]
    entries += [(277, 3, 1, bands), (278, 3, 1, 2), (279, 4, 1, 8 * bands), (284, 3, 1, 2 if planar else 1)]
    mark = b"II*\0" if order == "<" else b"MM\0*"
    data = mark + struct.pack(f"{order}IH", 8, len(entries))
    for tag, kind, count, value in entries:
        data += struct.pack(f"{order}HHI", tag, kind, count)
        data += struct.pack(f"{order}H2x" if kind == 3 else f"{order}I", value)
    path = tmp_path / "a.tif"
    path.write_bytes(data + bytes(200 + 32 * bands))
    for read in (read_image, check_header):
        with pytest.raises(ImageError, match=f"has {bands} bands; expected 1, 3 or 4"):
            read(path)
    assert capsys.readouterr() == ("", ""), "Pillow has a line of its own, without the file's name"


def test_a_whole_jpeg_with_bytes_after_its_end_is_no_cause_for_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(PICTURE) + b"trailer of a camera")
    said: list[str] = []
    np.testing.assert_allclose(patches(read_image(path, said.append)), PATCHES, atol=6)
    assert said == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>not found</html>", "is not a readable image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\0\0\0\x18ftypheic", "is a HEIC image, which cannot be read here"),
        (b"\0\0\0\x18ftypmif1", "is a HEIC image"),
        (b"\xff\x0a" + bytes(20), "is a JPEG XL image"),
        (b"\0\0\0\x18ftyp3gp4", "is a video (3gp4), not an image; to predict on it, give its name the suffix of"),
        (b"\0\0\0\x18ftypisom", "is a video (isom)"),
        (b"FLV\x01" + bytes(20), "is a video (FLV)"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "is a video (ASF or WMV)"),
        (b"RIFF\0\0\0\0AVI LIST", "is a video (AVI)"),
        (jpeg(textured())[:300], "without picture data"),
        (jpeg(textured())[: len(jpeg(textured())) // 40 + 640], "rows are missing"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be decoded"),
    ],
)
def test_what_is_no_image_is_told_with_its_path(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in caught.value.reason


def test_a_png_that_ends_early_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(textured()).save(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(path)
    check_header(path)  # the header is whole


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for read in (read_image, probe_size, check_header):
        with pytest.raises(ImageError, match="does not exist"):
            read(tmp_path / "none.jpg")
        with pytest.raises(ImageError, match="cannot be read"):
            read(tmp_path)


def test_float_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(ImageError, match="floating-point"):
        read_image(path)


def test_an_image_larger_than_pillow_allows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # PICTURE is 15 times that; Image.open would raise
    for name in ("a.png", "a.gif", "a.tiff", "a.bmp"):
        Image.fromarray(PICTURE).save(tmp_path / name)
        assert (read_image(tmp_path / name) == PICTURE).all()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored(orientation).save(tmp_path / "turned.tiff", exif=exif)
        assert (read_image(tmp_path / "turned.tiff") == PICTURE).all(), orientation
    Image.fromarray(np.array([[[255, 0, 0, 0]] * 99, [[1, 2, 3, 255]] * 99], np.uint8)).save(tmp_path / "alpha.tiff")
    assert read_image(tmp_path / "alpha.tiff")[:, 0].tolist() == [[255, 255, 255], [1, 2, 3]]


def test_an_absurd_size_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    path = tmp_path / "a.png"
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(start + struct.pack(">I", 9) + b"IDAT" + bytes(13))
    with pytest.raises(ImageError, match="200000 x 200000 px"):
        read_image(path)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "I;16", "keyed"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_rows_at_a_time_give_what_the_whole_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, orientation: int
) -> None:
    """Large pictures are converted in strips; here these are one row, two rows and the last one alone."""
    path, rng = tmp_path / f"a.{'tiff' if mode == 'CMYK' else 'png'}", np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (7, 5, 4), np.uint8), "RGBA")
    extra: dict[str, object] = {}
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(0, 65535, (7, 5), np.uint16))
    elif mode == "keyed":
        picture, extra = picture.convert("RGB").convert("P"), {"transparency": 3}
    else:
        picture = picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif, **extra)
    whole = read_image(path)
    for strip in (1, 10, 15):
        monkeypatch.setattr(to_rgb, "STRIP", strip)
        assert (read_image(path) == whole).all()


def test_a_picture_larger_than_the_free_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    monkeypatch.setattr(images, "free_memory", lambda: 1000)
    assert read_image(path).shape == PICTURE.shape  # of a small one it is not asked
    monkeypatch.setattr(images, "LARGE", 100)
    with pytest.raises(
        ImageError, match=r"a\.png: declares 48 x 32 px, which take 0\.0 GB to read where 0\.0 GB are free"
    ):
        read_image(path)


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.bool_])
def test_rows_of_an_array_at_a_time_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, channels: tuple[int, ...], kind: type
) -> None:
    """The range of the samples is that of all rows: here the upper ones are darker, and less opaque."""
    ramp = np.linspace(0, 1, 7).reshape(7, 1, *(1 for _ in channels))
    samples = np.random.default_rng(0).random((7, 5, *channels)) * ramp
    array = (
        samples > 0.3 if kind is np.bool_ else (samples * {np.uint8: 255, np.uint16: 4000}.get(kind, 1)).astype(kind)
    )
    whole = to_rgb_uint8(array)
    assert whole.shape == (7, 5, 3)
    for strip in (1, 10, 15):
        monkeypatch.setattr(arrays, "STRIP", strip)
        assert (to_rgb_uint8(array) == whole).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_large_array_is_converted_in_little_memory(channels: int) -> None:
    array = np.full((2000, 3000, channels), 900, np.uint16)
    tracemalloc.start()
    try:
        rgb = to_rgb_uint8(array)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rgb[0, 0, 0] == (900 >> 2 if channels < 4 else 229)  # the opacity 225 of 255, over white
    assert peak < rgb.nbytes + 20 * arrays.STRIP


@pytest.mark.long
@pytest.mark.parametrize(("samples", "most"), [(np.uint8, 2.7), (np.uint16, 3.3)])
def test_a_large_picture_takes_little_more_memory_than_its_pixels(tmp_path: Path, samples: type, most: float) -> None:
    """Decoded it has 4 bytes a pixel, of Pillow, or 6, of OpenCV; ours has 3."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((6000, 6000, 3), 200, samples), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    script = (
        "import resource, sys; from gfldet.data.images import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; image = read_image(sys.argv[1])\n"
        "print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / image.nbytes)"
    )
    told = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert float(told.stdout) < most


def test_many_threads_read_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.{suffix}" for n in range(8) for suffix in ("jpg", "png", "gif")]
    for path in paths:
        Image.fromarray(PICTURE).save(path)
    with ThreadPoolExecutor(8) as pool:
        for path, image in zip(paths, pool.map(read_image, paths), strict=True):
            assert (image == read_image(path)).all()


def test_arrays_are_bgr() -> None:
    bgr = np.array([[[1, 2, 3]]], np.uint8)
    assert to_rgb_uint8(bgr).tolist() == [[[3, 2, 1]]]
    assert to_rgb_uint8(bgr.astype(np.uint16) * 65 * 256 + 255).tolist() == [[[195, 130, 65]]]
    assert to_rgb_uint8(np.array([[7, 9]], np.uint8)).tolist() == [[[7, 7, 7], [9, 9, 9]]]
    assert to_rgb_uint8(np.array([[[7], [9]]], np.uint8)).tolist() == [[[7, 7, 7], [9, 9, 9]]]
    assert to_rgb_uint8(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]
    bgra = np.array([[[1, 2, 3, 255], [1, 2, 3, 0]]], np.uint8)
    assert to_rgb_uint8(bgra).tolist() == [[[3, 2, 1], [255, 255, 255]]]
    assert to_rgb_uint8(bgr).flags.c_contiguous


def test_pil_images_are_rgb_and_turned() -> None:
    assert (to_rgb_uint8(Image.fromarray(PICTURE)) == PICTURE).all()
    turned = stored(6)
    turned.getexif()[0x0112] = 6
    assert (to_rgb_uint8(turned) == PICTURE).all()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 20, 30), np.uint8), r"got \(3, 20, 30\); its channels come first: give x.transpose\(1, 2, 0\)"),
        (np.zeros((2, 20, 30, 3), np.uint8), "as a list"),
        (np.zeros((0, 30, 3), np.uint8), r"got \(0, 30, 3\)"),
        (np.zeros((20, 30, 3), np.int64), "of uint8, uint16, bool or float, got int64; convert them"),
        (np.full((20, 30, 3), 1.5), "float samples from 1.5 to 1.5; expected 0 to 1, or 0 to 255 with one above 2"),
        ("a.jpg", "got str"),
    ],
)
def test_other_arrays_are_refused(array: object, reason: str) -> None:
    with pytest.raises(DataError, match=f"frame 7: .*{reason}"):
        to_rgb_uint8(array, "frame 7")  # type: ignore[arg-type]


def test_find_images_is_sorted_deep_and_blind_to_hidden_files(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "sub/c.webp", ".hidden.jpg", "._b.JPG", ".git/d.jpg", "notes.txt", "e.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in find_images(tmp_path)] == [
        "a.png",
        "b.JPG",
        "e.heic",
        "sub/c.webp",
    ]
    assert [p.name for p in find_images(tmp_path, recursive=False)] == ["a.png", "b.JPG", "e.heic"]


def test_not_all_files_of_a_machine_are_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.jpg", "b.jpg", "deep/c.jpg"):
        (tmp_path / name).touch()
    monkeypatch.setattr(images, "MAX_ENTRIES", 4)
    assert len(find_images(tmp_path)) == 3
    (tmp_path / "deep" / "d.txt").touch()
    with pytest.raises(DataError, match="holds more than 4 files and folders; name the folder of the images"):
        find_images(tmp_path)
    monkeypatch.setattr(images, "MAX_ENTRIES", 10)
    (tmp_path / "deep" / "link").symlink_to("/")
    for folder in (Path("/"), tmp_path):
        with pytest.raises(DataError, match="is the root of the file system; name the folder of the images"):
            find_images(folder)
