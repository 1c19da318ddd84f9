"""tools/bench: its arithmetic, its inputs and its walls; the peer itself is not here, so nothing is compared."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import gfldet
from gfldet.data.gather import open_image
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.ops.points import anchor_points, grids

TOOLS = Path(gfldet.__file__).parents[1] / "tools"


@pytest.fixture
def yolo_data(tmp_path: Path) -> Path:
    """Two training images and one to validate on, with hand-written labels."""
    rows = {"train/a": "0 0.5 0.5 0.5 0.25\n1 0.25 0.25 0.1 0.2\n", "train/b": "", "val/c": "1 0.5 0.5 0.2 0.2\n"}
    for number, (name, text) in enumerate(rows.items()):
        image, label = tmp_path / "images" / f"{name}.png", tmp_path / "labels" / f"{name}.txt"
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.full((40 + 8 * number, 64, 3), 60 * number, np.uint8))
        label.write_text(text)
    path = tmp_path / "mine.yaml"
    path.write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return path


def test_ratio_is_of_the_medians_and_above_one_where_ours_is_better() -> None:
    from measure.bench.table import Row

    time = Row("t", "s", [2.0, 1.0, 9.0], [20.0, 30.0, 10.0], target=10)
    assert time.ratio == 10
    assert time.met
    rate = Row("r", "images/s", [30.0], [20.0], more_is_better=True, target=2)
    assert rate.ratio == 1.5
    assert rate.met is False
    assert Row("t", "s", [1.0], [20.0], target=10, broken="torch is loaded").met is False
    assert Row("t", "s", [1.0], [], target=10).met is None
    assert Row("t", "s", [1.0], [0.0], target=10).ratio is None


def test_accuracy_is_held_to_a_figure_of_its_own() -> None:
    from measure.bench.table import Row

    assert Row("AP", "AP", [0.58], [0.9], more_is_better=True, at_least=0.57).met
    assert Row("AP", "AP", [0.56], [0.1], more_is_better=True, at_least=0.57).met is False


def test_table_shows_median_best_ratio_target_and_verdict() -> None:
    from measure.bench.table import Row, markdown, plain

    row = Row("help", "s", [0.2, 0.1, 0.4], [4.0], target=15, note="no torch")
    table = markdown([row], {"machine": "abacus"}).splitlines()
    assert table[0].startswith("machine: abacus")
    assert "| help | 0.2 (0.1) s | 4 s | 20x | 15x | yes | no torch |" in table
    data = json.loads(json.dumps(plain([row], {}), allow_nan=False))
    assert data["rows"][0]["ours"] == [0.2, 0.1, 0.4]
    assert data["rows"][0]["ratio"] == 20


def test_each_peer_has_a_table() -> None:
    from measure.bench.table import Row, markdown

    rows = [Row("a", "s", [1.0], [2.0]), Row("b", "s", [1.0], [3.0], peer="other 1"), Row("c", "s", [1.0], [4.0])]
    lines = markdown(rows, {}).splitlines()
    heads = [line.split(" | ")[2] for line in lines if line.startswith("| what")]
    assert heads == ["ultralytics 8.4.190", "other 1"]
    assert [line[2] for line in lines if line.startswith("| ") and " s | " in line] == ["a", "c", "b"]


def test_problem_is_the_same_for_one_seed_and_like_what_a_head_predicts() -> None:
    from measure.bench.problem import STRIDES, draw

    one, two = draw(1, 20, 5, 320, seed=3), draw(1, 20, 5, 320, seed=3)
    assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in one.__dataclass_fields__)
    levels = grids([(320 // stride, 320 // stride) for stride in STRIDES], STRIDES)
    assert np.array_equal(one.points, anchor_points(levels)[0].numpy())
    assert one.truths.min() >= 0
    assert one.truths.max() <= 320
    assert (one.truths[..., 2:] - one.truths[..., :2]).min() > 2
    inside = (one.boxes[..., 0] < one.points[:, 0]) & (one.boxes[..., 2] > one.points[:, 0])
    assert inside.all()  # every predicted box holds its own point, as ltrb sides above 0 make it
    overlap = _best_overlap(one.boxes[0], one.truths[0])
    found = overlap > 0.4
    assert 0.2 < found.mean() < 0.8  # some points lie in truths and know them, others see background
    assert 0.6 < np.median(overlap[found]) < 0.9
    known = np.sort(one.logits[0], axis=1)[:, -1]
    assert known[found].mean() > known[~found].mean() + 1


def _best_overlap(boxes: np.ndarray, truths: np.ndarray) -> np.ndarray:
    low, high = np.maximum(boxes[:, None, :2], truths[:, :2]), np.minimum(boxes[:, None, 2:], truths[:, 2:])
    inter = np.clip(high - low, 0, None).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, truths)]
    return (inter / (areas[0][:, None] + areas[1] - inter)).max(1)


def test_assigner_is_measured_on_a_saved_problem(tmp_path: Path) -> None:
    from measure.bench.ours import assigner
    from measure.bench.problem import draw

    draw(2, 5, 3, 96, seed=0).save(tmp_path / "problem.npz")
    found = assigner(str(tmp_path / "problem.npz"), threads=torch.get_num_threads(), repeats=2, size=96)
    assert len(found["seconds"]) == 2
    assert 2 * 5 <= found["positives"] <= 2 * 5 * 10  # each truth has a point, none has more than topk
    json.dumps(found)


def test_copy_for_the_peer_holds_the_same_images_and_truths(yolo_data: Path, tmp_path: Path) -> None:
    from measure.bench.export import export

    copy = load_spec(export(str(yolo_data), tmp_path / "copy"))
    original = load_spec(yolo_data)
    assert copy.names == original.names
    for name in ("train", "val"):
        pairs = zip(load_split(original, name).records, load_split(copy, name).records, strict=True)
        for number, (mine, theirs) in enumerate(pairs):
            assert theirs.path.name == f"{number:06d}.png"
            assert np.array_equal(open_image(mine.path), open_image(theirs.path))
            assert np.array_equal(mine.classes, theirs.classes)
            np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=1e-4)


def test_score_is_one_for_the_truth_itself_and_nothing_for_the_wrong_class(yolo_data: Path) -> None:
    from measure.bench.score import average_precision

    split = load_split(load_spec(yolo_data), "train")
    truth = [
        {"image_id": r.image_id, "category_id": int(c), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9}
        for r in split.records
        for (x1, y1, x2, y2), c in zip(r.boxes.tolist(), r.classes, strict=True)
    ]
    assert average_precision(split, truth) == pytest.approx(1)
    assert average_precision(split, [{**one, "category_id": 1 - one["category_id"]} for one in truth]) == 0
    assert average_precision(split, []) == 0


def test_versions_are_those_of_the_packages() -> None:
    from measure.bench.probe import versions

    own = {"gfldet": gfldet.__version__, "torch": torch.__version__}
    assert versions("gfldet") == {**own, "numpy": np.__version__, "cv2": cv2.__version__}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_extra_memory_is_that_of_the_peak(run_tool: Callable[..., str]) -> None:
    # In a process of its own, as the bench does it: here, memory that other tests have freed would serve.
    script = (
        "import numpy; from measure.bench.probe import extra_memory; print(extra_memory(lambda: numpy.ones(2**23)))"
    )
    found = run_tool("-c", script)
    assert 30 < float(found) < 80  # 64 MB, gone again after the call


def test_peer_runs_offline_with_a_home_of_its_own_and_without_our_checkout(tmp_path: Path) -> None:
    from measure.bench.sides import peer_side

    variables = peer_side(tmp_path, Path("/elsewhere/bin/python")).variables
    assert variables["YOLO_OFFLINE"] == "true"
    assert all(tmp_path in Path(variables[name]).parents for name in ("HOME", "YOLO_CONFIG_DIR", "MPLCONFIGDIR"))
    assert variables["PYTHONPATH"] == str(TOOLS)


def test_a_failed_command_is_told_with_what_it_said(tmp_path: Path) -> None:
    from measure.bench.sides import BenchError, Side

    side = Side("gfldet", "ours", Path(sys.executable), (sys.executable, "-c"), tmp_path)
    with pytest.raises(BenchError, match=r"exit code 3 of: .*\nno luck"):
        side.seconds("print('no luck'); raise SystemExit(3)")
    assert side.seconds("pass") > 0


def test_only_the_side_of_a_peer_imports_it() -> None:
    importers = set()
    for file in (TOOLS / "measure" / "bench").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)]
            packages = {str(module).split(".")[0] for module in modules} & {"ultralytics", "libreyolo"}
            importers |= {(file.name, package) for package in packages}
    assert importers == {("theirs.py", "ultralytics"), ("libre.py", "libreyolo")}


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["tain"], "no such part: tain; there are help"), (["--out", "a.csv"], "ends in .md or .json")],
)
def test_wrong_arguments_are_told(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    from measure.bench.__main__ import arguments

    with pytest.raises(SystemExit, match="2"):
        arguments(argv)
    assert message in capsys.readouterr().err


def test_accuracy_is_measured_when_asked_for_only() -> None:
    from measure.bench.__main__ import arguments
    from measure.bench.rows import PARTS

    assert arguments([]).parts == [part for part in PARTS if part not in ("accuracy", "scale", "libre")]
    assert arguments(["accuracy", "help"]).parts == ["accuracy", "help"]


@pytest.mark.parametrize(
    "what",
    [
        *("images", "detections", "evaluated"),
        *(pytest.param(what, marks=pytest.mark.long) for what in ("truths", "classes", "side")),  # of a whole model
    ],
)
def test_every_series_is_measured(what: str) -> None:
    from measure.bench.scales import SIZES, WHAT, scale

    assert list(SIZES[what]) == sorted(SIZES[what])
    assert WHAT[what]
    assert all(seconds > 0 for seconds in scale(what, 32, 1)["seconds"])


@pytest.mark.long
def test_the_slope_is_the_power_of_the_last_step(tmp_path: Path) -> None:
    from measure.bench.growth import draw, last_slope

    assert last_slope([(10, 9.0), (100, 1.0), (1000, 100.0)]) == pytest.approx(2)
    assert last_slope([(2, 1.0), (4, 1.0)]) == 0
    draw(tmp_path / "growth.png", {"side": [(320, 0.1), (640, 0.4)], "truths": [(10, 0.1), (100, 1.0)]})
    assert cv2.imread(str(tmp_path / "growth.png")) is not None


def test_minutes_to_an_ap_are_those_of_the_first_epoch_that_has_it(tmp_path: Path) -> None:
    from measure.bench.rows import minutes_to

    (tmp_path / "results.csv").write_text("epoch,time,metrics/mAP50-95\n1,60,\n2,120,0.5\n3,180,0.4\n4,240,0.6\n")
    assert minutes_to(0.5, tmp_path / "results.csv") == [2]
    assert minutes_to(0.55, tmp_path / "results.csv") == [4]
    assert minutes_to(0.7, tmp_path / "results.csv") == []


def test_epochs_are_timed_by_the_run_s_own_table(tmp_path: Path) -> None:
    from measure.bench.waits import epoch_times

    (tmp_path / "results.csv").write_text("  epoch,  time\n 1, 10.5\n 2, 14\n 3, 18.5\n")
    assert epoch_times(tmp_path / "results.csv") == [3.5, 4.5]
