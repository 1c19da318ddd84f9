"""What to predict on: file, folder, glob, .txt list, video, camera, stream, array, tensor, PIL image, a built-in set, a
list of these.

The order is stable (by name), and every frame has a unique `name` for its results.  A folder is read without its
subfolders, so that results saved below it are not read as input; a glob such as `photos/**/*.jpg` also reads
subfolders.

Bad input: one DataError before the first frame lists all problems that the first bytes of the files show (missing,
empty, not an image).  A file that cannot be decoded later is skipped, and a DataError after the last frame names it;
with `on_bad="skip"`, `warn` gets it instead.  If the source is a single file, its error is raised at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gfldet.data import patterns, shapes, streams
from gfldet.data.arrays import check_array, to_rgb_uint8
from gfldet.data.depth import Depth
from gfldet.data.images import (
    IMAGE_SUFFIXES,
    ImageError,
    Warn,
    check_header,
    find_images,
    read_image,
)
from gfldet.data.samples import is_tensor, pictures_of
from gfldet.data.text import read_list
from gfldet.errors import DataError, listed, shown
from gfldet.files import exists, is_file, is_folder, listing, size

if TYPE_CHECKING:
    from torch import Tensor

FPS = 30.0  # of a video that does not tell its own
MAX_CAMERA = 4  # digits of a camera's number
VIDEO_SUFFIXES = frozenset(
    f".{kind}"
    for kind in [
        *("3g2", "3gp", "asf", "avi", "f4v", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv"),
        *("ts", "vob", "webm", "wmv"),
    ]
)

Source: TypeAlias = "str | Path | int | NDArray[Any] | Image.Image | Tensor | Sequence[Source]"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture to predict on.

    image      (H, W, 3) uint8 RGB, upright
    path       the file it comes from; "image0", "image1", ... for arrays, tensors and PIL images
    name       for files of its results: unique among the frames of one source, without suffix
    file_name  path relative to the folder given as source, with forward slashes; else the file's name; where different
               files would have one, relative to the folder that all files have in common
    index      number of the frame in its video, from 0; None for pictures
    fps        frames per second of the video before `vid_stride`; None for pictures
    on_disk    whether `path` is a picture of its own, not a video, a camera or a thing in memory
    entry      position of what it comes from in the source; all frames of a video have one
    """

    image: NDArray[np.uint8]
    path: str
    name: str
    file_name: str
    index: int | None = None
    fps: float | None = None
    on_disk: bool = False
    entry: int = 0

    def rate(self, vid_stride: int) -> float:
        """Frames per second as they come, of a video every `vid_stride`-th; as if it had FPS where nobody tells."""
        return (self.fps or FPS) / (1 if self.index is None else vid_stride)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to open: a picture in memory, an image file, a video, a camera number or the address of a stream."""

    path: str
    file_name: str
    what: Literal["memory", "image", "video", "camera", "stream", "shape"]
    picture: NDArray[Any] | Image.Image | None = None

    @property
    def moves(self) -> bool:
        """Whether it has frames, which are numbered."""
        return self.what in ("video", "camera", "stream")


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence about an entry, at this position among them; `kind` is of those that are told of the first alone."""

    entry: int
    text: str
    kind: str = ""


class Unreadable(DataError):
    """Files of a source that cannot be read; `problems` tells of each, by its position among the entries."""

    problems: Mapping[int, str] = MappingProxyType({})


def iter_source(
    source: Source,
    vid_stride: int = 1,
    on_bad: Literal["error", "skip"] = "error",
    warn: Warn | None = None,
    bits: int | None = None,
) -> Iterator[Frame]:
    """The frames of a source; see the top of this file.

    Arrays follow OpenCV: (H, W, 3) BGR, (H, W, 4) BGRA or (H, W) grey, of uint8, uint16, bool, or floats from 0 to 1 or
    from 0 to 255 (see `samples`).  Tensors follow torchvision: (B, 3, H, W) or (3, H, W) RGB, of the same floats or
    uint8; each picture of a batch is a frame.  An int, or a string of digits that names no file, is a camera; `rtsp://...`
    and such are streams (see `streams`).  Both, and a video, give every `vid_stride`-th frame.  `warn` gets a sentence
    for each damaged but usable file, for each file left out, and for a stream that breaks.  `bits` tells how many the
    samples of 16-bit images use; None: each image goes by its own, of which `warn` is told once.

    Raises DataError before the first frame if the source holds nothing to read.
    """
    tell = warn or (lambda message: None)
    entries = entries_of(source, vid_stride, on_bad, tell)
    return frames_of(entries, vid_stride, on_bad, lambda remark: tell(remark.text), bits)


def entries_of(
    source: Source, vid_stride: int = 1, on_bad: Literal["error", "skip"] = "error", warn: Warn | None = None
) -> list[Entry]:
    """What there is to open in a source, in order, without what the first bytes show to be bad; see `iter_source`."""
    if vid_stride < 1:
        raise DataError(f"vid_stride={vid_stride}: expected 1 or more")
    try:
        entries = _told_apart(list(_entries(source, count())))
    except RecursionError:
        raise DataError("source: the lists in it are nested too deep; give one list") from None
    tell = warn or (lambda message: None)
    bad = _find_bad(entries)
    if bad and (on_bad == "error" or len(bad) == len(entries)):
        raise unreadable(bad)
    for problem in bad.values():
        tell(f"left out (on_bad=skip): {problem}")
    return [entry for number, entry in enumerate(entries) if number not in bad]


def frames_of(
    entries: Sequence[Entry],
    vid_stride: int,
    on_bad: Literal["error", "skip"],
    remark: Callable[[Remark], None],
    bits: int | None = None,
    own: Container[int] | None = None,
) -> Iterator[Frame]:
    """The frames of entries; of those alone whose positions are in `own`, with the names that they have among all.

    `remark` gets what `warn` of `iter_source` gets.  Raises Unreadable after the last frame if there were entries that
    cannot be decoded; that of a source of one file is raised at once.
    """
    unique = _UniqueNames(entries)
    bad: dict[int, str] = {}
    told: set[str] = set()
    for number, entry in enumerate(entries):
        name = unique(entry)
        if own is not None and number not in own:
            continue
        tell = _teller(remark, number)
        try:
            if entry.what == "stream":
                for image, index, fps in streams.frames_of(entry.path, vid_stride, tell):
                    rgb = to_rgb_uint8(image, entry.file_name)
                    yield Frame(rgb, entry.file_name, f"{name}_{index:06d}", entry.file_name, index, fps, entry=number)
            elif entry.what in ("video", "camera"):
                yield from _video_frames(entry, name, vid_stride, number)
            else:
                depth = Depth(bits)
                image = _open(entry, tell, depth)
                for text in {_of_depth(depth)} - told - {""}:
                    told.add(text)
                    remark(Remark(number, f"{entry.path}: {text}", text))
                on_disk = entry.what == "image"
                frame = [Frame(image, entry.path, name, entry.file_name, on_disk=on_disk, entry=number)]
                del image
                yield frame.pop()  # held here no longer: the next picture needs the memory
        except ImageError as error:
            if on_bad == "error" and len(entries) == 1:
                raise
            bad[number] = str(error)
            if on_bad == "skip":
                tell(f"left out (on_bad=skip): {error}")
    if bad and on_bad == "error":
        raise unreadable(bad)


def _teller(remark: Callable[[Remark], None], entry: int) -> Warn:
    return lambda text: remark(Remark(entry, text))


def unreadable(problems: Mapping[int, str]) -> Unreadable:
    """One error for the `problems` of entries, by position."""
    texts = [problems[number] for number in sorted(problems)]
    tail = "Correct or remove them, or set on_bad=skip to predict on the others."
    many = f"{len(texts)} files of the source cannot be read:"
    error = Unreadable(texts[0] if len(texts) == 1 else listed(many, texts, tail))
    error.problems = problems
    return error


def _open(entry: Entry, tell: Warn, depth: Depth) -> NDArray[np.uint8]:
    if entry.picture is not None:
        return to_rgb_uint8(entry.picture, entry.path, depth)
    return shapes.read(entry.path) if entry.what == "shape" else read_image(entry.path, tell, depth)


def _of_depth(depth: Depth) -> str:
    """What is told once of 16-bit images that do not use all their bits, or use more than was wanted; else empty."""
    if depth.found is None or (depth.wanted or 16) == depth.found == 16:
        return ""
    if depth.wanted is None:
        return "uses fewer than its 16 bits; such images are read each by its own range, unless sample_bits is set"
    if depth.found > depth.wanted:
        return f"holds samples of more than sample_bits={depth.wanted} bits; the larger ones are white"
    return ""


class _UniqueNames:
    """Makes file stems unique: 'a', then 'a-2' for an 'a' of another folder or kind.

    A video's name is none whose frames (`name_000000`, ...) could be called like one of the pictures in `entries`.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._used: set[str] = set()
        self._tried: dict[str, int] = {}  # the last number behind each stem: thousands of files may share one
        numbered = (re.fullmatch(r"(.*)_\d{6,}", Path(entry.path).stem.casefold()) for entry in entries)
        self._like_frames = {match[1] for match in numbered if match}

    def __call__(self, entry: Entry) -> str:
        stem = streams.name_of(entry.path) if entry.what == "stream" else Path(entry.path).stem
        stem = f"camera{entry.path}" if entry.what == "camera" else stem
        avoided = self._like_frames if entry.moves else frozenset()
        again = self._tried.get(stem, 1)
        name = stem if again == 1 else f"{stem}-{again}"
        # For some file systems 'A' and 'a' are the same name.
        while name.casefold() in self._used or name.casefold() in avoided:
            again += 1
            name = f"{stem}-{again}"
        self._tried[stem] = again
        self._used.add(name.casefold())
        return name


# ---------------------------------------------------------------- from a source to its entries


def _entries(source: Any, numbers: Iterator[int]) -> Iterator[Entry]:
    """Entries of a source; each picture in memory gets its name from the next of `numbers`."""
    if isinstance(source, (np.ndarray, Image.Image)):
        name = f"image{next(numbers)}"
        yield Entry(name, name, "memory", source)
    elif is_tensor(source):
        for picture in pictures_of(source):
            yield from _entries(picture, numbers)
    elif isinstance(source, (list, tuple)):
        if not source:
            raise DataError("source: the list is empty; expected at least one image")
        for one in source:
            yield from _entries(one, numbers)
    elif isinstance(source, int) and not isinstance(source, bool):
        if not -1 <= source < 10**MAX_CAMERA:
            raise DataError(f"source={shown(source)}: expected the number of a camera, from 0 up")
        yield Entry(str(source), str(source), "camera")
    elif isinstance(source, (str, Path)):
        yield from _entries_of_path(str(source))
    else:
        raise DataError(
            f"source: expected a path, a glob, a numpy array (H, W, 3) BGR, a tensor (B, 3, H, W) RGB, a PIL image or "
            f"a list of them, got {type(source).__name__}"
        )


def _entries_of_path(source: str) -> list[Entry]:
    path = Path(source)
    if source in shapes.VARIANTS and not exists(path):
        return [Entry(str(i.path), i.file_name, "shape") for i in shapes.index(source, "val").items]
    if shapes.is_virtual(path):
        return [Entry(source, path.name, "shape")]
    if is_folder(path):
        return _in_folder(path)
    if is_file(path) and path.suffix.lower() == ".txt":
        return _listed_in(path)
    if is_file(path):
        return [_file(path, path.name)]
    if source.isdecimal() and len(source) <= MAX_CAMERA:
        return [Entry(source, source, "camera")]
    if "://" in source:
        streams.check_address(source)
        return [Entry(source, streams.shown_address(source), "stream")]
    if patterns.is_pattern(source):
        return _matching(source)
    name = shown(source, 300, quoted=False)
    raise DataError(f"{name}: no such file or folder; expected an image, video, folder, glob or .txt list of images")


def _file(path: Path, file_name: str) -> Entry:
    return Entry(str(path), file_name, "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image")


def _in_folder(folder: Path) -> list[Entry]:
    paths = [path for path in listing(folder) if path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != "."]
    paths = sorted([*paths, *find_images(folder, recursive=False)])
    if not paths:
        glob_below = folder / "**" / "*"
        deeper = f"; there are some in subfolders, use {glob_below} to read them" if find_images(folder) else ""
        raise DataError(f"{folder}: no image or video in this folder{deeper}")
    return [_file(path, path.name) for path in paths]


def _matching(pattern: str) -> list[Entry]:
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    paths = [path for path in patterns.matching(pattern) if path.suffix.lower() in known]
    if not paths:
        raise DataError(f"{shown(pattern, 300, quoted=False)}: this glob matches no image or video")
    fixed = patterns.fixed_part(pattern)
    return [_file(path, path.relative_to(fixed).as_posix()) for path in paths if is_file(path)]


def _listed_in(file: Path) -> list[Entry]:
    paths = read_list(file, file.parent)
    if not paths:
        raise DataError(f"{file}: lists no image; expected one path per line")
    return [_file(path, path.name) for path in paths]


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """The entries with other file names where different files have the same one, or one leads out of its folder."""
    files = [entry for entry in entries if entry.what in ("image", "video")]
    names = {entry.file_name for entry in files}
    leads_out = any(".." in name.split("/") for name in names)
    if len(names) == len(files) and not leads_out:
        return entries
    whole = {entry.path: os.path.abspath(entry.path) for entry in files}
    if len(names) == len(set(whole.values())) and not leads_out:  # some files are given twice
        return entries
    try:
        top = Path(os.path.commonpath([os.path.dirname(path) for path in whole.values()]))
    except ValueError:  # on two drives
        return entries
    return [
        replace(entry, file_name=Path(whole[entry.path]).relative_to(top).as_posix()) if entry.path in whole else entry
        for entry in entries
    ]


def _find_bad(entries: Sequence[Entry]) -> dict[int, str]:
    """position -> problem, for each entry with a problem in its first bytes."""
    bad: dict[int, str] = {}
    for number, entry in enumerate(entries):
        try:
            if entry.what == "image":
                check_header(entry.path)
            elif entry.what == "video" and not is_file(entry.path):
                raise ImageError(entry.path, "does not exist")
            elif entry.what == "video" and not size(entry.path):
                raise ImageError(entry.path, "is empty (0 bytes); replace or remove it")
            elif isinstance(entry.picture, np.ndarray):
                check_array(entry.picture, entry.path)
        except DataError as error:
            bad[number] = str(error)
    return bad


# ---------------------------------------------------------------- videos and cameras


def _video_frames(entry: Entry, name: str, stride: int, number: int) -> Iterator[Frame]:
    capture = cv2.VideoCapture(int(entry.path) if entry.what == "camera" else entry.path)
    try:
        if not capture.isOpened():
            raise ImageError(entry.path, f"cannot be opened as a {entry.what}; expected one that OpenCV plays")
        fps = capture.get(cv2.CAP_PROP_FPS) or None
        index = -1
        while capture.grab():
            index += 1
            if index % stride:
                continue
            there, image = capture.retrieve()
            if not there:
                break
            frame_name = f"{name}_{index:06d}"
            rgb = to_rgb_uint8(image, entry.path)
            yield Frame(rgb, entry.path, frame_name, entry.file_name, index, fps, entry=number)
            del rgb
        if index < 0:
            raise ImageError(entry.path, "holds no frame that can be decoded; replace or remove it")
    finally:
        capture.release()
