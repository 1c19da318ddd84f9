"""The web page: what its folder holds.  (In a browser: `test_page`.)"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gfldet.detect import card as cards
from gfldet.detect import exported
from gfldet.errors import OutputError
from gfldet.export import web

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PAGE_FILES = {path.name for path in web.PAGE.iterdir()}


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


@pytest.mark.long
def test_a_folder_that_is_there_stays_unless_told(tmp_path: Path, export_finder: Callable[..., Path]) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="exists; choose another out="):
        export_finder(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    export_finder(folder, exist_ok=True)
    assert (folder / "model.onnx").is_file()


def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path, export_finder: Callable[..., Path]) -> None:
    (tmp_path / "page").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is a file; choose another out="):
        export_finder(tmp_path / "page", exist_ok=True)
