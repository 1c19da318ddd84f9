"""`Results`: the detections of one image, in the form that users of YOLO packages know; numpy and OpenCV, no torch.

Boxes are in pixels of the original image.  Class numbers are positions in `names`, 0..C-1 (not the category ids of a
COCO file).  Letter: D detections of the image, best score first.
"""

from __future__ import annotations

import builtins
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfldet.errors import OutputError
from gfldet.viz.draw import draw_boxes
from gfldet.viz.pictures import save_picture
from gfldet.writing import write_whole

# Suffixes of the formats in which OpenCV writes a colour picture.
WRITABLE = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm"})


class Array(np.ndarray):
    """A numpy array with the methods that users call on tensors: `.cpu()`, `.numpy()`, `int(box.cls)`."""

    def cpu(self) -> Array:
        return self

    def detach(self) -> Array:
        return self

    def numpy(self) -> np.ndarray:
        return self.view(np.ndarray)

    def int(self) -> Array:
        return _array(self.astype(np.int64))

    def __int__(self) -> builtins.int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())


def _array(values: ArrayLike) -> Array:
    return np.asarray(values).view(Array)


class Boxes:
    """All or some boxes of one image.  `len`, iteration and indexing work as for an array; each item is again `Boxes`.

    data        (D, 6) float32: x1, y1, x2, y2 in px, score, class
    orig_shape  (height, width) of the image, px
    """

    id = None  # track ids; gfldet does not track
    is_track = False

    def __init__(self, data: ArrayLike, orig_shape: tuple[int, int]) -> None:
        self.data = _array(np.array(data, np.float32).reshape(-1, 6))
        self.orig_shape = orig_shape

    @property
    def xyxy(self) -> Array:
        """(D, 4) left, top, right, bottom, px."""
        return _array(self.data[:, :4])

    @property
    def xywh(self) -> Array:
        """(D, 4) centre x, centre y, width, height, px."""
        size = self.data[:, 2:4] - self.data[:, :2]
        return _array(np.concatenate([self.data[:, :2] + size / 2, size], axis=1))

    @property
    def xyxyn(self) -> Array:
        """(D, 4) left, top, right, bottom as shares of the image's width and height."""
        return _array(self.xyxy / self._scale())

    @property
    def xywhn(self) -> Array:
        """(D, 4) centre x, centre y, width, height as shares of the image's width and height."""
        return _array(self.xywh / self._scale())

    @property
    def conf(self) -> Array:
        """(D,) scores, 0 to 1."""
        return _array(self.data[:, 4])

    @property
    def cls(self) -> Array:
        """(D,) class numbers, as floats."""
        return _array(self.data[:, 5])

    def _scale(self) -> NDArray[np.float32]:
        height, width = self.orig_shape
        return np.array([width, height, width, height], np.float32)

    def cpu(self) -> Boxes:
        return self

    def numpy(self) -> Boxes:
        return self

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Boxes:
        return Boxes(self.data[index], self.orig_shape)

    def __iter__(self) -> Iterator[Boxes]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Boxes({len(self)} of {self.orig_shape[1]} x {self.orig_shape[0]} px)"


class Results:
    """The detections of one image.

    orig_img    (H, W, 3) uint8, BGR as in OpenCV (and as users of YOLO packages expect)
    orig_shape  (H, W), px
    path        the path of the image; "image0", "image1", ... for arrays
    names       class number -> name
    boxes       `Boxes`
    speed       milliseconds for each step: "preprocess", "inference", "postprocess"
    masks, keypoints, probs, obb are None: gfldet finds upright boxes.
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
        boxes: ArrayLike,
        speed: Mapping[str, float] | None = None,
        name: str = "",
    ) -> None:
        """boxes: (D, 6) xyxy px of the original image, score, class.  name: name of the file that `save` writes,
        without suffix; the default is the stem of `path`."""
        self.orig_img = orig_img
        self.orig_shape: tuple[int, int] = (orig_img.shape[0], orig_img.shape[1])
        self.path = str(path)
        self.names = dict(names)
        self.boxes = Boxes(boxes, self.orig_shape)
        self.speed = dict(speed or {})
        self._name_to_save = name or Path(self.path).stem

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"Results({self.path}: {self.verbose()})"

    def cpu(self) -> Results:
        return self

    def numpy(self) -> Results:
        return self

    def plot(self, line_width: int | None = None, conf: bool = True, labels: bool = True) -> NDArray[np.uint8]:
        """A copy of the image with its boxes, (H, W, 3) uint8 BGR; line_width in px, None: by the image's size."""
        picture = _swapped(self.orig_img)
        texts = [self._label(box, conf) for box in self.boxes] if labels else None
        draw_boxes(picture, self.boxes.xyxy, self.boxes.cls, texts, line_width)
        return _swapped(picture)

    def _label(self, box: Boxes, conf: bool) -> str:
        name = self._name(int(box.cls))
        return f"{name} {float(box.conf):.2f}" if conf else name

    def _name(self, number: int) -> str:
        return self.names.get(number, str(number))

    def save(self, path: str | Path | None = None, line_width: int | None = None) -> str:
        """Writes `plot()` to a file and returns its path.

        The default is results_<name of the image> in the current folder.  It has the image's own suffix if OpenCV
        writes that format, else .jpg, so each frame of a video and each array has its own file.  Missing folders are
        created.  Raises OutputError if the file cannot be written.
        """
        target = Path(path) if path is not None else Path(f"results_{self._name_to_save}{self._suffix()}")
        return str(save_picture(target, _swapped(self.plot(line_width))))

    def _suffix(self) -> str:
        """The suffix of the image's own file if it names a format that OpenCV writes, else .jpg."""
        suffix = Path(self.path).suffix.lower()
        return Path(self.path).suffix if suffix in WRITABLE else ".jpg"

    def save_txt(self, path: str | Path, save_conf: bool = False) -> str:
        """Writes YOLO rows `class x y w h [score]` (centre and size as shares of the image) and returns the path.

        An existing file is replaced; without detections the file is empty.  Raises OutputError if writing fails.
        """
        rows = []
        for number, place, score in zip(self.boxes.cls, self.boxes.xywhn, self.boxes.conf, strict=True):
            values = [*place, score] if save_conf else [*place]
            rows.append(" ".join([str(int(number)), *(f"{value:.6f}" for value in values)]) + "\n")
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, lambda file: file.write("".join(rows).encode()), lasting=False)
        except OSError as error:
            raise OutputError(f"{target}: the labels cannot be written: {error.strerror or error}.") from error
        return str(target)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: path, orig_shape [height, width], speed, and for each box name, class, confidence, box in px."""
        boxes = [
            {
                "name": self._name(int(number)),
                "class": int(number),
                "confidence": round(score, 5),
                "box": dict(zip(("x1", "y1", "x2", "y2"), (round(v, 3) for v in corners), strict=True)),
            }
            for *corners, score, number in self.boxes.data.tolist()
        ]
        return {"path": self.path, "orig_shape": list(self.orig_shape), "speed": self.speed, "boxes": boxes}

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def verbose(self) -> str:
        """The detections in words, e.g. "3 RBC, 1 WBC": most frequent first."""
        counts = Counter(self._name(int(number)) for number in self.boxes.cls)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"


def _swapped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy with red and blue exchanged: BGR <-> RGB."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
