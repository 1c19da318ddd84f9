"""What the tests of whole runs share: a model that trains in no time, pictures of plain rectangles, and a model that
finds these by their colour, so that its boxes are known before it is asked."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from gfldet import Model
from gfldet.machine.cores import cores
from gfldet.nn.build import Description, read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.ops.decode import Decoded
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint

TINY = """\
nc: 2
reg_max: 8
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 4]]
head:
  - [[2, 3], 1, GFLHead, [nc]]
"""
NAMES = ("red", "blue")
COLOURS = ((255, 0, 0), (0, 0, 255))

torch.set_num_threads(1)  # on models this small, threads only wait for each other


def pytest_configure(config: pytest.Config) -> None:
    """Else threads=0 would follow what other tests take meanwhile, and the last bits of results go with it."""
    if not getattr(config.option, "numprocesses", None):  # the processes that run the tests share the cores out
        share = cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))


# What is collected stays: to look through it for garbage, time after time, takes seconds.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


Rectangle = tuple[int, int, int, int, int]  # class, left, top, right, bottom in whole pixels


@dataclass(frozen=True)
class Drawn:
    """A data set on disk: its YAML, the folder of its images, and what was drawn where."""

    yaml: Path
    images: Path
    truths: dict[str, list[Rectangle]]


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model YAML of two levels, 1/8 and 1/32: few tensors, as it is their number that takes time here."""
    path = tmp_path_factory.mktemp("model") / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture
def tiny(tiny_yaml: Path) -> Description:
    return read_description(tiny_yaml)


def _picture(rectangles: list[Rectangle], width: int, height: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: grey noise, and the rectangles in the pure colour of their class."""
    noise = np.random.default_rng(seed).integers(70, 120, (height, width, 1), np.uint8)
    image = np.repeat(noise, 3, axis=2)
    for c, left, top, right, bottom in rectangles:
        image[top:bottom, left:right] = COLOURS[c]
    return image


def _rectangles(number: int, width: int, height: int) -> list[Rectangle]:
    """One red rectangle left, in every other picture also a blue one right; sizes differ from picture to picture."""
    w, h = width // 4 + number % 3 * 4, height // 3 + number % 4 * 4
    found = [(0, 4 + number % 5, 6, 4 + number % 5 + w, 6 + h)]
    if number % 2 == 0:
        found.append((1, width - w - 5, height - h - 3, width - 5, height - 3))
    return found


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    """rectangles, width, height, seed -> RGB picture"""
    return _picture


@pytest.fixture
def clip(tmp_path: Path) -> Callable[[Iterable[np.ndarray]], Path]:
    """RGB frames of one size -> a video of ten a second, tmp_path/clip.avi"""

    def write(frames: Iterable[np.ndarray]) -> Path:
        path, shown = tmp_path / "clip.avi", list(frames)
        height, width = shown[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (width, height))
        for frame in shown:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
        return path

    return write


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Drawn]:
    """Writes a YOLO data set of `train` and `val` pictures below tmp_path/name."""

    def write(name: str = "set", train: int = 6, val: int = 4, width: int = 64, height: int = 64) -> Drawn:
        root = tmp_path / name
        truths: dict[str, list[Rectangle]] = {}
        for split, count, first in (("train", train, 0), ("val", val, train)):
            (root / "images" / split).mkdir(parents=True)
            (root / "labels" / split).mkdir(parents=True)
            for number in range(first, first + count):
                rectangles = _rectangles(number, width, height)
                picture = _picture(rectangles, width, height, number)
                file = root / "images" / split / f"{number:03d}.png"
                cv2.imwrite(str(file), picture[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 0))
                rows = [
                    f"{c} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"
                    for c, x1, y1, x2, y2 in rectangles
                ]
                (root / "labels" / split / f"{number:03d}.txt").write_text("".join(rows), encoding="utf-8")
                truths[f"{number:03d}.png"] = rectangles
        yaml = root / "data.yaml"
        yaml.write_text(f"train: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n", encoding="utf-8")
        return Drawn(yaml, root / "images", truths)

    return write


@pytest.fixture
def quick(tiny_yaml: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a run that takes a moment, with the same bits on every processor; the data are to be given."""
    return {
        "amp": "off",
        "imgsz": 64,
        "batch": 3,
        "epochs": 2,
        "threads": 1,
        "workers": 0,
        "plots": False,
        "verbose": False,
        "device": "cpu",
        "project": str(tmp_path / "runs"),
    }


@pytest.fixture
def trained(tiny: Description, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the data sets' classes, though with fresh weights."""
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    checkpoints.save(path, Checkpoint(tiny, NAMES, (0, 1), DetectionModel(tiny, NAMES).state_dict()))
    return path


class ColourFinder(DetectionModel):
    """A detector whose answer is known: a box around all pixels of each class's pure colour, score .9 and .8."""

    def infer(self, x: Tensor) -> Decoded:
        decoded = torch.zeros(len(x), 4 + self.nc, self.nc)
        for image in range(len(x)):
            for c in range(self.nc):
                wanted = torch.tensor(COLOURS[c], dtype=x.dtype).view(3, 1, 1) / 255
                rows, columns = ((x[image] - wanted).abs().amax(0) < 0.35).nonzero(as_tuple=True)
                if len(rows):
                    low = torch.stack((columns.min(), rows.min())).float()
                    high = torch.stack((columns.max(), rows.max())).float() + 1
                    decoded[image, :4, c] = torch.cat(((low + high) / 2, high - low))
                    decoded[image, 4 + c, c] = 0.9 - 0.1 * c
        return Decoded(decoded[:, :4], decoded[:, 4:])


@pytest.fixture
def colour_finder(tiny: Description) -> DetectionModel:
    return ColourFinder(tiny, NAMES)


@pytest.fixture
def model(tiny_yaml: Path, colour_finder: DetectionModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    """A `Model` that finds the rectangles by their colour, in a folder of its own, where runs/ would go."""
    monkeypatch.chdir(tmp_path)
    made = Model(tiny_yaml)
    made.model = colour_finder
    return made


# ---- models whose scores differ from point to point and from picture to picture, as those of trained ones do


def _spread(model: DetectionModel, seed: int = 0) -> DetectionModel:
    """Fresh weights, so drawn that scores lie anywhere in [0, 1] and boxes have all sizes."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.2, generator=generator)
        elif name.endswith("bias"):  # no number is left to the seed of the moment
            value.uniform_(-0.1, 0.1, generator=generator)
        elif value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    model.head.init_biases(prior=0.3)
    for weight in model.predicting():
        if weight.ndim == 4:
            weight.data.normal_(0, 4 / weight[0].numel() ** 0.5, generator=generator)
    return model.eval()


@pytest.fixture
def spread() -> Callable[[DetectionModel], DetectionModel]:
    return _spread


@pytest.fixture
def spread_model(tiny: Description) -> DetectionModel:
    return _spread(DetectionModel(tiny, NAMES))


@pytest.fixture
def checkpoint(spread_model: DetectionModel, tmp_path: Path) -> Callable[..., Path]:
    """Writes that model as a checkpoint of a run at 64 px on `data`."""

    def write(data: Path | None = None, name: str = "best.pt") -> Path:
        settings = {"imgsz": 64} | ({} if data is None else {"data": str(data)})
        path = tmp_path / name
        weights = spread_model.state_dict()
        checkpoints.save(path, Checkpoint(spread_model.description, NAMES, (7, 91), weights, settings))
        return path

    return write


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """RGB pictures of several sizes and shapes, no two places alike: equal scores would leave NMS a choice."""
    rng = np.random.default_rng(0)
    shapes = ((64, 64), (80, 120), (160, 48))
    coarse = [rng.integers(0, 255, (h // 8, w // 8, 3), np.uint8) for h, w in shapes]
    return [cv2.resize(c, (w, h), interpolation=cv2.INTER_CUBIC) for c, (h, w) in zip(coarse, shapes, strict=True)]


@pytest.fixture(scope="session")
def browser_needs() -> Callable[[object, str], None]:
    """there, what -> skips the test, or fails it where a browser is required, for what is not there"""

    def needed(there: object, what: str) -> None:
        if not there:
            (pytest.fail if os.environ.get("GFLDET_BROWSER") == "required" else pytest.skip)(
                f"{what}; see tools/browser"
            )

    return needed


@pytest.fixture(scope="session")
def chromium(
    browser_needs: Callable[[object, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Any]]:
    """switches -> headless Chromium that knows no host but localhost"""
    browser_needs(find_spec("selenium"), "no package selenium")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    browser_needs(binary, "no chromium")
    browser_needs(driver, "no chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    started: list[Any] = []

    def start(*more: str) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = str(binary)
        for switch in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-dev-shm-usage"),
            *("disable-background-networking", "disable-component-update", "disable-sync", "window-size=1000,800"),
            f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
            "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
            *more,
        ):
            options.add_argument(f"--{switch}")
        started.append(webdriver.Chrome(options=options, service=Service(driver)))
        started[-1].set_script_timeout(30)
        return started[-1]

    yield start
    for browser in started:
        browser.quit()


class Page:
    """What the tests of the pages ask a browser that shows one."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def visible(self, elements: str, name: str) -> list[str]:
        """`data-name` of the elements of a CSS selector that are shown."""
        seen = f"[...document.querySelectorAll('{elements}')].filter(e => e.offsetParent)"
        found: list[str] = self._browser.execute_script(f"return {seen}.map(e => e.dataset.{name})")
        return found

    def choose(self, name: str, value: str) -> None:
        """Give the field with the id `name` a value, as a user does."""
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        self._browser.execute_script(f"{script} e.dispatchEvent(new Event('input', {{bubbles: true}}))", name, value)

    def loaded(self) -> int:
        """How many files the page has loaded beside itself."""
        loaded = "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:'))"
        count: int = self._browser.execute_script(f"return {loaded}.length")
        return count

    def errors(self) -> list[Any]:
        """The errors in the console."""
        return [line for line in self._browser.get_log("browser") if line["level"] == "SEVERE"]

    def backgrounds(self) -> list[str]:
        """The colour of the page's background for users who like it light, and dark."""
        colours = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            self._browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            colours.append(self._browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        return colours


@pytest.fixture
def page() -> Callable[[Any], Page]:
    """browser -> what there is to ask about the page that it shows"""
    return Page
