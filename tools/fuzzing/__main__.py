"""tools/fuzz: damaged files for every reader; each has to end in a value or in an error that names the file.

The cases follow from family, seed and number alone.  One that ends in a traceback, in a hang or in too much memory is
kept with its report in OUT/FAMILY-SEED-NUMBER/, and `--case NUMBER` reads it once more in this process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.families import BY_NAME, run_case
from fuzzing.worker import HUNG, chance_of, kept_in

WORKER = (sys.executable, "-m", "fuzzing.worker")


@dataclass
class Tally:
    """What came of the cases of one family: how many were read, the faults by kind, the seconds."""

    family: str
    cases: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {kind}" for kind, count in self.faults.items()) or "no faults"
        return f"{self.family:<12}{self.cases:>7} cases, {self.seconds:>6.0f} s: {faults}"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser("tools/fuzz", description=__doc__)
    parser.add_argument("--family", nargs="+", choices=list(BY_NAME), default=list(BY_NAME), help="default: all")
    parser.add_argument("--cases", type=int, default=1000, help="of each family (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="read this one alone, here, and keep its files")
    parser.add_argument("--seconds", type=int, default=20, help="the most for one case (default: 20)")
    parser.add_argument("--memory", type=int, default=2048, help="the most for the process, in MB (default: 2048)")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="for what goes wrong (default: runs/fuzz)")
    given = parser.parse_args(argv)
    if given.case is not None and len(given.family) != 1:
        parser.error("--case: belongs to one family; give it with --family")
    return given


def fuzz(family: str, given: argparse.Namespace) -> Tally:
    """All cases of a family, in as many processes as it takes."""
    tally, began = Tally(family), time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    while tally.cases < given.cases:
        run_worker(tally, given)
    shutil.rmtree(_folder(family, given), ignore_errors=True)
    tally.seconds = time.monotonic() - began
    return tally


def run_worker(tally: Tally, given: argparse.Namespace) -> None:
    """Lets a process read on until it has read all cases, or ends at one of them."""
    folder = _folder(tally.family, given)
    numbers = map(str, (given.seed, tally.cases, given.cases, given.seconds, given.memory))
    command = [*WORKER, tally.family, str(folder), *numbers]
    quiet = subprocess.DEVNULL
    case, told = -1, -1
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=quiet, text=True) as process,
    ):
        for line in process.stdout or ():
            if line.startswith("{"):
                wrong = json.loads(line)
                told = wrong["case"]
                keep(tally, given, told, None, wrong["what"], wrong["told"])
            else:
                case = int(line)
        code = process.wait()
        errors.seek(0)
        said = errors.read()
    if case < 0:
        raise SystemExit(f"the worker of {tally.family} did not begin:\n{said[-3000:]}")
    if code and told != case:
        at = said.rfind(HUNG)
        keep(tally, given, case, folder, "hang" if at >= 0 else "crash", said[at:] if at >= 0 else said[-4000:])
    tally.cases = case + 1


def _folder(family: str, given: argparse.Namespace) -> Path:
    """Where the files of a case lie while it is read."""
    out: Path = given.out.resolve()
    return out / f"case-{family}"


def keep(tally: Tally, given: argparse.Namespace, case: int, folder: Path | None, what: str, told: str) -> None:
    """Counts a fault and reports it beside its files; where the process ended, these still lie in `folder`."""
    tally.faults[what] += 1
    kept = kept_in(given.out.resolve(), tally.family, given.seed, case)
    if folder is not None:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, symlinks=True, ignore=_pipes)
    again = f"tools/fuzz --family {tally.family} --seed {given.seed} --case {case}"
    (kept / "report.txt").write_text(f"{what}\n{again}\n\n{told}\n", encoding="utf-8", errors="backslashreplace")
    last = told.strip().splitlines()[-1][:150] if told.strip() else ""
    print(f"{tally.family} {case}: {what}: {last}", flush=True)


def _pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_fifo()]


def main() -> int:
    """The command; 1 if a case went wrong."""
    given = arguments()
    if given.case is not None:
        family, folder = BY_NAME[given.family[0]], _folder(given.family[0], given)
        with tempfile.TemporaryDirectory() as good:
            family.make(Path(good))
            run_case(family, Path(good), folder, chance_of(family.name, given.seed, given.case))
        print(f"case {given.case} ends as it should; its files are in {folder}")
        return 0
    tallies = []
    for family in given.family:
        tallies.append(fuzz(family, given))
        print(tallies[-1], flush=True)
    return int(any(tally.faults for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
