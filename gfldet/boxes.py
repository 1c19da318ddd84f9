"""`Boxes`: the boxes found in one image, and `Array`: numpy arrays that also take the calls that users make on tensors.

The numbers are numpy's, and all that numpy does with arrays works.  A thin subclass adds the calls of tensors
(`.cpu()`, `.long()`, `.clone()`, ...), so that scripts written for packages that give tensors run as they are, also
where torch is not installed.  Where both have a method of one name, it is numpy's: `size`, `view`, `sort`, `nonzero`.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfldet.errors import DataError, no_attribute

_OF_TENSORS = {
    "device": "it lies in the memory of the processor, as all arrays of numpy",
    "dim": "take .ndim",
    "unsqueeze": "index with None, as in x[None]",
    "permute": "take .transpose(...)",
    "t": "take .T",
    "bool": "compare, as in x > 0, or take .astype(bool)",
    "requires_grad": "it is an array of numpy; torch.as_tensor(x) makes a tensor",
    "topk": "take .argsort()[::-1][:k]",
    "type": "take .astype(...) or .dtype",
    "norm": "take numpy.linalg.norm(x)",
    "abs": "take abs(x)",
}
_OF_BOXES = {
    "unique": "take boxes.cls.unique()",
    "tolist": "take boxes.data.tolist()",
    "astype": "take boxes.data.astype(...)",
    "scores": "take boxes.conf",
    "confidence": "take boxes.conf",
    "classes": "take boxes.cls",
    "labels": "take boxes.cls; result.names has their names",
    "names": "take result.names",
    "xyxyxyxy": "gfldet finds upright boxes only; take boxes.xyxy",
    "masks": "gfldet finds boxes only",
}

Size: TypeAlias = "tuple[int, int]"
_Self = TypeVar("_Self", bound="_TensorCalls")


class _TensorCalls:
    """The calls that users make on a tensor and on its elements.  The memory is that of the processor: moves do
    nothing."""

    __slots__ = ()  # numpy's numbers keep their layout in memory

    def cpu(self: _Self) -> _Self:
        return self

    def cuda(self: _Self, *device: Any) -> _Self:
        return self

    def detach(self: _Self) -> _Self:
        return self

    def to(self, *target: Any, dtype: Any = None, **how: Any) -> Any:
        """A conversion where `target` or `dtype` is a type of numpy or torch; a device changes nothing."""
        kinds = [kind for one in (*target, dtype) if (kind := _dtype(one)) is not None]
        return self._as(kinds[-1]) if kinds else self

    def int(self) -> Any:
        return self._as(np.int64)

    def long(self) -> Any:
        return self._as(np.int64)

    def float(self) -> Any:
        return self._as(np.float32)

    def double(self) -> Any:
        return self._as(np.float64)

    def half(self) -> Any:
        return self._as(np.float16)

    def clone(self) -> Any:
        return with_tensor_calls(np.array(self))

    def numel(self) -> builtins.int:
        return int(np.size(np.asarray(self)))

    def unique(self) -> Array:
        """The different values, sorted."""
        return with_tensor_calls(np.unique(np.asarray(self)))

    def _as(self, dtype: Any) -> Any:
        return with_tensor_calls(np.asarray(self).astype(dtype))

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(self, name, _OF_TENSORS)


class Float(np.float32, _TensorCalls):
    """A float32 of numpy with the calls of a tensor.  numpy takes the kind of number from the first base."""

    __slots__ = ()

    def numpy(self) -> np.float32:
        return np.float32(self)


class Whole(np.int64, _TensorCalls):
    """An int64 of numpy with the calls of a tensor."""

    __slots__ = ()

    def numpy(self) -> np.int64:
        return np.int64(self)


class Array(np.ndarray, _TensorCalls):
    """An array of numpy with the calls of a tensor, for its elements too: `int(box.cls)`, `box.conf[0].cpu()`."""

    def numpy(self) -> np.ndarray:
        return self.view(np.ndarray)

    def __getitem__(self, index: Any) -> Any:
        return with_tensor_calls(super().__getitem__(index))

    def __int__(self) -> builtins.int:
        return int(self.item())

    def __float__(self) -> builtins.float:
        return float(self.item())


def with_tensor_calls(value: Any) -> Any:
    """An array or an element of one with the calls of tensors, sharing its memory; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.view(Array)
    if isinstance(value, np.float32):
        return Float(value)
    return Whole(value) if isinstance(value, np.int64) else value


def _dtype(what: Any) -> np.dtype | None:
    """The type of numpy that a type of numpy or torch names (torch.float32, np.int64, int); None for a device."""
    if isinstance(what, (np.dtype, type)):
        return np.dtype(what)
    name = str(what)
    return np.dtype(name.removeprefix("torch.")) if name.startswith("torch.") else None


def _rows(data: NDArray) -> Array:
    """One row or many of a box each, as (D, 6); DataError if they are none."""
    if data.size and (data.ndim not in (1, 2) or data.shape[-1] != 6):
        raise DataError(f"boxes of shape {data.shape}: expected rows of 6 numbers, x1, y1, x2, y2, score, class")
    rows: Array = with_tensor_calls(data.reshape(-1, 6))
    return rows


class Boxes:
    """All or some boxes of one image.  `len`, iteration and indexing work as for an array; each item is again `Boxes`.

    data        (D, 6) float32: x1, y1, x2, y2 in px, score, class
    orig_shape  (height, width) of the image, px
    id          (D,) int64: the track of each, -1 for none yet; None without `predict(track=True)`
    """

    def __init__(self, data: ArrayLike, orig_shape: Size, id: ArrayLike | None = None) -> None:
        """Raises DataError for rows that are not of six numbers, or another number of ids."""
        self.data = _rows(np.array(data, np.float32))
        self.orig_shape = orig_shape
        self.id: Array | None = None if id is None else with_tensor_calls(np.array(id, np.int64).reshape(-1))
        if self.id is not None and len(self.id) != len(self.data):
            raise DataError(f"id: {len(self.id)} ids of {len(self.data)} boxes; expected one for each")

    @property
    def is_track(self) -> bool:
        """Whether the boxes have ids of tracks."""
        return self.id is not None

    @property
    def shape(self) -> tuple[builtins.int, ...]:
        """(D, 6)"""
        return self.data.shape

    @property
    def xyxy(self) -> Array:
        """(D, 4) left, top, right, bottom, px."""
        return self._columns(self.data[:, :4])

    @property
    def xywh(self) -> Array:
        """(D, 4) centre x, centre y, width, height, px."""
        size = self.data[:, 2:4] - self.data[:, :2]
        return self._columns(np.concatenate([self.data[:, :2] + size / 2, size], axis=1))

    @property
    def xyxyn(self) -> Array:
        """(D, 4) left, top, right, bottom as shares of the image's width and height."""
        return self._columns(self.xyxy / self._scale())

    @property
    def xywhn(self) -> Array:
        """(D, 4) centre x, centre y, width, height as shares of the image's width and height."""
        return self._columns(self.xywh / self._scale())

    @property
    def conf(self) -> Array:
        """(D,) scores, 0 to 1."""
        return self._columns(self.data[:, 4])

    @property
    def cls(self) -> Array:
        """(D,) class numbers, as floats."""
        return self._columns(self.data[:, 5])

    @staticmethod
    def _columns(values: NDArray) -> Array:
        array: Array = with_tensor_calls(values)
        return array

    def _scale(self) -> NDArray[np.float32]:
        height, width = self.orig_shape
        return np.array([width, height, width, height], np.float32)

    def _with(self, data: Array) -> Boxes:
        """The same boxes with their numbers in another type."""
        other = Boxes((), self.orig_shape)
        other.data, other.id = data, self.id
        return other

    def cpu(self) -> Boxes:
        return self

    def cuda(self, *device: Any) -> Boxes:
        return self

    def numpy(self) -> Boxes:
        return self

    def to(self, *target: Any, **how: Any) -> Boxes:
        return self._with(self.data.to(*target, **how))

    def int(self) -> Boxes:
        return self._with(self.data.int())

    def long(self) -> Boxes:
        return self._with(self.data.long())

    def float(self) -> Boxes:
        return self._with(self.data.float())

    def clone(self) -> Boxes:
        return self._with(self.data.clone())

    def numel(self) -> builtins.int:
        return self.data.numel()

    def __len__(self) -> builtins.int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Boxes:
        some = self._with(_rows(np.array(self.data[index])))
        some.id = None if self.id is None else with_tensor_calls(np.array(self.id[index]).reshape(-1))
        return some

    def __iter__(self) -> Iterator[Boxes]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Boxes({len(self)} of {self.orig_shape[1]} x {self.orig_shape[0]} px)"

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(self, name, _OF_BOXES)
