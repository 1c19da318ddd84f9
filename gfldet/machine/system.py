"""What the system tells in files: those of /proc, and the control groups around this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def groups_around(controller: str) -> Iterator[Path]:
    """The folders of the control groups that bound this process's use of a resource (`cpu`, `memory`), version 1 and 2:
    from its own group up, since a group is bound by all above it."""
    for top, group in _groups(controller):
        for folder in (group, *group.parents):
            yield folder
            if folder == top:
                break


def _groups(controller: str) -> list[tuple[Path, Path]]:
    """(top, group): folders of each hierarchy of control groups that bounds a resource, the group this process is in.

    A container often sees its own group as the top and still reads the path that the host knows, which is not there.
    """
    paths = {}
    for line in lines(PROC / "self" / "cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or controller in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    found = []
    for line in lines(PROC / "self" / "mountinfo"):
        where, _, what = line.partition(" - ")
        words, kinds = where.split(), what.split()
        if len(words) < 5 or len(kinds) < 3 or kinds[0] not in paths:
            continue
        if kinds[0] == "cgroup2" or controller in kinds[2].split(","):
            top = Path(words[4])
            below = os.path.relpath(paths[kinds[0]], words[3]) if paths[kinds[0]].startswith("/") else ".."
            group = top if below.startswith("..") else top / below
            found.append((top, group if group.is_dir() else top))
    return found


def lines(file: Path) -> list[str]:
    """Lines of a file of the system; none where it is not there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def number(file: Path) -> int | None:
    """The one number in a file of the system; None where there is no such file, or the word `max`."""
    found = lines(file)
    return int(found[0]) if found and found[0].strip().isdecimal() else None


def numbers(file: Path) -> dict[str, int]:
    """Numbers by name, from lines `name number ...`."""
    words = (line.split() for line in lines(file))
    return {pair[0]: int(pair[1]) for pair in words if len(pair) > 1 and pair[1].isdecimal()}
