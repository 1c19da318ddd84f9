"""The web page: what its folder holds, and in headless Chromium that it draws the boxes that `predict` finds.

The browser's tests need Debian's chromium and chromium-driver, and onnxruntime-web in a folder that the variable
GFLDET_NODE_MODULES names (tools/browser sees to both).  Without them they are skipped, unless GFLDET_BROWSER is
`required`.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gfldet import Model
from gfldet.config.load import resolve
from gfldet.detect import card as cards
from gfldet.detect import exported
from gfldet.errors import OutputError
from gfldet.export import job, web
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.ops import letterbox
from gfldet.ops.decode import Decoded

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = 128
NAMES = ("red", "blue <b>")  # a name that would be seen if the page took it for HTML
COLOURS = ((255, 0, 0), (0, 0, 255))
MODEL = """\
nc: 2
reg_max: 8
backbone:
  - [-1, 1, Conv, [8, 3, 8]]
  - [-1, 1, Conv, [8, 3, 4]]
head:
  - [[0, 1], 1, GFLHead, [nc]]
"""
PAGE_FILES = {path.name for path in web.PAGE.iterdir()}


class ColourFinder(DetectionModel):
    """A box around the pixels of each class's colour, from their mean and spread, so that every grey level counts.

    The score of the red box is its colour's purity, dimmed by a dark frame so that padding counts too; that of the blue
    one is half as high.
    """

    def predict(self, x: Tensor) -> Any:
        return self.decode(x).stacked(), []

    def decode(self, x: Tensor, keep_bins: bool = False) -> Decoded:
        ones = torch.ones_like(x[:, 0])
        columns, rows = ones.cumsum(2) - 0.5, ones.cumsum(1) - 0.5
        found = []
        for c, colour in enumerate(COLOURS):
            wanted = torch.tensor(colour, dtype=x.dtype).view(1, 3, 1, 1) / 255
            weight = (1 - 2 * (x - wanted).abs().amax(1)).clamp(min=0)
            total = weight.sum((1, 2)) + 1e-6
            middle = [((weight * place).sum((1, 2)) / total).view(-1, 1, 1) for place in (columns, rows)]
            spread = [
                (12 * (weight * (place - m) ** 2).sum((1, 2)) / total).sqrt()
                for place, m in zip((columns, rows), middle, strict=True)
            ]
            purity = (weight * weight).sum((1, 2)) / total
            score = purity * (1 + x.mean((1, 2, 3))) / 2 / (c + 1)
            scores = [score if k == c else torch.zeros_like(score) for k in range(self.nc)]
            found.append(torch.stack([*(m.flatten() for m in middle), *spread, *scores], dim=1))
        stacked = torch.stack(found, dim=2)
        return Decoded(stacked[:, :4], stacked[:, 4:])


def export_finder(folder: Path, **settings: Any) -> Path:
    """The page of the colour finder, in `folder`."""
    yaml = folder.with_suffix(".yaml")
    yaml.write_text(MODEL, encoding="utf-8")
    finder = ColourFinder(read_description(yaml), NAMES)
    given = {"model": "finder.pt", "format": "web", "out": str(folder), "imgsz": SIZE, "verbose": False, "threads": 1}
    return job.export(job.Subject(finder, "finder.pt", (0, 1)), resolve("export", given | settings))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_finder(tmp_path_factory.mktemp("web") / "page")


def picture(width: int, height: int, transparent: bool = False) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, or with A: grey noise, a red rectangle at the upper left and a blue one at the lower right."""
    noise = np.random.default_rng(width).integers(70, 120, (height, width, 1), np.uint8)
    image = np.repeat(noise, 4 if transparent else 3, axis=2)
    for colour, (left, top, right, bottom) in zip(COLOURS, ((3, 4, 40, 50), (55, 45, 92, 97)), strict=True):
        area = image[height * top // 100 : height * bottom // 100, width * left // 100 : width * right // 100]
        area[...] = (*colour, 255)[: area.shape[2]]
    return image


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Image files by name: larger and smaller than the frame, of just its size, of odd sizes, turned, transparent."""
    folder = tmp_path_factory.mktemp("images")
    sizes = {"large.png": (300, 200), "small.png": (51, 40), "equal.png": (128, 96), "tall.png": (77, 301)}
    for name, (width, height) in sizes.items():
        Image.fromarray(picture(width, height)).save(folder / name)
    Image.fromarray(picture(90, 60, transparent=True)).save(folder / "glass.png")
    Image.fromarray(picture(333, 127)).save(folder / "odd.jpg", quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    Image.fromarray(picture(200, 120)).save(folder / "turned.jpg", quality=95, exif=turned)
    return {path.name: path for path in sorted(folder.iterdir())}


# Without a browser.


def test_the_folder_holds_the_page_the_model_and_its_card(page: Path) -> None:
    assert {path.name for path in page.iterdir()} == PAGE_FILES | {"model.onnx", "card.json"}
    for name in PAGE_FILES:
        assert (page / name).read_bytes() == (web.PAGE / name).read_bytes()
    card = exported.load(page / "model.onnx").card
    assert json.loads((page / "card.json").read_text(encoding="utf-8")) == card.to_dict()
    assert (card.layout, card.dynamic, card.conf) == ("detections", "all", 0.001)


def test_the_page_knows_the_format_that_is_written() -> None:
    text = (web.PAGE / "card.js").read_text(encoding="utf-8")
    assert f'const FORMAT = "{cards.FORMAT}";\nconst VERSION = {cards.VERSION};' in text


def test_the_page_asks_for_onnxruntime_web_alone() -> None:
    package = json.loads((web.PAGE / "package.json").read_text(encoding="utf-8"))
    assert package["private"] is True
    assert list(package["dependencies"]) == ["onnxruntime-web"]
    assert not {"scripts", "devDependencies"} & set(package)


@pytest.mark.parametrize("name", sorted(PAGE_FILES - {"README.md"}))
def test_the_page_names_no_other_place(name: str) -> None:
    text = (web.PAGE / name).read_text(encoding="utf-8")
    places = set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.?[\w-]+(?=[:/])", text))
    assert places <= {"http://localhost", "http://www.w3.org"}  # a hint to the person, and SVG's own name


def test_the_page_has_no_script_or_style_inside() -> None:
    text = (web.PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=", text)


def test_a_folder_that_is_there_stays_unless_told(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="exists; choose another out="):
        export_finder(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    export_finder(folder, exist_ok=True)
    assert (folder / "model.onnx").is_file()


def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is a file; choose another out="):
        export_finder(tmp_path / "page", exist_ok=True)


# With one.

local = pytest.mark.allow_hosts(["127.0.0.1", "::1"])


def needed(there: object, what: str) -> None:
    """Skip, or fail where a browser is required, for what is not there."""
    if not there:
        (pytest.fail if os.environ.get("GFLDET_BROWSER") == "required" else pytest.skip)(f"{what}; see tools/browser")


@pytest.fixture(scope="module")
def tools() -> tuple[str, str, Path]:
    """Chromium, chromedriver, and the folder of onnxruntime-web."""
    needed(find_spec("selenium"), "no package selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    modules = Path(os.environ.get("GFLDET_NODE_MODULES", ""))
    needed(chromium, "no chromium")
    needed(driver, "no chromedriver")
    needed((modules / "onnxruntime-web").is_dir(), "GFLDET_NODE_MODULES names no folder with onnxruntime-web")
    assert chromium
    assert driver
    return chromium, driver, modules.absolute()


class Handler(SimpleHTTPRequestHandler):
    """Files, without a line on the terminal for each; other pages may ask for them too."""

    asked: list[str] = []  # noqa: RUF012  (of all servers)

    def log_message(self, format: str, *args: Any) -> None:
        self.asked.append(self.headers.get("Host", "") + self.path)

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[Path], str]]:
    """folder -> address of a server on this machine"""
    servers = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://localhost:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser's camera sees: one picture, over and over."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    frame = cv2.cvtColor(picture(320, 240), cv2.COLOR_RGB2YUV_I420).tobytes()
    path.write_bytes(b"YUV4MPEG2 W320 H240 F10:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + frame) * 3)
    return path


@pytest.fixture(scope="module")
def browser(tools: tuple[str, str, Path], video: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium that knows no host but localhost."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver, _ = tools
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-dev-shm-usage"),
        *("disable-background-networking", "disable-component-update", "disable-sync", "window-size=1000,800"),
        *("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"),
        f"use-file-for-fake-video-capture={video}",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
    ):
        options.add_argument(f"--{switch}")
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.set_script_timeout(30)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def address(page: Path, tools: tuple[str, str, Path], serve: Callable[[Path], str]) -> str:
    """Where the page is served, complete."""
    site = page.with_name("site")
    shutil.copytree(page, site)
    (site / "node_modules").symlink_to(tools[2])
    return serve(site)


@pytest.fixture
def opened(browser: Any, address: str) -> Any:
    """The browser with the page, ready."""
    return open_page(browser, address)


def open_page(browser: Any, address: str) -> Any:
    browser.get(f"{address}/")
    until(browser, lambda: status(browser) == "Ready" or problems(browser))
    return browser


def until(browser: Any, condition: Callable[[], Any]) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 40, 0.05).until(lambda _: condition())


def one(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def status(browser: Any) -> str:
    return one(browser, "#status").text


def problems(browser: Any) -> list[str]:
    return [item.text for item in browser.find_elements("css selector", "#problems li")]


def drawn(browser: Any) -> dict[str, Any]:
    """What each picture of the page shows, by the name of its file."""
    figures = browser.find_elements("css selector", "figure[data-drawn]")
    records = [json.loads(figure.get_attribute("data-drawn")) for figure in figures]
    return {record["image"]: record for record in records}


def look_at(browser: Any, *files: Path) -> dict[str, Any]:
    """Choose files and wait for all of them."""
    one(browser, "#files").send_keys("\n".join(map(str, files)))
    until(browser, lambda: len(drawn(browser)) == len(files))
    return drawn(browser)


def set_threshold(browser: Any, value: float) -> None:
    browser.execute_script(
        "const slider = document.getElementById('threshold'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'))",
        value,
    )


def compare(record: dict[str, Any], path: Path, model: Model, threshold: float) -> None:
    """The page and `predict` agree: within .1 px and .001; where decoders may differ, .5 px and .005."""
    (results,) = model.predict(str(path), conf=threshold, save=False, verbose=False)
    lossless = path.suffix == ".png" and path.name != "glass.png"
    px, score = (0.1, 1e-3) if lossless else (0.5, 5e-3)
    assert (record["height"], record["width"]) == results.orig_shape
    assert [box["class"] for box in record["boxes"]] == results.boxes.cls.int().tolist()
    assert [box["name"] for box in record["boxes"]] == [NAMES[box["class"]] for box in record["boxes"]]
    np.testing.assert_allclose([box["box"] for box in record["boxes"]], results.boxes.xyxy, rtol=0, atol=px)
    np.testing.assert_allclose([box["score"] for box in record["boxes"]], results.boxes.conf, rtol=0, atol=score)


@local
def test_the_page_draws_the_boxes_of_predict(opened: Any, page: Path, images: dict[str, Path]) -> None:
    model = Model(page / "model.onnx")
    records = look_at(opened, *images.values())
    for name, path in images.items():
        compare(records[name], path, model, 0.25)
        assert len(records[name]["boxes"]) == 2
    set_threshold(opened, 0.5)
    for name, record in drawn(opened).items():
        assert [box["name"] for box in record["boxes"]] == ["red"]
        compare(record, images[name], model, 0.5)
    one(opened, "#classes button").click()  # red, which is hidden then
    assert all(record["boxes"] == [] for record in drawn(opened).values())
    origins = "return performance.getEntriesByType('resource').map(entry => new URL(entry.name, location).origin)"
    own = opened.execute_script("return location.origin")
    assert set(opened.execute_script(origins)) <= {own, "null"}


@local
def test_boxes_are_on_the_canvas_and_names_are_text(opened: Any, images: dict[str, Path]) -> None:
    record = look_at(opened, images["large.png"])["large.png"]
    pixel = """
        const canvas = document.querySelector("canvas.boxes");
        const [x1, y1, , y2] = arguments[0].map((value) => (value * canvas.width) / arguments[1]);
        return [...canvas.getContext("2d").getImageData(x1, (y1 + y2) / 2, 1, 1).data];
    """
    orange, sky = [opened.execute_script(pixel, box["box"], 300) for box in record["boxes"]]
    assert orange == [230, 159, 0, 255]
    assert sky == [86, 180, 233, 255]
    assert one(opened, ".summary").text == "2 boxes: 1 red, 1 blue <b>"
    assert status(opened) == "large.png: 2 boxes: 1 red, 1 blue <b>"
    assert not opened.find_elements("css selector", "b")
    assert re.search(r"300 × 200 px · prepared in [\d.]+ ms, model [\d.]+ ms, total", one(opened, ".times").text)


@local
def test_what_is_no_image_is_told_and_the_rest_goes_on(opened: Any, images: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not an image", encoding="utf-8")
    one(opened, "#files").send_keys(f"{broken}\n{images['small.png']}")
    until(opened, lambda: drawn(opened))
    assert problems(opened) == ["broken.png is no image that this browser can read"]
    assert list(drawn(opened)) == ["small.png"]
    assert len(opened.find_elements("css selector", "figure")) == 1


@local
def test_the_camera_s_picture_is_looked_at_until_it_is_stopped(opened: Any) -> None:
    one(opened, "#camera").click()
    until(opened, lambda: "frames/s" in one(opened, "figure .times").text)
    record = drawn(opened)["Camera"]
    assert [box["name"] for box in record["boxes"]] == list(NAMES)
    left, top, right, bottom = np.array(record["boxes"][0]["box"]) / [320, 240, 320, 240]
    np.testing.assert_allclose([left, top, right, bottom], [0.03, 0.04, 0.40, 0.50], atol=0.02)
    one(opened, "#camera").click()
    assert status(opened) == "The camera is off"
    assert not opened.find_elements("css selector", "figure")
    refuse = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', arguments[0]))"
    for name, said in (("NotAllowedError", "The camera was refused"), ("NotFoundError", "This machine has no camera")):
        opened.execute_script(refuse, name)
        one(opened, "#camera").click()
        until(opened, lambda said=said: problems(opened) and problems(opened)[0].startswith(said))


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
    assert opened.execute_script(hand_in, text, "dropped.png") is False  # or the browser would open the file
    opened.execute_script(hand_in, text, "pasted.png")
    until(opened, lambda: len(drawn(opened)) == 2)
    records = drawn(opened)
    assert records["dropped.png"]["boxes"] == records["pasted.png"]["boxes"]
    one(opened, "#clear").click()
    assert not opened.find_elements("css selector", "figure")


@local
def test_the_page_loads_nothing_from_elsewhere(opened: Any, page: Path, serve: Callable[[Path], str]) -> None:
    elsewhere = f"{serve(page)}/card.json"
    asking = f"fetch('{elsewhere}').then(() => 'came', () => 'refused')"
    opened.execute_script(f"window.answer = null; {asking}.then((word) => {{ window.answer = word; }})")
    assert until(opened, lambda: opened.execute_script("return window.answer")) == "refused"
    in_a_worker = f"""
        const script = new Blob([`postMessage(await {asking})`], {{ type: "text/javascript" }});
        const worker = new Worker(URL.createObjectURL(script), {{ type: "module" }});
        worker.onmessage = ({{ data }}) => arguments[0](data);
    """
    assert opened.execute_async_script(in_a_worker) == "refused"
    assert elsewhere.removeprefix("http://") not in Handler.asked


@local
def test_the_worker_stands_under_the_policy_of_the_page(browser: Any, address: str) -> None:
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
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": note})
    open_page(browser, address)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    (started,) = browser.execute_script("return window.started")
    assert started.startswith(f"blob:{address}/")


@local
def test_without_onnxruntime_web_the_page_says_what_to_type(
    browser: Any, page: Path, tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(page, bare)
    open_page(browser, serve(bare))
    assert problems(browser) == [
        "onnxruntime-web is missing. In the folder of this page type: npm install",
    ]
    assert not one(browser, "#camera").is_enabled()


@local
def test_a_model_of_one_frame_and_a_fixed_batch(
    browser: Any, tools: tuple[str, str, Path], images: dict[str, Path], tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    folder = export_finder(tmp_path / "fixed", dynamic="none", batch=2, imgsz=[96, 160], conf=0.3)
    (folder / "node_modules").symlink_to(tools[2])
    open_page(browser, serve(folder))
    assert one(browser, "#threshold").get_attribute("value") == "0.3"
    record = look_at(browser, images["tall.png"])["tall.png"]
    compare(record, images["tall.png"], Model(folder / "model.onnx"), 0.3)


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
def test_the_page_obeys_its_card(
    browser: Any,
    page: Path,
    tools: tuple[str, str, Path],
    images: dict[str, Path],
    tmp_path: Path,
    serve: Callable[[Path], str],
) -> None:
    """In BGR with the grey levels halved, a red picture is a dim blue one to the model, on another grey."""
    halved = "(x - [0, 10, 0]) / [510, 300.5, 255]"
    site = site_of(page, tools[2], tmp_path / "bgr", channels="BGR", normalisation=halved, pad_colour=20)
    open_page(browser, serve(site))
    set_threshold(browser, 0.01)
    names = ("large.png", "tall.png")
    records = look_at(browser, *(images[name] for name in names))
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
    browser: Any,
    page: Path,
    tools: tuple[str, str, Path],
    tmp_path: Path,
    serve: Callable[[Path], str],
    changes: dict[str, Any],
    told: str,
) -> None:
    open_page(browser, serve(site_of(page, tools[2], tmp_path / "odd", **changes)))
    (problem,) = problems(browser)
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
        answer = opened.execute_async_script(resize, text, [height, width, new_height, new_width])
        ours = np.frombuffer(base64.b64decode(answer), np.uint8).reshape(new_height, new_width, 4)[..., :3]
        theirs = letterbox.resize(image[..., :3].copy(), new_height, new_width)
        assert np.abs(ours.astype(int) - theirs).max() <= 1
