"""`Results`: the detections of one image, in the form that users of YOLO packages know; numpy and OpenCV, no torch.

Boxes are in pixels of the original image.  Class numbers are positions in `names`, 0..C-1 (not the category ids of a
COCO file).  Letter: D detections of the image, best score first.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfldet.boxes import Boxes
from gfldet.errors import ConfigError, DataError, OutputError, nearest, no_attribute
from gfldet.labels.yolo import label_row
from gfldet.viz.draw import draw_boxes
from gfldet.viz.pictures import save_bgr
from gfldet.writing import write_text

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Boxes", "Results"]

# Suffixes of the formats in which OpenCV writes a colour picture.
WRITABLE = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm"})
COLUMNS = ("name", "class", "confidence", "box")  # of `summary`, `to_df` and `to_csv`, without tracks
_STRIP = 1 << 20  # pixels that are converted at a time
_LETTER_HEIGHT = 22  # px of the drawn letters at OpenCV's font scale 1

# What other packages, or other versions of them, call it.
_ELSEWHERE = {
    "pandas": "take .to_df()",
    "to_xml": "take .to_csv(), .to_json() or .to_df()",
    "to_html": "take .to_df().to_html()",
    "to_sql": "take .to_df().to_sql(...)",
    "update": "make another, Results(orig_img, path, names, boxes)",
    "render": "take .plot()",
    "crop": "take .save_crop(folder)",
    "imgs": "take .orig_img",
    "pred": "take .boxes.data",
    "xyxy": "take .boxes.xyxy",
    "xywh": "take .boxes.xywh",
    "conf": "take .boxes.conf",
    "cls": "take .boxes.cls",
    "id": "take .boxes.id",
    "semantic_mask": "gfldet finds boxes only, in .boxes",
    "depth": "gfldet finds boxes only, in .boxes",
}
_DRAWING = ("conf", "line_width", "font_size", "pil", "img", "labels", "boxes", "color_mode")  # what `plot` takes
_DRAWING_ELSEWHERE = {
    "show": "call result.show()",
    "save": "call result.save(filename)",
    "filename": "call result.save(filename)",
    "font": "the letters are OpenCV's own; font_size sets their height",
    "txt_color": "the letters are black or white, whichever is easier to read",
    "colors": "color_mode chooses them by class or by instance",
    "line_thickness": "give line_width",
    **dict.fromkeys(("masks", "probs", "kpt_radius", "kpt_line"), "gfldet finds boxes only"),
}


class Results:
    """The detections of one image.

    orig_img    (H, W, 3) uint8, BGR as in OpenCV (and as users of YOLO packages expect)
    orig_shape  (H, W), px
    path        the path of the image; "image0", "image1", ... for arrays
    names       class number -> name
    boxes       `Boxes`
    speed       milliseconds for each step: "preprocess", "inference", "postprocess"
    save_dir    the folder that `predict` writes this image's results to; None if it writes nothing
    masks, keypoints, probs, obb are None: gfldet finds upright boxes.

    `len` counts the detections.  An index, a slice or a mask picks some of them, and iteration goes through them, each
    time as `Results` of the same image.
    """

    masks = None
    keypoints = None
    probs = None
    obb = None

    def __init__(
        self,
        orig_img: NDArray[np.uint8],
        path: str | Path,
        names: Mapping[int, str],
        boxes: ArrayLike | None = None,
        speed: Mapping[str, float] | None = None,
        name: str = "",
    ) -> None:
        """boxes: (D, 6) xyxy px of the original image, score, class.  name: name of the files that `save` and
        `save_crop` write, without suffix; the default is the stem of `path`."""
        self.orig_img = orig_img
        self.orig_shape: tuple[int, int] = (orig_img.shape[0], orig_img.shape[1])
        self.path = str(path)
        self.names = dict(names)
        self.boxes = Boxes(() if boxes is None else boxes, self.orig_shape)
        self.speed = dict(speed or {})
        self.save_dir: str | None = None
        self._name_to_save = name or Path(self.path).stem

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"Results({self.path}: {self.verbose()})"

    def __getitem__(self, index: Any) -> Results:
        some = Results(self.orig_img, self.path, self.names, (), self.speed, self._name_to_save)
        some.boxes, some.save_dir = self.boxes[index], self.save_dir
        return some

    def __iter__(self) -> Iterator[Results]:
        return (self[i] for i in range(len(self)))

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(self, name, _ELSEWHERE)

    def new(self) -> Results:
        """The same image without detections."""
        return self[:0]

    def cpu(self) -> Results:
        return self

    def cuda(self, *device: Any) -> Results:
        return self

    def to(self, *target: Any, **how: Any) -> Results:
        return self

    def numpy(self) -> Results:
        return self

    def plot(
        self,
        conf: bool = True,
        line_width: float | None = None,
        font_size: float | None = None,
        *,
        pil: bool = False,
        img: NDArray[np.uint8] | None = None,
        labels: bool = True,
        boxes: bool = True,
        color_mode: str = "class",
        **others: Any,
    ) -> Any:
        """A copy of the image with its boxes, (H, W, 3) uint8 BGR.

        conf, labels, boxes  whether scores, labels (class names with the scores) and boxes are drawn
        line_width           px; None: by the image's size
        font_size            height of the letters, px; None: by the line width
        pil                  give a PIL image, RGB, instead
        img                  (H, W, 3) uint8 BGR of the image's size, to draw on a copy of it instead
        color_mode           class: a colour for each class; instance: one for each box

        Raises TypeError for other keywords, DataError for an `img` or a `color_mode` that is none of these.
        """
        if others:
            raise _unknown_drawing(next(iter(others)))
        if color_mode not in ("class", "instance"):
            raise DataError(f"color_mode={color_mode}: expected class or instance")
        picture = _swapped(self.orig_img if img is None else self._canvas(img))
        drawn = self.boxes if boxes else self.boxes[:0]
        texts = [self._label(box, conf) for box in drawn] if labels else None
        colours = drawn.cls if color_mode == "class" else np.arange(len(drawn))
        line = None if line_width is None else max(1, round(line_width))
        draw_boxes(picture, drawn.xyxy, colours, texts, line, font_size and font_size / _LETTER_HEIGHT)
        if pil:
            return _pil(picture)
        rows = max(1, _STRIP // picture.shape[1])
        for top in range(0, len(picture), rows):  # in place, some rows at a time: the picture may be large
            strip = picture[top : top + rows]
            cv2.cvtColor(strip, cv2.COLOR_RGB2BGR, strip)
        return picture

    def _canvas(self, img: Any) -> NDArray[np.uint8]:
        """An image of the user's to draw on."""
        wanted = (*self.orig_shape, 3)
        if not isinstance(img, np.ndarray) or img.shape != wanted or img.dtype != np.uint8:
            raise DataError(
                f"img: expected a numpy array of shape {wanted} and uint8, BGR, as orig_img is; got "
                f"{getattr(img, 'shape', type(img).__name__)} {getattr(img, 'dtype', '')}"
            )
        return np.ascontiguousarray(img)

    def show(self, **drawing: Any) -> None:
        """Show `plot(**drawing)`: in a notebook below the cell, else in the viewer of the desktop.

        Raises OutputError where there is none.
        """
        from PIL import ImageShow

        picture = _pil(_swapped(self.plot(**{**drawing, "pil": False})))
        notebook = sys.modules.get("IPython")
        shell = notebook.get_ipython() if notebook else None
        if type(shell).__name__ == "ZMQInteractiveShell":
            notebook.display.display(picture)  # type: ignore[union-attr]
        elif not ImageShow.show(picture, title=self.path):
            raise OutputError(f"{self.path}: no program that shows pictures was found; save() writes one to a file")

    def _label(self, box: Boxes, conf: bool) -> str:
        name = self._name(int(box.cls))
        if box.id is not None and box.id >= 0:
            name = f"#{int(box.id)} {name}"
        return f"{name} {float(box.conf):.2f}" if conf else name

    def _name(self, number: int) -> str:
        return self.names.get(number, str(number))

    def save(self, filename: str | Path | None = None, **drawing: Any) -> str:
        """Writes `plot(**drawing)` to a file and returns its path.

        The default is results_<name of the image> in the current folder.  It has the image's own suffix if OpenCV
        writes that format, else .jpg, so each frame of a video and each array has its own file.  Missing folders are
        created.  Raises OutputError if the file cannot be written.
        """
        target = Path(f"results_{self._name_to_save}{self._suffix()}" if filename is None else filename)
        return str(save_bgr(target, self.plot(**{**drawing, "pil": False})))

    def save_crop(self, save_dir: str | Path, file_name: str | Path | None = None) -> list[str]:
        """Writes what lies inside each box as a picture of its own, save_dir/CLASS/NAME.jpg, and returns the paths.

        NAME is that of the image unless `file_name` gives another (with the suffix of a picture, or without).  No file
        is written over: NAME-2, NAME-3, ... follow.  Raises OutputError if a file cannot be written.
        """
        name = Path(f"{self._name_to_save}.jpg" if file_name is None else file_name)
        suffix = name.suffix if name.suffix.lower() in WRITABLE else ".jpg"
        stem = name.stem if suffix == name.suffix else name.name
        height, width = self.orig_shape
        low = np.clip(np.floor(self.boxes.xyxy[:, :2]), 0, (width - 1, height - 1)).astype(int)
        high = np.maximum(np.clip(np.ceil(self.boxes.xyxy[:, 2:]), 0, (width, height)).astype(int), low + 1)
        written = []
        for (left, top), (right, bottom), number in zip(low, high, self.boxes.cls, strict=True):
            folder = Path(save_dir, _as_folder(self._name(int(number))))
            crop = np.ascontiguousarray(self.orig_img[top:bottom, left:right])
            written.append(str(save_bgr(_free(folder, stem, suffix), crop)))
        return written

    def _suffix(self) -> str:
        """The suffix of the image's own file if it names a format that OpenCV writes, else .jpg."""
        suffix = Path(self.path).suffix.lower()
        return Path(self.path).suffix if suffix in WRITABLE else ".jpg"

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Writes YOLO rows `class x y w h [score] [track]` (centre and size as shares of the image); returns the path.

        An existing file is replaced; without detections the file is empty.  Raises OutputError if writing fails.
        """
        shares = np.column_stack((self.boxes.xywhn, self.boxes.conf)) if save_conf else self.boxes.xywhn
        rows = [label_row(int(c), values) for c, values in zip(self.boxes.cls, shares.tolist(), strict=True)]
        if self.boxes.id is not None:
            rows = [f"{row} {track}" for row, track in zip(rows, self.boxes.id.tolist(), strict=True)]
        text = "".join(f"{row}\n" for row in rows)
        target = Path(txt_file)
        try:
            write_text(target, text)
        except OSError as error:
            raise OutputError(f"{target}: the labels cannot be written: {error.strerror or error}.") from error
        return str(target)

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """A dict for each detection: name, class, confidence, and box with x1, y1, x2, y2 in px, or with `normalize` as
        shares of the image's width and height; rounded to `decimals`; with tracks also track_id."""
        places = (self.boxes.xyxyn if normalize else self.boxes.xyxy).tolist()
        ids = [{}] * len(self) if self.boxes.id is None else [{"track_id": one} for one in self.boxes.id.tolist()]
        return [
            {
                "name": self._name(int(number)),
                "class": int(number),
                "confidence": round(score, decimals),
                "box": dict(zip(("x1", "y1", "x2", "y2"), (round(v, decimals) for v in corners), strict=True)),
                **one,
            }
            for corners, score, number, one in zip(
                places, self.boxes.conf.tolist(), self.boxes.cls.tolist(), ids, strict=True
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: path, orig_shape [height, width], speed, and as boxes the `summary`."""
        return {
            "path": self.path,
            "orig_shape": list(self.orig_shape),
            "speed": self.speed,
            "boxes": self.summary(),
        }

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """The `summary` as a table of pandas, a row for each detection; ConfigError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ConfigError(
                "to_df: pandas is not installed here; pip install pandas. summary() gives the same as a list of dicts"
            ) from None
        return pandas.DataFrame(self.summary(normalize, decimals), columns=self._columns())

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """The `summary` as CSV text, a line for each detection below the line of the column names; the box as JSON."""
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns(), lineterminator="\n")
        table.writeheader()
        table.writerows({**row, "box": json.dumps(row["box"])} for row in self.summary(normalize, decimals))
        return text.getvalue()

    def _columns(self) -> list[str]:
        """The keys of the dicts in `summary`."""
        return [*COLUMNS, *(["track_id"] if self.boxes.is_track else [])]

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        """The `summary` as JSON text."""
        return json.dumps(self.summary(normalize, decimals), ensure_ascii=False)

    tojson = to_json

    def verbose(self) -> str:
        """The detections in words, e.g. "3 RBC, 1 WBC": most frequent first."""
        counts = Counter(self._name(int(number)) for number in self.boxes.cls)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"


def _swapped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy with red and blue exchanged: BGR <-> RGB."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _pil(rgb: NDArray[np.uint8]) -> Image.Image:
    from PIL import Image

    return Image.fromarray(rgb)


def _as_folder(name: str) -> str:
    """A class name as the name of one folder, whatever stands in it."""
    return re.sub(r"[^\w .()+-]", "_", name).strip(" .") or "_"


def _free(folder: Path, stem: str, suffix: str) -> Path:
    """A file that is not there yet: stem, else stem-2, stem-3, ..."""
    path, number = folder / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    return path


def _unknown_drawing(name: str) -> TypeError:
    """The error for a keyword that `plot` does not take."""
    if name in _DRAWING_ELSEWHERE:
        return TypeError(f"plot takes no {name}: {_DRAWING_ELSEWHERE[name]}")
    close = nearest(name, _DRAWING)
    return TypeError(
        f"plot takes no {name}; " + (f"did you mean {close}?" if close else f"it takes {', '.join(_DRAWING)}")
    )
