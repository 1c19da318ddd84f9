"""A check of a data set as text for people, and as plain data for programs."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import numpy as np

from gfldet.data.records import SEVERITIES, Finding
from gfldet.errors import counted, plain
from gfldet.health.check import Health
from gfldet.health.codes import kind_of
from gfldet.health.survey import Survey

SHOWN = 5  # findings of a kind in the text; the JSON has them all
VERSION = 1  # of the JSON
SIZES = (8.0, 16.0, 32.0, 96.0)  # px at imgsz, between which the longer sides of the boxes are counted


def health_text(health: Health) -> str:
    """The splits in a line each, and the findings by severity and kind."""
    lines = [*split_lines(health.survey), sizes_line(health.survey)]
    for severity in SEVERITIES:
        of_severity = [finding for finding in health.findings if finding.severity == severity]
        if of_severity:
            lines += ["", f"{severity}s ({len(of_severity)})"]
        for code, group in groupby(of_severity, key=lambda finding: finding.code):
            lines += _of_kind(code, list(group))
    lines += ["", summary(health)]
    return "\n".join(lines)


def _of_kind(code: str, findings: list[Finding]) -> list[str]:
    kind = kind_of(code, findings[0].severity)
    advice = f".  {kind.advice}" if kind.advice else ""
    lines = [f"  {code}: {kind.title} ({len(findings)}){advice}"]
    lines += [f"    {plain(finding.text).replace(chr(10), f'{chr(10)}      ')}" for finding in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"    ... and {len(findings) - SHOWN} more")
    return lines


def summary(health: Health) -> str:
    """How many findings there are, in one line."""
    if not health.findings:
        return "nothing found"
    return ", ".join(f"{counted(count, severity)}" for severity, count in health.counts.items())


def split_lines(survey: Survey) -> list[str]:
    """Each split in one line: its images, those without boxes, its boxes."""
    lines = []
    for name, numbers in split_numbers(survey).items():
        empty, refused = numbers["without_boxes"], numbers["images"] - numbers["readable"]
        told = f"{name}: {counted(numbers['images'], 'image')}"
        told += f" ({empty} without boxes)" if empty else ""
        told += f" ({refused} cannot be read)" if refused else ""
        lines.append(f"{told}, {counted(numbers['boxes'], 'box')}, {counted(len(survey.names), 'class')}")
    return lines


def split_numbers(survey: Survey) -> dict[str, dict[str, int]]:
    """Of each split: its images, those that can be read, those of them without boxes, its boxes."""
    numbers = {}
    for reading in survey.readings:
        records = reading.records
        numbers[reading.name] = {
            "images": reading.images,
            "readable": len(records),
            "without_boxes": int((np.diff(records.starts) == 0).sum()),
            "boxes": len(records.boxes),
        }
    return numbers


def size_counts(survey: Survey) -> list[tuple[str, int]]:
    """How many truths have a longer side in each range of px at the chosen imgsz."""
    sides = survey.truths.sides.max(1, initial=0)
    counts, _ = np.histogram(sides, (0, *SIZES, np.inf))
    names = [f"under {SIZES[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(SIZES))]
    return list(zip([*names, f"{SIZES[-1]:g} and more"], counts.tolist(), strict=True))


def sizes_line(survey: Survey) -> str:
    """The sizes of the boxes at the chosen imgsz."""
    height, width = survey.frame
    told = ", ".join(f"{name} px: {count}" for name, count in size_counts(survey))
    return f"longer sides of the boxes at imgsz={height if height == width else f'{height},{width}'}: {told}"


def health_data(health: Health) -> dict[str, Any]:
    """All of a check as plain data.

    `findings` holds one object for each: code, severity, split, class, file, line, image, other, box (x1, y1, x2, y2 px
    of the upright image), count, text; what a finding lacks is null.
    """
    survey = health.survey
    return {
        "version": VERSION,
        "data": plain(str(survey.spec.source)),
        "imgsz": list(survey.frame),
        "classes": [plain(name) for name in survey.names],
        "splits": split_numbers(survey),
        "sizes": dict(size_counts(survey)),
        "counts": dict(health.counts),
        "findings": [_finding_data(finding) for finding in health.findings],
    }


def _finding_data(finding: Finding) -> dict[str, Any]:
    def text(value: object) -> str | None:
        return None if value is None else plain(str(value))

    return {
        "code": finding.code,
        "severity": finding.severity,
        "split": finding.split or None,
        "class": text(finding.label),
        "file": text(finding.file),
        "line": finding.line,
        "image": text(finding.image),
        "other": text(finding.other),
        "box": None if finding.box is None else [round(value, 3) for value in finding.box],
        "count": finding.count,
        "text": plain(finding.text),
    }
