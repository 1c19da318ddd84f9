"""Which settings vary within which bounds; records that are written and read; folders of tunes that go on."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gfldet.config.load import resolve
from gfldet.errors import CheckpointError, ConfigError
from gfldet.tune.course import varied
from gfldet.tune.folder import agreed, differences, folder_to_go_on, given_settings
from gfldet.tune.records import Records, Run, load, save
from gfldet.tune.space import VARIED, Between, OneOf, space_around

DEFAULTS = {"lr0": 0.003, "mosaic": 1.0, "scale": 0.5, "fliplr": 0.5, "flipud": 0.0}


def test_the_space_lies_around_the_defaults() -> None:
    space = space_around(DEFAULTS, VARIED)
    assert space == {
        "lr0": Between(0.001, 0.009, log=True),
        "mosaic": Between(0.0, 1.0),
        "scale": Between(0.0, 0.75),
        "fliplr": OneOf((0.0, 0.5)),
        "flipud": OneOf((0.0, 0.5)),
    }
    odd = space_around({"lr0": 0.5, "mosaic": 0.46, "scale": 0.9, "fliplr": 0.3, "flipud": 1.0}, VARIED)
    assert odd["lr0"] == Between(0.17, 1.0, log=True)
    assert odd["scale"] == Between(0.0, 0.9)
    assert (odd["fliplr"], odd["flipud"]) == (OneOf((0.0, 0.3, 0.5)), OneOf((0.0, 0.5, 1.0)))
    assert list(space_around(DEFAULTS, {"scale", "lr0"})) == ["lr0", "scale"]


def test_values_are_rounded_within_the_bounds() -> None:
    assert Between(0.001, 0.009, log=True).rounded(0.00123456) == 0.00123
    assert Between(0.0, 1.0).rounded(0.33333) == 0.33
    assert Between(0.0, 0.996).rounded(0.996) == 0.996
    assert OneOf((0.0, 0.5)).rounded(0.5) == 0.5


@pytest.mark.parametrize(
    ("given", "open_"),
    [
        ({}, set(VARIED)),
        ({"lr0": 0.01, "flipud": 0}, {"mosaic", "scale", "fliplr"}),
        ({"augment": "none"}, {"lr0"}),
        ({"augment": lambda sample, rng: sample}, {"lr0"}),
        ({"augment": lambda sample, rng: sample, "augment_at": "after"}, set(VARIED)),
    ],
)
def test_what_is_given_or_has_no_effect_does_not_vary(given: dict[str, Any], open_: set[str]) -> None:
    assert varied(resolve("tune", given)) == open_


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = (Run(0, 7, {}, "done", 0.5, (0.25, 0.5), 12.5), Run(1, 7, {"lr0": 0.001}))
    records = Records({"model": "gfldet-n", "imgsz": [64, 96], "class_weights": None}, DEFAULTS, runs)
    save(records, tmp_path)
    assert load(tmp_path) == records


def test_a_run_takes_the_place_of_what_was_known_of_it() -> None:
    first, begun, other = Run(0, 7, {}), Run(1, 7, {"lr0": 0.1}), Run(1, 8, {"lr0": 0.1})
    records = Records({}).with_run(first).with_run(begun).with_run(other)
    over = replace(begun, state="pruned", ap=0.5)
    assert records.with_run(over).runs == (first, over, other)
    assert records.trials(7) == [first, begun]
    assert records.find(1, 8) == other
    assert records.find(2, 7) is None


@pytest.mark.parametrize("content", ["[]", "{}", '{"settings": {}, "defaults": {}, "runs": [{"trial": 0}]}', "3", "{"])
def test_a_file_that_holds_no_tune_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "tune.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tune\.json"):
        load(tmp_path)


# ------------------------------------------------------------------------------------------------------------- folders


def begun(folder: Path, age: int = 0, **settings: Any) -> Path:
    """A folder in which a tune with these settings was begun."""
    folder.mkdir(parents=True)
    save(Records(settings), folder)
    os.utime(folder / "tune.json", (10**9 - age, 10**9 - age))
    return folder


def go_on(tmp_path: Path, **given: Any) -> Path | None:
    settings = resolve("tune", {"project": str(tmp_path), **given})
    return folder_to_go_on(settings, given_settings(settings, None), "report.txt")


def test_the_same_command_goes_on_with_the_newest_tune_that_is_not_over(tmp_path: Path) -> None:
    assert go_on(tmp_path, epochs=3) is None
    first = begun(tmp_path / "tune", age=9, epochs=3, threads=1)
    assert go_on(tmp_path, epochs=3, trials=5, threads=2, device="cpu") == first
    assert go_on(tmp_path, epochs=4) is None
    assert go_on(tmp_path, epochs=3, lr0=0.1) is None
    assert go_on(tmp_path) is None
    begun(tmp_path / "tune-of-mine", epochs=4)
    assert go_on(tmp_path, epochs=4) is None  # it has a name, and goes on by that
    second = begun(tmp_path / "tune2", epochs=3)
    assert go_on(tmp_path, epochs=3) == second
    (second / "report.txt").touch()
    assert go_on(tmp_path, epochs=3) is None
    assert go_on(tmp_path, epochs=4, exist_ok=True) == first  # and is refused, as its settings differ


def test_a_name_or_resume_tells_which_tune_goes_on(tmp_path: Path) -> None:
    named, newest = begun(tmp_path / "mine", age=9, epochs=3), begun(tmp_path / "tune", epochs=3)
    (named / "report.txt").touch()
    assert go_on(tmp_path, name="mine") == go_on(tmp_path, resume=str(named)) == named
    assert go_on(tmp_path, name="mine", resume=True) == named
    assert go_on(tmp_path, name="other") is None
    assert go_on(tmp_path, resume=True) == newest
    for wrong in ({"resume": str(tmp_path / "x")}, {"resume": True, "name": "x"}, {"resume": True, "project": "/x"}):
        with pytest.raises(ConfigError, match=r"resume: there is no tune in .*resume=runs/tune"):
            go_on(tmp_path, **wrong)


def test_settings_that_differ_are_named() -> None:
    before = {"model": "gfldet-n", "epochs": 3, "trials": 9, "threads": 1, "lr0": None}
    assert differences(before, {**before, "trials": 4, "time": 1.0, "threads": 2}) == []
    assert differences(before, {"model": "gfldet-s", "mosaic": 0.5, "epochs": 3}) == [
        "lr0 is None there and left open here",
        "model is gfldet-n there and gfldet-s here",
        "mosaic is left open there and 0.5 here",
    ]
    assert differences(before, {"epochs": 4}, only_given=True) == ["epochs is 3 there and 4 here"]
    with pytest.raises(ConfigError, match=r"runs/x holds another tune: epochs is 3 there and 4 here; give the same"):
        agreed(Records(before), {"epochs": 4}, Path("runs/x"), only_given=True)


def test_what_may_differ_is_as_it_is_given_now() -> None:
    records = Records({"epochs": 3, "trials": 9, "threads": 1})
    assert agreed(records, {"epochs": 3}, Path("x"), only_given=False) == {"epochs": 3}
    assert agreed(records, {"trials": 4}, Path("x"), only_given=True) == {"epochs": 3, "trials": 4, "threads": 1}


def test_a_file_of_a_run_is_a_start_and_fixes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "args.yaml"
    file.write_text("# gfldet: written by a run\nlr0: 0.01\nepochs: 5\n")
    settings = resolve("tune", {"cfg": str(file), "scale": 0.1})
    assert given_settings(settings, str(file)) == {"scale": 0.1, "cfg": str(file)}
    assert varied(settings) == {"lr0", "mosaic", "fliplr", "flipud"}
    own = tmp_path / "own.yaml"
    own.write_text("lr0: 0.01\n")
    settings = resolve("tune", {"cfg": str(own)})
    assert given_settings(settings, str(own)) == {"lr0": 0.01}
    assert json.dumps(given_settings(settings, str(own)))
