"""What the tests of the web page share: its model, pictures, a server, and headless Chromium with the page in it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gfldet.config.load import resolve
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.ops.decode import Decoded

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


class ColourFinder(DetectionModel):
    """A box around the pixels of each class's colour, from their mean and spread, so that every grey level counts.

    The score of the red box is its colour's purity, dimmed by a dark frame so that padding counts too; that of the blue
    one is half as high.
    """

    def predict(self, x: Tensor) -> Any:
        return self.decode(x).stacked(), []

    def infer(self, x: Tensor) -> Decoded:
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
        stacked, others = torch.stack(found, dim=2), super().infer(x).decoded()  # all other points find nothing
        rest = torch.cat((others.boxes, 0 * others.scores), dim=1)[..., len(COLOURS) :]
        all_points = torch.cat((stacked, rest), dim=2)
        return Decoded(all_points[:, :4], all_points[:, 4:])


def _export_finder(folder: Path, **settings: Any) -> Path:
    """The page of the colour finder, in `folder`."""
    yaml = folder.with_suffix(".yaml")
    yaml.write_text(MODEL, encoding="utf-8")
    finder = ColourFinder(read_description(yaml), NAMES)
    given = {"model": "finder.pt", "format": "web", "out": str(folder), "imgsz": SIZE, "verbose": False, "threads": 1}
    from gfldet.export import job  # here: conftest is loaded where onnx may be missing

    return job.export(job.Subject(finder, "finder.pt", (0, 1)), resolve("export", given | settings))


@pytest.fixture(scope="session")
def export_finder() -> Callable[..., Path]:
    """folder, settings -> the page of the colour finder, in that folder"""
    return _export_finder


@pytest.fixture(scope="session")
def page_names() -> tuple[str, ...]:
    """The class names of the page's model."""
    return NAMES


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export_finder(tmp_path_factory.mktemp("web") / "page")


def _picture(width: int, height: int, transparent: bool = False) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, or with A: grey noise, a red rectangle at the upper left and a blue one at the lower right."""
    noise = np.random.default_rng(width).integers(70, 120, (height, width, 1), np.uint8)
    image = np.repeat(noise, 4 if transparent else 3, axis=2)
    for colour, (left, top, right, bottom) in zip(COLOURS, ((3, 4, 40, 50), (55, 45, 92, 97)), strict=True):
        area = image[height * top // 100 : height * bottom // 100, width * left // 100 : width * right // 100]
        area[...] = (*colour, 255)[: area.shape[2]]
    return image


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Image files by name: larger and smaller than the frame, of just its size, of odd sizes, turned, transparent."""
    folder = tmp_path_factory.mktemp("images")
    sizes = {"large.png": (300, 200), "small.png": (51, 40), "equal.png": (128, 96), "tall.png": (77, 301)}
    for name, (width, height) in sizes.items():
        Image.fromarray(_picture(width, height)).save(folder / name)
    Image.fromarray(_picture(90, 60, transparent=True)).save(folder / "glass.png")
    Image.fromarray(_picture(333, 127)).save(folder / "odd.jpg", quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    Image.fromarray(_picture(200, 120)).save(folder / "turned.jpg", quality=95, exif=turned)
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def modules(browser_needs: Callable[[object, str], None]) -> Path:
    """The folder of onnxruntime-web."""
    folder = Path(os.environ.get("GFLDET_NODE_MODULES", ""))
    browser_needs((folder / "onnxruntime-web").is_dir(), "GFLDET_NODE_MODULES names no folder with onnxruntime-web")
    return folder.absolute()


class _Handler(SimpleHTTPRequestHandler):
    """Files, without a line on the terminal for each; other pages may ask for them too."""

    asked: list[str] = []  # noqa: RUF012  (of all servers)

    def log_message(self, format: str, *args: Any) -> None:
        self.asked.append(self.headers.get("Host", "") + self.path)

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """folder -> address of a server on this machine"""
    servers = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://localhost:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser's camera sees: one picture, over and over."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    frame = cv2.cvtColor(_picture(320, 240), cv2.COLOR_RGB2YUV_I420).tobytes()
    path.write_bytes(b"YUV4MPEG2 W320 H240 F10:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + frame) * 3)
    return path


@pytest.fixture(scope="session")
def browser(modules: Path, chromium: Callable[..., Any], video: Path) -> Any:
    """Headless Chromium that knows no host but localhost, with a camera."""
    camera = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")
    return chromium(*camera, f"use-file-for-fake-video-capture={video}")


@pytest.fixture(scope="session")
def address(page: Path, modules: Path, serve: Callable[[Path], str]) -> str:
    """Where the page is served, complete."""
    site = page.with_name("site")
    shutil.copytree(page, site)
    (site / "node_modules").symlink_to(modules)
    return serve(site)


@pytest.fixture(scope="session")
def asked() -> list[str]:
    """What all servers were asked for: host and path."""
    return _Handler.asked


@dataclass(frozen=True)
class Shown:
    """The browser with the page in it."""

    browser: Any

    def open(self, address: str) -> Shown:
        self.browser.get(f"{address}/")
        self.until(lambda: self.status() == "Ready" or self.problems())
        return self

    def until(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.browser, 40, 0.05).until(lambda _: condition())

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def status(self) -> str:
        return str(self.one("#status").text)

    def problems(self) -> list[str]:
        return [item.text for item in self.all("#problems li")]

    def drawn(self) -> dict[str, Any]:
        """What each picture of the page shows, by the name of its file."""
        records = [json.loads(figure.get_attribute("data-drawn")) for figure in self.all("figure[data-drawn]")]
        return {record["image"]: record for record in records}

    def look_at(self, *files: Path) -> dict[str, Any]:
        """Choose files and wait for all of them."""
        self.one("#files").send_keys("\n".join(map(str, files)))
        self.until(lambda: len(self.drawn()) == len(files))
        return self.drawn()

    def set_threshold(self, value: float) -> None:
        self.run(
            "const slider = document.getElementById('threshold'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input'))",
            value,
        )


@pytest.fixture
def shown(browser: Any) -> Shown:
    """The browser, for a page that the test opens itself."""
    return Shown(browser)


@pytest.fixture
def opened(browser: Any, address: str) -> Shown:
    """The browser with the page, ready."""
    return Shown(browser).open(address)
