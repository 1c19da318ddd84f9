"""Restarts by torchrun (`--max-restarts`): the same command goes on with the run that it began before.

A run folder tells by a file which launchers (torchrun's own process on each machine) it was started by.  They outlive
their workers, so a worker that is started again finds its run by them.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gfldet.ranks.place import LAUNCHED
from gfldet.ranks.value import Ranks
from gfldet.writing import write_aside

MARK = ".launch"


def launcher(environment: Mapping[str, str] = os.environ) -> str:
    """The torchrun that started this process, in words that no other one has; empty without torchrun."""
    if LAUNCHED not in environment:
        return ""
    began = ""
    with suppress(OSError, IndexError):  # as Linux tells; numbers of processes come again
        began = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return f"{environment[LAUNCHED]} {platform.node()} {os.getppid()} {began}"


def leave_mark(folder: Path, ranks: Ranks) -> None:
    """Write into a run folder who started it."""
    launchers = sorted(set(ranks.gathered(launcher())) - {""})
    if launchers:
        text = "\n".join(launchers)
        ranks.of_first(lambda: write_aside(folder / MARK, lambda f: f.write(text.encode())))


def remove_mark(folder: Path, ranks: Ranks) -> None:
    """For a run that came to its end."""
    if ranks.leads:
        with suppress(OSError):
            (folder / MARK).unlink()


def own_run(project: str, resume: bool | str, ranks: Ranks, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of the run that this command began before torchrun started it again; None where there is none."""
    if environment.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or not launcher(environment):
        return None
    launchers = set(ranks.gathered(launcher(environment)))
    return ranks.of_first(lambda: _newest(Path(project), resume, launchers))


def _newest(project: Path, resume: bool | str, launchers: set[str]) -> Path | None:
    named = [Path(resume), *Path(resume).parents[:2]] if isinstance(resume, str) else []
    marks = [mark for mark in (*project.glob(f"*/{MARK}"), *(folder / MARK for folder in named)) if mark.is_file()]
    own = [mark for mark in marks if launchers & set(mark.read_text(encoding="utf-8", errors="replace").split("\n"))]
    return max(own, key=lambda mark: mark.stat().st_mtime).parent if own else None


def to_go_on(folder: Path) -> dict[str, object]:
    """The settings with which the command goes on in the folder: from its last.pt, or from the start without one."""
    if (folder / "weights" / "last.pt").is_file():
        return {"resume": str(folder)}
    return {"resume": False, "project": str(folder.parent), "name": folder.name, "exist_ok": True}
