"""COCO AP: hand-worked values, the two evaluators held equal, and what is said where there is nothing to say."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math

import numpy as np
import pytest

from gfldet.errors import ConfigError, DataError
from gfldet.metrics import coco
from gfldet.metrics.coco import evaluate, format_table, ground_truth

A, B = (0, 0, 100, 100), (200, 0, 300, 100)
BOTH = ["hotcoco", "pycocotools"]


def numbers(metrics):
    """Every number of the metrics in one array, per class too."""
    flat = [v for k, v in metrics.to_dict().items() if k != "per_class"]
    for row in metrics.to_dict()["per_class"]:
        flat += [v for k, v in row.items() if k != "name"]
    return np.array([np.nan if v is None else v for v in flat], float)


@pytest.mark.parametrize("evaluator", BOTH)
def test_perfect_detections(make_split, found, evaluator):
    split = make_split([[(0, A), (1, B)], [(0, (0, 0, 20, 20))]], category_ids=[7, 0])
    detections = [found(0, 7, A, 0.9), found(0, 0, B, 0.8), found(1, 7, (0, 0, 20, 20), 0.7)]
    m = evaluate(split, detections, evaluator)
    assert (m.map, m.map50, m.map75) == pytest.approx((1, 1, 1))
    assert (m.map_small, m.map_large) == pytest.approx((1, 1))
    assert math.isnan(m.map_medium)
    assert (m.precision, m.recall, m.f1, m.best_conf) == (1, 1, 1, 0.7)
    assert (m.truths, m.images) == (3, 2)
    assert [(c.name, c.category_id, c.truths, c.images, c.best_conf) for c in m.per_class] == [
        ("a", 7, 2, 2, 0.7),
        ("b", 0, 1, 1, 0.8),
    ]


@pytest.mark.parametrize("evaluator", BOTH)
def test_ap_by_hand(make_split, found, evaluator):
    # Two truths; right at .9 with IoU .6, wrong at .8, right at .7 exactly.
    split = make_split([[(0, A), (0, B)]], names=["a"])
    detections = [found(0, 0, (0, 0, 100, 60), 0.9), found(0, 0, (400, 0, 500, 100), 0.8), found(0, 0, B, 0.7)]
    m = evaluate(split, detections, evaluator)
    # IoU .5, .55, .6: precision 1 up to recall .5 (51 of 101 points), then 2/3.
    low = (51 + 50 * 2 / 3) / 101
    # above: 1 of 2 found, behind two wrong ones: 1/3 up to recall .5.
    high = 51 / 3 / 101
    assert m.map50 == pytest.approx(low, abs=1e-9)
    assert m.map75 == pytest.approx(high, abs=1e-9)
    assert m.map == pytest.approx((3 * low + 7 * high) / 10, abs=1e-9)
    assert m.per_class[0].ap == m.map
    # all three kept: P 2/3, R 1, F1 .8; the best alone: P 1, R .5, F1 2/3
    assert (m.precision, m.recall, m.f1, m.best_conf) == pytest.approx((2 / 3, 1, 0.8, 0.7))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hotcoco_equals_pycocotools(realistic, seed):
    split, detections = realistic(seed)
    fast, reference = (evaluate(split, detections, evaluator) for evaluator in BOTH)
    assert 0.1 < fast.map < 0.9
    assert fast.map50 > fast.map > 0
    np.testing.assert_allclose(numbers(fast), numbers(reference), rtol=0, atol=1e-12)


def test_it_is_what_anyone_computes_from_the_saved_files(realistic):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    split, detections = realistic(4)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(ground_truth(split)))
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(json.loads(json.dumps(detections))), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    m = evaluate(split, detections)
    ours = [m.map, m.map50, m.map75, m.map_small, m.map_medium, m.map_large]
    np.testing.assert_allclose(ours, run.stats[:6], rtol=0, atol=1e-12)


@pytest.mark.parametrize("evaluator", BOTH)
def test_image_ids_may_be_words_and_their_order_decides_ties(make_split, found, evaluator):
    # Equal scores: COCOeval takes the image with the lower id first, wherever it stands in the split.
    images = [[(0, A)], [(0, A)]]
    results = []
    for ids in ([1, 2], [2, 1], ["x", "y"], ["y", "x"], ["x", 5], [5, "x"]):
        split = make_split(images, names=["a"], image_ids=ids)
        detections = [found(ids[0], 0, A, 0.5), found(ids[1], 0, B, 0.5)]
        results.append(evaluate(split, detections, evaluator).map50)
    right_first, wrong_first = 51 / 101, 51 / 2 / 101
    expected = [right_first, wrong_first, right_first, wrong_first, wrong_first, right_first]
    assert results == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("evaluator", BOTH)
def test_ignore_regions_cost_nothing(make_split, found, evaluator):
    truths, detections = [[(0, A)]], [found(0, 0, A, 0.5), found(0, 0, B, 0.9), found(0, 1, B, 0.9)]
    strict = evaluate(make_split(truths), detections, evaluator)
    lenient = evaluate(make_split(truths, ignore={0: [(150, 0, 400, 200)]}), detections, evaluator)
    assert strict.map50 == pytest.approx(0.5)
    assert lenient.map50 == pytest.approx(1)
    assert (strict.precision, lenient.precision) == (0.5, 1)
    assert (lenient.truths, lenient.per_class[1].truths) == (1, 0)


@pytest.mark.parametrize("evaluator", BOTH)
def test_no_detections_is_zero_and_no_truths_is_nan(make_split, found, evaluator):
    nothing_found = evaluate(make_split([[(0, A)], []]), [], evaluator)
    assert (nothing_found.map, nothing_found.map_large, nothing_found.f1, nothing_found.recall) == (0, 0, 0, 0)
    assert math.isnan(nothing_found.map_small)
    assert math.isnan(nothing_found.best_conf)
    assert nothing_found.per_class[0].ap == 0
    assert math.isnan(nothing_found.per_class[1].ap)
    for split, detections in [
        (make_split([[]]), [found(0, 0, A, 0.9)]),
        (make_split([[]]), []),
        (make_split([]), []),
    ]:
        m = evaluate(split, detections, evaluator)
        assert all(math.isnan(v) for v in (m.map, m.map50, m.map_small, m.precision, m.recall, m.f1, m.best_conf))


@pytest.mark.parametrize("evaluator", BOTH)
def test_nothing_is_printed(realistic, capfd, evaluator):
    evaluate(*realistic(5), evaluator)
    assert capfd.readouterr() == ("", "")


def test_detections_are_left_as_they_are(realistic):
    split, detections = realistic(6)
    before = json.dumps(detections)
    for evaluator in BOTH:
        evaluate(split, detections, evaluator)
    assert json.dumps(detections) == before


def test_ground_truth_keeps_the_users_ids(make_split):
    split = make_split([[(1, A)], []], image_ids=["x", 8], category_ids=[91, 0], ignore={1: [(10, 20, 40, 60)]})
    truth = ground_truth(split)
    assert [image["id"] for image in truth["images"]] == ["x", 8]
    assert truth["images"][0] == {"id": "x", "file_name": "0.jpg", "width": 640, "height": 480}
    assert truth["categories"] == [{"id": 91, "name": "a"}, {"id": 0, "name": "b"}]
    first, *crowds = truth["annotations"]
    assert first == {
        "id": 1,
        "image_id": "x",
        "category_id": 0,
        "bbox": [0, 0, 100, 100],
        "area": 10000,
        "iscrowd": 0,
    }
    assert [(c["image_id"], c["category_id"], c["bbox"], c["iscrowd"]) for c in crowds] == [
        (8, 91, [10, 20, 30, 40], 1),
        (8, 0, [10, 20, 30, 40], 1),
    ]
    json.dumps(truth)


def test_plain_data_for_json(make_split, found):
    m = evaluate(make_split([[(0, A)]]), [found(0, 0, A, 0.5)])
    assert (m.box.map, m.box.mp, m.box.mr) == (m.map, m.precision, m.recall)
    np.testing.assert_array_equal(m.box.maps, [row.ap for row in m.per_class])
    assert m.results_dict["metrics/mAP50-95(B)"] == m.map
    assert list(m.results_dict.values()) == [m.precision, m.recall, m.map50, m.map]
    plain = m.to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain
    wanted = {"map", "map50", "map75", "map_small", "map_medium", "map_large", "precision", "recall", "f1", "best_conf"}
    wanted |= {"found", "score_iou", "score_iou_matched"}
    assert wanted | {"per_class", "truths", "images"} == set(plain)
    assert plain["map_small"] is None
    assert plain["map_large"] == pytest.approx(1)
    assert plain["per_class"][1] == {
        "name": "b",
        "category_id": 1,
        "truths": 0,
        "images": 0,
        **dict.fromkeys(("ap", "ap50", "precision", "recall", "f1", "best_conf")),
    }


def test_detailed_adds_curves_and_confusion(realistic):
    split, detections = realistic(7)
    short, full = evaluate(split, detections, detailed=False), evaluate(split, detections)
    assert short.curves == ()
    assert short.confusion is None
    np.testing.assert_array_equal(numbers(short), numbers(full))
    assert [curve.truths for curve in full.curves] == [row.truths for row in full.per_class]
    assert full.confusion.shape == (7, 7)
    assert full.confusion[:-1].sum() == full.truths


def test_the_best_threshold_is_an_actual_score_and_the_best(realistic):
    split, detections = realistic(8)
    m = evaluate(split, detections)
    assert m.best_conf in {d["score"] for d in detections}
    for row, curve in zip(m.per_class, m.curves, strict=True):
        if row.truths and not math.isnan(row.best_conf):
            assert row.best_conf in {d["score"] for d in detections if d["category_id"] == row.category_id}
            assert row.f1 == pytest.approx(2 * row.precision * row.recall / (row.precision + row.recall))
            assert row.f1 == curve.f1.max()


def test_bad_input(make_split, found):
    split = make_split([[(0, A)]])
    with pytest.raises(ConfigError, match="evaluator='coco' is unknown; use one of hotcoco, pycocotools"):
        evaluate(split, [], "coco")
    with pytest.raises(DataError, match="image_id 5"):
        evaluate(split, [found(5, 0, A, 0.5)])


@pytest.mark.parametrize("evaluator", BOTH)
def test_a_missing_evaluator_is_named(make_split, monkeypatch, evaluator):
    for name in (evaluator, f"{evaluator}.coco"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ConfigError, match=f"evaluator={evaluator} needs the package {evaluator}"):
        evaluate(make_split([[(0, A)]]), [], evaluator)


def test_the_table_is_aligned(make_split, found):
    split = make_split([[(0, A)]], names=["a", "a name that is much too long for a table"])
    lines = format_table(evaluate(split, [found(0, 0, A, 0.5)])).splitlines()
    assert lines[0].split() == ["class", "images", "truths", "P", "R", "F1", "conf", "AP50", "AP50-95"]
    assert lines[1].split() == ["all", "1", "1", "1.000", "1.000", "1.000", "0.500", "1.000", "1.000"]
    assert lines[2].split() == ["a", "1", "1", "1.000", "1.000", "1.000", "0.500", "1.000", "1.000"]
    assert lines[3].startswith("a name that is much to..")
    assert lines[3].split()[-6:] == ["-"] * 6
    assert len({len(line) for line in lines}) == 1


def test_frozen(make_split):
    m = evaluate(make_split([[]]), [])
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.map = 1.0


def test_no_confusion_matrix_of_very_many_classes(make_split, monkeypatch):
    """It grows with the square of the classes; all other numbers stay."""
    monkeypatch.setattr(coco, "MOST_CLASSES_CONFUSED", 5)
    names = [f"class {c}" for c in range(6)]
    found = [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}]
    images = [[(1, (0, 0, 10, 10))]]
    metrics = evaluate(make_split(images, names), found)
    assert metrics.confusion is None
    assert metrics.map == pytest.approx(1)
    assert (metrics.per_class[1].images, metrics.per_class[0].images) == (1, 0)
    assert evaluate(make_split(images, names[:-1]), found).confusion is not None
