"""Plots: what is read and computed for them, and that odd input gives a picture or a clear error."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from gfldet.errors import DataError, OutputError
from gfldet.viz import plots

HEADER = (
    "epoch,time,train/box_loss,train/cls_loss,train/dfl_loss,metrics/precision,metrics/recall,"
    "metrics/mAP50,metrics/mAP50-95,metrics/mAP75,lr"
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small pictures: they are written faster."""
    monkeypatch.setattr(plots, "_DPI", 30)


def check(path):
    """The file is a picture and not blank."""
    image = cv2.imread(str(path))
    assert image is not None
    assert image.std() > 1


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "\n1,3.2,3,4,2,.1,.2,.15,.1,.1,1e-3\n2,6.1,2,3,1.5,.3,.2,.25,.2,.2,1e-3\n",
        HEADER + "\n1,3.2,3,4,2,nan,nan,nan,nan,nan,1e-3\n2,3,inf,,x,.1,.2\n",  # cells without a number, a cut row
        "lr, train/box_loss\n1e-3, 5\n1e-3, 4\n",
        HEADER + "\n",
    ],
)
def test_results_of_any_shape(tmp_path, text):
    (tmp_path / "results.csv").write_text(text)
    plots.plot_results(tmp_path / "results.csv", tmp_path / "plots" / "results.png")
    check(tmp_path / "plots" / "results.png")


def test_columns_are_read_by_name(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(" epoch, lr, extra\n1, 0.5, x\n2, inf, y\n")
    columns = plots.read_columns(path)
    assert set(columns) == {"epoch", "lr"}
    np.testing.assert_array_equal(columns["lr"], [0.5, np.nan])


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        plots.plot_results(tmp_path / "none.csv", tmp_path / "a.png")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"binary\.csv"):
        plots.plot_results(tmp_path / "binary.csv", tmp_path / "a.png")


def test_envelope_by_hand():
    grid = np.linspace(0, 1, 11)
    line = plots.envelope([0.25, 0.25, 0.5, 0.75], [1, 0.5, 0.6, 0.75], grid)
    np.testing.assert_allclose(line, [1, 1, 1, 0.75, 0.75, 0.75, 0.75, 0.75, 0, 0, 0])
    assert plots.envelope([], [], grid).tolist() == [0] * 11


def test_thresholds_by_hand():
    grid = np.array([0.0, 0.3, 0.5, 0.6, 0.9, 1.0])
    np.testing.assert_allclose(plots.at_thresholds([0.9, 0.5], [0.1, 0.7], grid), [0.7, 0.7, 0.7, 0.1, 0.1, 0])
    assert plots.at_thresholds([], [], grid).tolist() == [0] * 6


@pytest.mark.parametrize("classes", [1, pytest.param(80, marks=pytest.mark.long)])
def test_curves_of_few_and_many_classes(tmp_path, classes):
    rng = np.random.default_rng(0)
    scores = [np.sort(rng.random(30))[::-1] for _ in range(classes)]
    recall = [np.sort(rng.random(30)) for _ in range(classes)]
    precision = [rng.random(30) for _ in range(classes)]
    names = [f"class {c}" for c in range(classes)]
    plots.plot_precision_recall(tmp_path / "pr.png", recall, precision, names, [0.5] * classes)
    panels = {"precision": precision, "recall": recall}
    plots.plot_confidence(tmp_path / "conf.png", scores, panels, names, best_conf=0.4)
    check(tmp_path / "pr.png")
    check(tmp_path / "conf.png")


def test_empty_and_absent_classes(tmp_path):
    nan = float("nan")
    for lines, ap50 in [([None, ()], [nan, 0.0]), ([None, None], [nan, nan])]:
        plots.plot_precision_recall(tmp_path / "pr.png", lines, lines, ["a", "b"], ap50)
        plots.plot_confidence(tmp_path / "conf.png", lines, {"F1": lines}, ["a", "b"])
        check(tmp_path / "pr.png")
        check(tmp_path / "conf.png")


@pytest.mark.parametrize("classes", [1, pytest.param(31, marks=pytest.mark.long)])
def test_confusion_of_few_and_many_classes(tmp_path, classes):
    matrix = np.eye(classes + 1) * 12
    plots.plot_confusion(tmp_path / "confusion.png", matrix, [f"class {c}" for c in range(classes)])
    check(tmp_path / "confusion.png")


def test_names_are_shown_literally(tmp_path):
    names = ["$5", "a$b$c", "_hidden", "猫", "%s {x} \\frac"]
    curve = [[0.5]] * len(names)
    plots.plot_precision_recall(tmp_path / "pr.png", curve, curve, names, [0.5] * len(names))
    plots.plot_confusion(tmp_path / "confusion.png", np.zeros((6, 6)), names)
    check(tmp_path / "pr.png")


def test_light_colours_are_darker_on_white():
    assert plots._colour(0) == pytest.approx((230 / 255, 159 / 255, 0))
    assert plots._colour(3) == pytest.approx((0.8 * 240 / 255, 0.8 * 228 / 255, 0.8 * 66 / 255))


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="the plot cannot be written"):
        plots.plot_confusion(tmp_path / "file" / "a.png", [[1, 0], [0, 0]], ["a"])
    with pytest.raises(OutputError, match="the plot cannot be written"):
        plots.plot_confusion(tmp_path / "a.mp4", [[1, 0], [0, 0]], ["a"])


@pytest.mark.long
def test_matplotlib_is_loaded_late_and_without_pyplot(tmp_path):
    code = (
        "import sys, gfldet.viz.plots as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"p.plot_confusion({str(tmp_path / 'a.png')!r}, [[1, 0], [0, 0]], ['a'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
