"""The page of a check: what is in it, how large it gets, and that it works in Chromium without loading anything.

The browser's test needs what tools/browser sees to; without it it is skipped, unless GFLDET_BROWSER is `required`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gfldet.data.records import Finding
from gfldet.health.check import Health
from gfldet.report import health_page
from gfldet.report.charts import bars, rows
from gfldet.report.health_page import page, write_page
from gfldet.report.health_pictures import part_around

Checked = Callable[..., Health]
local = pytest.mark.allow_hosts(["127.0.0.1", "::1"])
NAME = '<b>"thing"</b>'  # a class that would be seen if the page took it for HTML


@pytest.fixture
def health(planter: Any, checked: Checked) -> Health:
    """20 good images; a box outside, a tiny one, a row that cannot be read, and a copy in val."""
    planter.names[1] = NAME
    planter.good(20, "train")
    planter.good(20, "val")
    planter.plant("box-outside", "outside", "1 1.1 .5 .3 .3\n0 .3 .3 .2 .2\n")
    planter.plant("box-tiny", "tiny", "0 .5 .5 .01 .1\n")
    planter.plant("unreadable-labels", "odd", "0 .5 .5 .3 .3\n<script>alert(1)</script> 1 2 3 4\n")
    copy = planter.root / "images/train/good-0.png"
    (planter.root / "images/val/copy.png").write_bytes(copy.read_bytes())
    planter.label("copy", split="val")
    return checked(planter.yaml())


def test_all_findings_are_on_the_page_and_none_is_markup(health: Health) -> None:
    text = page(health)
    assert len(re.findall(r'data-code="', text)) == len(health.findings)
    assert [finding.code for finding in health.findings if finding.severity != "notice"] == [
        *("unreadable-labels", "box-outside", "box-tiny", "image-in-two-splits")
    ]
    assert "<b>" not in text
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|https?://""", text)
    assert text.count('class="it"') == sum(finding.box is not None for finding in health.findings)
    assert text.count("data:image/jpeg;base64,") >= 5  # two of the pair


def test_the_page_stays_below_its_bound(health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 kinds of 100 findings with long texts; pictures go round the kinds."""
    tiny = next(finding for finding in health.findings if finding.code == "box-tiny")
    many = [replace(tiny, code=f"kind-{k}", text="é<" * 5000) for k in range(100) for _ in range(100)]
    monkeypatch.setattr(health_page, "PICTURE_BYTES", 400_000)
    monkeypatch.setattr(health_page, "TEXT_BYTES", 300_000)
    file = tmp_path / "check.html"
    write_page(Health(health.survey, tuple(many)), file)
    assert 500_000 < file.stat().st_size < 850_000
    text = file.read_text(encoding="utf-8")
    assert "and 100 more, which the JSON lists" in text or "and 99 more, which the JSON lists" in text
    per_kind = [section.count("<figure ") for section in text.split('<section class="kind')[1:]]
    assert max(per_kind) - min(per_kind) <= 1


def test_a_page_without_images(health: Health) -> None:
    survey = replace(health.survey, pictures=(), readings=())
    found = Finding("unreadable-split", "error", "train: \ud800 is not there", split="train")
    text = page(Health(survey, (found,)))
    text.encode("utf-8", "xmlcharrefreplace")
    assert "is not there" in text


@pytest.mark.parametrize(
    ("box", "part"),
    [
        (None, (0, 0, 640, 480)),
        ((300, 200, 310, 202), (280, 176, 330, 226)),  # 48 px at least, whole px
        ((0, 0, 100, 100), (0, 0, 500, 480)),
        ((700, 100, 720, 110), (540, 55, 640, 155)),  # it lies outside
        ((-5000, -5000, 5000, 5000), (0, 0, 640, 480)),
    ],
)
def test_the_part_that_shows_a_box(box: Any, part: Any) -> None:
    x1, y1, x2, y2 = part_around(box, 640, 480)
    assert abs(x1 - part[0]) <= 2
    assert abs(y1 - part[1]) <= 2
    assert abs(x2 - part[2]) <= 2
    assert abs(y2 - part[3]) <= 2
    assert x2 > x1
    assert y2 > y1


def test_charts_have_every_count() -> None:
    for chart in (bars("sizes", ["<8", "8+"], [3, 0]), rows("classes", ["a", "b<c"], [7, 1])):
        assert chart.count("<g>") == 2
        assert "nan" not in chart
    assert "b&lt;c: 1" in rows("classes", ["b<c"], [1])
    assert "<svg" in bars("none", [], [])


# ------------------------------------------------------------------------------------------------------- in Chromium


@pytest.mark.long
@local
def test_the_page_in_a_browser(
    health: Health, chromium: Callable[..., Any], page: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "check.html"
    write_page(health, file)
    browser = chromium("window-size=1200,900")
    browser.get(file.as_uri())
    shown = page(browser)

    def visible() -> set[str]:
        return set(shown.visible("[data-code]", "code"))

    everything = {finding.code for finding in health.findings}
    assert visible() == everything
    assert shown.loaded() == 0
    assert shown.errors() == []
    pictures = "return [...document.querySelectorAll('.pictures svg')].every(s => s.getBoundingClientRect().width > 50)"
    assert browser.execute_script(pictures)
    browser.find_element("css selector", "input[value=error]").click()
    assert visible() == {code for code in everything if code != "unreadable-labels"}
    browser.find_element("css selector", "input[value=error]").click()
    shown.choose("code", "box-tiny")
    assert visible() == {"box-tiny"}
    assert browser.find_element("id", "shown").text == f"1 of {len(health.findings)} findings on this page are shown"
    shown.choose("code", "")
    shown.choose("label", NAME)
    assert visible() == {finding.code for finding in health.findings if finding.label == NAME} >= {"box-outside"}
    assert shown.backgrounds() == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
