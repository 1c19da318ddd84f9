"""`Boxes` and their arrays: numbers of numpy, with the calls that users make on tensors."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from gfldet.boxes import Boxes, Float, Whole
from gfldet.errors import DataError

ROWS = [[10, 20, 50, 80, 0.75, 1], [100, 10, 140, 20, 0.5, 0], [0, 0, 200, 100, 0.25, 1]]


@pytest.fixture
def boxes() -> Boxes:
    return Boxes(ROWS, (100, 200))


def test_the_calls_of_tensors_on_boxes(boxes: Boxes) -> None:
    assert boxes.shape == (3, 6)
    assert boxes.numel() == 18
    for same in (boxes.cpu(), boxes.cuda(), boxes.cuda(0), boxes.to("cuda:0"), boxes.numpy(), boxes.float()):
        assert same.data.tolist() == boxes.data.tolist()
    assert boxes.long().data.tolist()[0] == [10, 20, 50, 80, 0, 1]
    assert boxes.int().data.dtype == np.int64
    other = boxes.clone()
    other.data[:] = 0
    assert boxes.conf.tolist() == [0.75, 0.5, 0.25]


def test_the_calls_of_tensors_on_arrays_and_their_elements(boxes: Boxes) -> None:
    for x in (boxes.cls, boxes.cls[0], boxes.cls.max(), boxes.data.long()[0, 5]):
        whole, real = x.long(), x.float()
        assert (whole.dtype, real.dtype, x.double().dtype, x.half().dtype) == (np.int64, np.float32, float, np.float16)
        assert x.cpu().cuda().detach().to("cpu").tolist() == x.tolist()
        assert x.to(torch.float64).dtype == x.to("cuda", dtype=torch.float64).dtype == np.float64
        assert x.to(np.int64).dtype == x.to(torch.device("cpu"), torch.int64).dtype == np.int64
        assert x.clone().tolist() == whole.int().tolist() == x.numpy().tolist()
        assert x.numel() == np.size(x)
    assert boxes.cls.unique().tolist() == [0, 1]
    assert type(boxes.cls.numpy()) is np.ndarray
    assert type(boxes.cls[0].numpy()) is np.float32
    copied = boxes.xyxy.clone()
    copied[:] = 0
    assert boxes.xyxy[0].tolist() == ROWS[0][:4]


def test_elements_are_numbers_of_numpy(boxes: Boxes) -> None:
    score, number = boxes.conf[0], boxes.long().data[0, 5]
    assert (type(score), type(number)) == (Float, Whole)
    assert (score.item(), number.item(), float(score), int(number)) == (0.75, 1, 0.75, 1)
    assert np.array([score, score]).dtype == np.float32
    assert np.array([number]).dtype == np.int64
    assert round(score, 1) == np.float32(0.8)
    assert f"{score:.2f}" == "0.75"
    assert {0: "RBC", 1: "WBC"}[boxes.cls[0]] == ["RBC", "WBC"][number] == "WBC"
    assert torch.tensor([score, score]).tolist() == torch.as_tensor(boxes.conf)[[0, 0]].tolist() == [0.75, 0.75]
    assert [pickle.loads(pickle.dumps(x)) for x in (score, number)] == [copy.copy(score), copy.deepcopy(number)]  # noqa: S301
    assert pickle.loads(pickle.dumps(boxes)).conf.tolist() == copy.deepcopy(boxes).conf.tolist()  # noqa: S301


def test_numpy_stays_numpy(boxes: Boxes) -> None:
    assert (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).prod(1).max() == 20000
    assert boxes.conf.argmax() == 0
    assert boxes.conf.size == 3
    assert np.concatenate([boxes.conf, boxes.cls]).shape == (6,)
    assert boxes[boxes.conf > 0.3].cls.tolist() == [1, 0]
    assert len(boxes.long()[1]) == 1
    assert boxes.long()[1].data.dtype == np.int64


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("boxes.xyxynn", "Boxes has no 'xyxynn'; did you mean 'xyxyn'?"),
        ("boxes.unique", "Boxes has no 'unique': take boxes.cls.unique()"),
        ("boxes.zzz", "Boxes has no 'zzz'; it has clone, cls, conf, "),
        ("boxes.conf.unsqueeze", "Array has no 'unsqueeze': index with None, as in x[None]"),
        ("boxes.conf[0].clon", "Float has no 'clon'; did you mean 'clone'?"),
    ],
)
def test_what_there_is_not_names_the_nearest(boxes: Boxes, what: str, told: str) -> None:
    owner, _, name = what.rpartition(".")
    with pytest.raises(AttributeError) as caught:
        getattr({"boxes": boxes, "boxes.conf": boxes.conf, "boxes.conf[0]": boxes.conf[0]}[owner], name)
    assert str(caught.value).startswith(told)


def test_rows_that_are_no_boxes(boxes: Boxes) -> None:
    with pytest.raises(DataError, match=r"boxes of shape \(2, 7\): expected rows of 6 numbers, x1, y1, x2, y2, score"):
        Boxes(np.zeros((2, 7)), (10, 10))
    with pytest.raises(DataError, match="expected rows of 6 numbers"):
        boxes[:, :4]
    assert len(Boxes(np.zeros((0, 7)), (10, 10))) == 0
