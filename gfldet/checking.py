"""The command `check`: settings to a survey of the data, its findings, and what is written of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gfldet.config.load import resolve
from gfldet.config.schema import CheckSettings
from gfldet.data.findings import Reach
from gfldet.data.load import reading_bar
from gfldet.data.spec import load_spec
from gfldet.health.check import Health, check
from gfldet.health.survey import survey
from gfldet.messages import teller
from gfldet.model import Model
from gfldet.report.health_page import write_page
from gfldet.report.health_text import health_data, health_text
from gfldet.store import runs
from gfldet.writing import write_aside


def check_data(data: str | Path = "shapes", **settings: Any) -> Health:
    """Find what is wrong with a data set, and what is worth a look; nothing is changed in it.

    Returns the findings, all of them, whatever is wrong; with `page`, the default, check.html is written into a run
    folder too.  All settings: `gfldet check --help`.

    Raises ConfigError, DataError where the data YAML itself cannot be used, OutputError.
    """
    resolved = resolve("check", {**settings, "data": data})
    return run_check(resolved)


def run_check(settings: CheckSettings) -> Health:
    """The check that the settings describe; what it tells and writes is told and written."""
    tell = teller(settings.verbose and settings.json is not True)
    for notice in settings.notices:
        tell(f"notice: {notice}")
    if isinstance(settings.json, str):
        runs.check_writable(Path(settings.json).parent, instead="json= file")
    if not settings.page:
        return _checked(settings, None)
    with runs.claimed(settings.project, settings.name, "check", settings.exist_ok) as folder:
        health = _checked(settings, folder)
        tell(f"The page is {folder / PAGE}")
    return health


PAGE = "check.html"


def _checked(settings: CheckSettings, folder: Path | None) -> Health:
    spec = load_spec(settings.data, settings.val_share)
    with reading_bar(settings.verbose) as progress:
        surveyed = survey(spec, settings.height_width, _reach(settings.model), progress, settings.sample_bits)
    health = check(surveyed)
    if settings.json is True:
        print(_json(health))
    else:
        teller(settings.verbose)(health_text(health))
    if isinstance(settings.json, str):
        text = _json(health)
        runs.make(Path(settings.json).parent)
        write_aside(Path(settings.json), lambda file: file.write(f"{text}\n".encode()))
    if folder is not None:
        write_page(health, folder / PAGE)
    return health


def _json(health: Health) -> str:
    return json.dumps(health_data(health), ensure_ascii=False, indent=1, allow_nan=False)


def _reach(model: str) -> Reach:
    """How large a box the model can express: a name or YAML, or weights."""
    from gfldet.train.checks import reach_of_model

    return reach_of_model(Model(model).model)
