"""What a tune has done so far: its trainings, and tune.json, from which it goes on after whatever ended it.

The file is written whole after each change, so it is right at any moment.  The search follows from it alone (see
`search`), so a tune that was killed comes to what an uninterrupted one comes to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gfldet.errors import CheckpointError
from gfldet.files import read_json
from gfldet.writing import write_aside

FILE = "tune.json"

State = Literal["running", "done", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Run:
    """A training: the trial that it is of (0 is the default), its seed, and the settings in which it differs from the
    default.  `curve` has the AP after each epoch, `ap` is that of the best weights of a run that came to its end."""

    trial: int
    seed: int
    changes: Mapping[str, float]
    state: State = "running"
    ap: float | None = None
    curve: tuple[float, ...] = ()
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Whether it came to an end, of whatever kind; one that was begun and cut off is done again."""
        return self.state != "running"

    @property
    def place(self) -> str:
        """The name of its folder."""
        return f"{self.trial:03}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Records:
    """settings  what the user gave, as plain data: the length of the tune, and what is the same for all trials
    defaults  what the settings that may vary are by default, as the first run has found
    runs      in the order in which they began
    """

    settings: Mapping[str, Any]
    defaults: Mapping[str, float] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()

    def trials(self, seed: int) -> list[Run]:
        """The runs that search, all with this seed; the others repeat some of them."""
        return [run for run in self.runs if run.seed == seed]

    def find(self, trial: int, seed: int) -> Run | None:
        """The run of a trial with a seed."""
        return next((run for run in self.runs if (run.trial, run.seed) == (trial, seed)), None)

    def with_run(self, run: Run) -> Records:
        """The records with this run, in place of what was known of it."""
        others = [other for other in self.runs if (other.trial, other.seed) != (run.trial, run.seed)]
        at = self.runs.index(known) if (known := self.find(run.trial, run.seed)) else len(others)
        return Records(self.settings, self.defaults, (*others[:at], run, *others[at:]))


def save(records: Records, folder: Path) -> None:
    """Write the records; OutputError where that fails."""
    text = json.dumps(asdict(records), indent=1)
    write_aside(folder / FILE, lambda file: file.write(text.encode()))


def load(folder: Path) -> Records:
    """The records of a tune; CheckpointError for a file that does not hold them."""
    path = folder / FILE
    content = read_json(path, CheckpointError)
    try:
        runs = tuple(Run(**{**run, "curve": tuple(run["curve"])}) for run in content["runs"])
        return Records(dict(content["settings"]), dict(content["defaults"]), runs)
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: holds no tune of gfldet; begin another with name=") from error
