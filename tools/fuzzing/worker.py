"""A process that reads the cases of one family, one after the other, within bounds of time and memory.

It writes a line as it begins a case, and a line of JSON for each that goes wrong.  A case that lasts too long ends the
process, with the stacks of its threads; the parent goes on with the next one.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.families import BY_NAME, Family, run_case

HUNG = "Timeout"  # what faulthandler's report begins with


def chance_of(family: str, seed: int, case: int) -> Random:
    """The chance of one case, which follows from its names alone."""
    return Random(f"{family} {seed} {case}")


def kept_in(out: Path, family: str, seed: int, case: int) -> Path:
    """Where the files of a case are kept that went wrong."""
    return out / f"{family}-{seed}-{case}"


def rss() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def judge(family: Family, good: Path, folder: Path, chance: Random, most: float) -> dict[str, Any] | None:
    """Reads one case; what went wrong, None if nothing did."""
    try:
        run_case(family, good, folder, chance)
    except MemoryError:
        return {"what": "memory", "told": traceback.format_exc(limit=-20)}
    except Exception:
        return {"what": "traceback", "told": traceback.format_exc()[-6000:]}
    if rss() > most:
        return {"what": "memory", "told": f"{rss():.0f} MB"}
    return None


def main(argv: list[str] | None = None) -> int:
    """Reads the cases `first` to `last` of a family in `folder`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("family")
    parser.add_argument("folder", type=Path)
    for name in ("seed", "first", "last", "seconds", "memory"):
        parser.add_argument(name, type=int)
    given = parser.parse_args(argv)
    family = BY_NAME[given.family]
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)  # readers, and the libraries below them, may print
    with tempfile.TemporaryDirectory() as good:
        with contextlib.redirect_stderr(open(os.devnull, "w", encoding="utf-8")):
            family.make(Path(good))
            run_case(family, Path(good), given.folder, chance_of(family.name, 0, -1))  # imports, before memory is bound
        with open("/proc/self/statm", encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        bound = mapped + (2 * given.memory << 20)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        warnings.simplefilter("ignore")
        for case in range(given.first, given.last):
            print(case, file=lines)
            faulthandler.dump_traceback_later(given.seconds, exit=True)
            wrong = judge(family, Path(good), given.folder, chance_of(family.name, given.seed, case), given.memory)
            faulthandler.cancel_dump_traceback_later()
            if wrong is not None:
                kept = kept_in(given.folder.parent, family.name, given.seed, case)
                shutil.rmtree(kept, ignore_errors=True)
                given.folder.rename(kept)
                print(json.dumps({"case": case, **wrong}), file=lines)
                if wrong["what"] == "memory":  # the peak stays, so the next case needs a process of its own
                    return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
