"""Who found whom: hand-made cases, then the same hits as COCOeval on realistic detections."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from gfldet.errors import DataError
from gfldet.metrics.coco import ground_truth
from gfldet.metrics.matching import covered_share, match, pairwise_iou, truth_columns
from gfldet.metrics.table import read_results

SQUARE = (0, 0, 100, 100)


def run(split, detections, **options):
    return match(truth_columns(split), read_results(split, detections), **options)


def test_iou_and_share_by_hand():
    a = np.array([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    b = np.array([[0.0, 0, 10, 5], [5, 0, 15, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(pairwise_iou(a, b), [[0.5, 1 / 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(covered_share(a, b), [[0.5, 0.5, 0], [0, 0, 0]])


def test_iou_is_that_of_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    xywh = rng.uniform(1, 80, (40, 4))
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    np.testing.assert_allclose(pairwise_iou(xyxy[:15], xyxy[15:]), mask.iou(xywh[:15], xywh[15:], [0] * 25), atol=1e-12)
    np.testing.assert_allclose(
        covered_share(xyxy[:15], xyxy[15:]), mask.iou(xywh[:15], xywh[15:], [1] * 25), atol=1e-12
    )


def test_a_truth_is_found_once_by_the_surest(make_split, found):
    split = make_split([[(0, SQUARE)]])
    matches = run(split, [found(0, 0, SQUARE, 0.4), found(0, 0, (0, 0, 100, 90), 0.6)])
    assert matches.truth.tolist() == [-1, 0]


def test_a_detection_takes_the_best_free_truth(make_split, found):
    split = make_split([[(0, (0, 0, 100, 60)), (0, SQUARE)]])
    detections = [found(0, 0, SQUARE, 0.9), found(0, 0, SQUARE, 0.8), found(0, 0, SQUARE, 0.7)]
    assert run(split, detections).truth.tolist() == [1, 0, -1]


def test_class_image_and_threshold_count(make_split, found):
    split = make_split([[(0, SQUARE)], [(1, SQUARE)]])
    half = (0, 0, 100, 50)  # IoU exactly .5
    detections = [found(0, 1, SQUARE, 0.9), found(1, 0, SQUARE, 0.9), found(0, 0, half, 0.5), found(1, 1, half, 0.5)]
    assert run(split, detections).truth.tolist() == [-1, -1, 0, 1]
    assert run(split, detections, iou=0.51).truth.tolist() == [-1, -1, -1, -1]
    assert run(split, detections, any_class=True).truth.tolist() == [0, 1, -1, -1]


def test_ignore_regions_take_what_found_nothing(make_split, found):
    split = make_split([[(0, SQUARE)], []], ignore={0: [(0, 0, 300, 300)]})
    detections = [
        found(0, 0, SQUARE, 0.9),  # the truth, although it lies in the region
        found(0, 0, SQUARE, 0.8),  # a double inside the region
        found(0, 1, (200, 200, 280, 280), 0.7),  # any class, any number of them
        found(0, 0, (200, 200, 280, 280), 0.7),
        found(0, 0, (280, 0, 400, 100), 0.6),  # a sixth inside
        found(1, 0, SQUARE, 0.6),  # another image
    ]
    matches = run(split, detections)
    assert matches.truth.tolist() == [0, -1, -1, -1, -1, -1]
    assert matches.ignored.tolist() == [False, True, True, True, False, False]


def test_a_crowd_excuses_its_own_class_alone(make_split, found):
    split = make_split([[(0, SQUARE)]], ignore={0: [(0, 0, 300, 300)]}, ignore_classes={0: [1]})
    detections = [found(0, c, (200, 200, 280, 280), 0.7) for c in (0, 1)]
    assert run(split, detections).ignored.tolist() == [False, True]
    assert run(split, detections, any_class=True).ignored.tolist() == [True, True]


def test_nothing_to_match(make_split, found):
    empty = make_split([[], []])
    assert run(empty, []).truth.shape == (0,)
    assert run(empty, [found(1, 0, SQUARE, 0.5)]).truth.tolist() == [-1]
    assert run(make_split([]), []).truth.shape == (0,)


def test_unknown_ids_are_all_named(make_split, found):
    split = make_split([[]], image_ids=["x"], category_ids=[7, 9])
    detections = [found("x", 7, SQUARE, 0.5), found("y", 7, SQUARE, 0.5), found("x", 8, SQUARE, 0.5), {"image_id": "x"}]
    with pytest.raises(DataError) as error:
        read_results(split, detections)
    text = str(error.value)
    assert "detection 1: image_id 'y'" in text
    assert "detection 2: category_id 8" in text
    assert "detection 3: no category_id (its keys: image_id)" in text
    assert "detection 0" not in text


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_hits_as_cocoeval(realistic, seed):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    split, detections = realistic(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth(split)
        truth.createIndex()
        run_ = COCOeval(truth, truth.loadRes([dict(d) for d in detections]), "bbox")
        run_.params.maxDets = [1, 10, 1000]
        run_.evaluate()
    hits, ignored = np.zeros(len(detections), bool), np.zeros(len(detections), bool)
    for image in run_.evalImgs:
        if image is not None and image["aRng"] == run_.params.areaRng[0]:
            rows = np.array(image["dtIds"], int) - 1
            ignored[rows] = image["dtIgnore"][0]
            hits[rows] = (image["dtMatches"][0] > 0) & ~image["dtIgnore"][0]
    matches = run(split, detections)
    assert hits.any()
    assert ignored.any()
    np.testing.assert_array_equal(matches.truth >= 0, hits)
    np.testing.assert_array_equal(matches.ignored, ignored)
