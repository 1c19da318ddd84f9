"""The web page in headless Chromium: that it draws the boxes that `predict` finds.

The tests need Debian's chromium and chromium-driver, and onnxruntime-web in a folder that the variable
GFLDET_NODE_MODULES names (tools/browser sees to both).  Without them they are skipped, unless GFLDET_BROWSER is
`required`.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfldet import Model
from gfldet.detect import exported
from gfldet.ops import letterbox

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

local = pytest.mark.allow_hosts(["127.0.0.1", "::1"])


def compare(record: dict[str, Any], path: Path, model: Model, threshold: float) -> None:
    """The page and `predict` agree: within .1 px and .001; where decoders may differ, .5 px and .005."""
    (results,) = model.predict(str(path), conf=threshold, save=False, verbose=False)
    lossless = path.suffix == ".png" and path.name != "glass.png"
    px, score = (0.1, 1e-3) if lossless else (0.5, 5e-3)
    assert (record["height"], record["width"]) == results.orig_shape
    assert [box["class"] for box in record["boxes"]] == results.boxes.cls.int().tolist()
    assert [box["name"] for box in record["boxes"]] == [model.names[box["class"]] for box in record["boxes"]]
    np.testing.assert_allclose([box["box"] for box in record["boxes"]], results.boxes.xyxy, rtol=0, atol=px)
    np.testing.assert_allclose([box["score"] for box in record["boxes"]], results.boxes.conf, rtol=0, atol=score)


def site_of(page: Path, modules: Path, folder: Path, **changes: Any) -> Path:
    """The page with another card, in its own file and in the model's."""
    import onnx

    shutil.copytree(page, folder)
    (folder / "node_modules").symlink_to(modules)
    card = replace(exported.load(page / "model.onnx").card, **changes)
    (folder / "card.json").write_text(json.dumps(card.to_dict()), encoding="utf-8")
    graph = onnx.load(str(folder / "model.onnx"))
    onnx.helper.set_model_props(graph, card.to_text())
    onnx.save(graph, str(folder / "model.onnx"))
    return folder


@local
def test_the_page_draws_the_boxes_of_predict(opened: Any, page: Path, images: dict[str, Path]) -> None:
    model = Model(page / "model.onnx")
    records = opened.look_at(*images.values())
    for name, path in images.items():
        compare(records[name], path, model, 0.25)
        assert len(records[name]["boxes"]) == 2
    opened.set_threshold(0.5)
    for name, record in opened.drawn().items():
        assert [box["name"] for box in record["boxes"]] == ["red"]
        compare(record, images[name], model, 0.5)
    opened.one("#classes button").click()  # red, which is hidden then
    assert all(record["boxes"] == [] for record in opened.drawn().values())
    origins = "return performance.getEntriesByType('resource').map(entry => new URL(entry.name, location).origin)"
    own = opened.run("return location.origin")
    assert set(opened.run(origins)) <= {own, "null"}


@local
def test_boxes_are_on_the_canvas_and_names_are_text(opened: Any, images: dict[str, Path]) -> None:
    record = opened.look_at(images["large.png"])["large.png"]
    pixel = """
        const canvas = document.querySelector("canvas.boxes");
        const [x1, y1, , y2] = arguments[0].map((value) => (value * canvas.width) / arguments[1]);
        return [...canvas.getContext("2d").getImageData(x1, (y1 + y2) / 2, 1, 1).data];
    """
    orange, sky = [opened.run(pixel, box["box"], 300) for box in record["boxes"]]
    assert orange == [230, 159, 0, 255]
    assert sky == [86, 180, 233, 255]
    assert opened.one(".summary").text == "2 boxes: 1 red, 1 blue <b>"
    assert opened.status() == "large.png: 2 boxes: 1 red, 1 blue <b>"
    assert not opened.all("b")
    assert re.search(r"300 × 200 px · prepared in [\d.]+ ms, model [\d.]+ ms, total", opened.one(".times").text)


@local
def test_what_is_no_image_is_told_and_the_rest_goes_on(opened: Any, images: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not an image", encoding="utf-8")
    opened.one("#files").send_keys(f"{broken}\n{images['small.png']}")
    opened.until(lambda: opened.drawn())
    assert opened.problems() == ["broken.png is no image that this browser can read"]
    assert list(opened.drawn()) == ["small.png"]
    assert len(opened.all("figure")) == 1


@local
def test_the_camera_s_picture_is_looked_at_until_it_is_stopped(opened: Any, page_names: tuple[str, ...]) -> None:
    opened.one("#camera").click()
    opened.until(lambda: "frames/s" in opened.one("figure .times").text)
    record = opened.drawn()["Camera"]
    assert [box["name"] for box in record["boxes"]] == list(page_names)
    left, top, right, bottom = np.array(record["boxes"][0]["box"]) / [320, 240, 320, 240]
    np.testing.assert_allclose([left, top, right, bottom], [0.03, 0.04, 0.40, 0.50], atol=0.02)
    opened.one("#camera").click()
    assert opened.status() == "The camera is off"
    assert not opened.all("figure")
    refuse = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', arguments[0]))"
    for name, said in (("NotAllowedError", "The camera was refused"), ("NotFoundError", "This machine has no camera")):
        opened.run(refuse, name)
        opened.one("#camera").click()
        opened.until(lambda said=said: opened.problems() and opened.problems()[0].startswith(said))


@local
def test_images_may_be_dropped_and_pasted_and_cleared_away(opened: Any, images: dict[str, Path]) -> None:
    hand_in = """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], arguments[1], { type: "image/png" }));
        const drop = new DragEvent("drop", { dataTransfer: data, cancelable: true });
        const paste = new ClipboardEvent("paste", { clipboardData: data });
        return document.dispatchEvent(arguments[1] === "dropped.png" ? drop : paste);
    """
    text = base64.b64encode(images["small.png"].read_bytes()).decode()
    assert opened.run(hand_in, text, "dropped.png") is False  # or the browser would open the file
    opened.run(hand_in, text, "pasted.png")
    opened.until(lambda: len(opened.drawn()) == 2)
    records = opened.drawn()
    assert records["dropped.png"]["boxes"] == records["pasted.png"]["boxes"]
    opened.one("#clear").click()
    assert not opened.all("figure")


@local
def test_the_page_loads_nothing_from_elsewhere(
    opened: Any, page: Path, serve: Callable[[Path], str], asked: list[str]
) -> None:
    elsewhere = f"{serve(page)}/card.json"
    asking = f"fetch('{elsewhere}').then(() => 'came', () => 'refused')"
    opened.run(f"window.answer = null; {asking}.then((word) => {{ window.answer = word; }})")
    assert opened.until(lambda: opened.run("return window.answer")) == "refused"
    in_a_worker = f"""
        const script = new Blob([`postMessage(await {asking})`], {{ type: "text/javascript" }});
        const worker = new Worker(URL.createObjectURL(script), {{ type: "module" }});
        worker.onmessage = ({{ data }}) => arguments[0](data);
    """
    assert opened.browser.execute_async_script(in_a_worker) == "refused"
    assert elsewhere.removeprefix("http://") not in asked


@local
def test_the_worker_stands_under_the_policy_of_the_page(shown: Any, address: str) -> None:
    """As the one of the test above does: it is started from a blob, for one from a file would be free."""
    note = """
        window.started = [];
        window.Worker = class extends Worker {
          constructor(address, options) {
            super(address, options);
            window.started.push(String(address));
          }
        };
    """
    added = shown.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": note})
    shown.open(address)
    shown.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    (started,) = shown.run("return window.started")
    assert started.startswith(f"blob:{address}/")


@local
def test_without_onnxruntime_web_the_page_says_what_to_type(
    shown: Any, page: Path, tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(page, bare)
    shown.open(serve(bare))
    assert shown.problems() == [
        "onnxruntime-web is missing. In the folder of this page type: npm install",
    ]
    assert not shown.one("#camera").is_enabled()


@local
def test_a_model_of_one_frame_and_a_fixed_batch(
    shown: Any,
    modules: Path,
    images: dict[str, Path],
    tmp_path: Path,
    serve: Callable[[Path], str],
    export_finder: Callable[..., Path],
) -> None:
    folder = export_finder(tmp_path / "fixed", dynamic="none", batch=2, imgsz=[96, 160], conf=0.3)
    (folder / "node_modules").symlink_to(modules)
    shown.open(serve(folder))
    assert shown.one("#threshold").get_attribute("value") == "0.3"
    record = shown.look_at(images["tall.png"])["tall.png"]
    compare(record, images["tall.png"], Model(folder / "model.onnx"), 0.3)


@local
def test_the_page_obeys_its_card(
    shown: Any,
    page: Path,
    modules: Path,
    images: dict[str, Path],
    tmp_path: Path,
    serve: Callable[[Path], str],
) -> None:
    """In BGR with the grey levels halved, a red picture is a dim blue one to the model, on another grey."""
    halved = "(x - [0, 10, 0]) / [510, 300.5, 255]"
    site = site_of(page, modules, tmp_path / "bgr", channels="BGR", normalisation=halved, pad_colour=20)
    shown.open(serve(site))
    shown.set_threshold(0.01)
    names = ("large.png", "tall.png")
    records = shown.look_at(*(images[name] for name in names))
    plain = Model(page / "model.onnx")
    for name in names:
        compare(records[name], images[name], Model(site / "model.onnx"), 0.01)
        (other,) = plain.predict(str(images[name]), conf=0.01, save=False, verbose=False)
        assert abs(records[name]["boxes"][0]["score"] - float(other.boxes.conf[0])) > 0.05


@local
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "gfldet-export-9"}, "has the format gfldet-export-9, this page reads gfldet-export-1"),
        ({"channels": "GBR"}, "asks for channels GBR"),
        ({"normalisation": "x - 1"}, "asks for the normalisation x - 1"),
        ({"pad_colour": 300}, "asks for the padding 300"),
    ],
)
def test_the_page_refuses_by_name_what_it_cannot_obey(
    shown: Any,
    page: Path,
    modules: Path,
    tmp_path: Path,
    serve: Callable[[Path], str],
    changes: dict[str, Any],
    told: str,
) -> None:
    shown.open(serve(site_of(page, modules, tmp_path / "odd", **changes)))
    (problem,) = shown.problems()
    assert told in problem
    assert "Export the page again" in problem


@local
def test_images_are_resized_as_opencv_does(opened: Any) -> None:
    """To the grey level with the OpenCV of today; one level is left to others, whose rounding differs."""
    resize = """
        const [text, sizes, done] = arguments;
        const pixels = Uint8ClampedArray.from(atob(text), (letter) => letter.charCodeAt(0));
        import("./letterbox.js").then(({ resize }) => {
          done(btoa(Array.from(resize(pixels, ...sizes), (value) => String.fromCharCode(value)).join("")));
        });
    """
    grow = [(20, 30, 40, 60), (33, 17, 64, 33), (1, 5, 13, 64), (50, 60, 53, 64)]
    shrink = [(64, 96, 32, 48), (90, 60, 30, 20), (101, 77, 64, 49), (100, 150, 99, 149), (7, 200, 2, 64)]
    for number, (height, width, new_height, new_width) in enumerate(grow + shrink):
        image = np.random.default_rng(number).integers(0, 256, (height, width, 4), np.uint8)
        text = base64.b64encode(image.tobytes()).decode()
        answer = opened.browser.execute_async_script(resize, text, [height, width, new_height, new_width])
        ours = np.frombuffer(base64.b64decode(answer), np.uint8).reshape(new_height, new_width, 4)[..., :3]
        theirs = letterbox.resize(image[..., :3].copy(), new_height, new_width)
        assert np.abs(ours.astype(int) - theirs).max() <= 1
