"""tools/bench: gfldet against ultralytics, and LibreYOLO, in one run on one machine, as a table for each."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gfldet.errors import UserError
from gfldet.machine.cores import cores
from measure.bench import LIBRE, PEER
from measure.bench.export import export
from measure.bench.rows import PARTS, measure
from measure.bench.setup import Bench
from measure.bench.sides import (
    WITHOUT_BFLOAT16,
    BenchError,
    Side,
    libre_python,
    libre_side,
    our_side,
    peer_python,
    peer_side,
)
from measure.bench.table import Row, markdown, plain

LONG = ("accuracy", "scale", "libre")  # only when asked for


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        "tools/bench",
        description=__doc__,
        epilog="--python FILE, as the first argument, is the Python that runs gfldet (default: .venv of the checkout).",
    )
    usual = [part for part in PARTS if part not in LONG]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: {' '.join(usual)}")
    parser.add_argument("--data", default="shapes", help="data YAML, as gfldet takes it (default: the built-in shapes)")
    parser.add_argument("--out", type=Path, action="append", default=[], help="write the table to a .md or .json too")
    parser.add_argument("--peer-python", type=Path, help=f"a Python with ultralytics {PEER} (default: .bench/peer)")
    parser.add_argument("--libre-python", type=Path, help=f"a Python with LibreYOLO {LIBRE} (default: .bench/libre)")
    parser.add_argument(
        "--weights", type=Path, help="a yolov8n.pt that both sides read in predict (default: fresh weights)"
    )
    parser.add_argument("--plot", type=Path, help="scale: a picture (.png or .svg) of how the costs grow")
    parser.add_argument(
        "--hide-bfloat16", action="store_true", help="measure as on a processor that does not multiply bfloat16 itself"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        help="of a measurement (default: 1 of train, epoch, memory and busy, 9 of help, else 3 or 5)",
    )
    parser.add_argument(
        "--threads", type=int, default=cores(), help="of the assigner, on both sides (default: every core)"
    )
    parser.add_argument("--imgsz", type=int, default=320, help="of train and accuracy (default: 320)")
    parser.add_argument("--batch", type=int, default=16, help="of train, mosaic and accuracy (default: 16)")
    parser.add_argument(
        "--short", type=int, default=2, help="train: epochs of the shorter run; the other has twice as many"
    )
    parser.add_argument("--epochs", type=int, default=60, help="accuracy: epochs (default: 60)")
    parser.add_argument("--peer-accuracy", action="store_true", help="accuracy: train the peer too (long)")
    parser.add_argument(
        "--quick", action="store_true", help="only to see that everything works; the figures mean nothing"
    )
    parser.add_argument(
        "--work", type=Path, help="a new folder for runs and copies, kept (default: temporary, removed)"
    )
    given = parser.parse_args(argv)
    given.parts = given.parts or usual
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if wrong := [str(out) for out in given.out if out.suffix not in (".md", ".json")]:
        parser.error(f"--out {wrong[0]}: expected a name that ends in .md or .json")
    if given.quick:
        given.short, given.epochs, given.imgsz = 1, 1, 160
    return given


@contextlib.contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The folder that everything is written to."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="gfldet-bench-", ignore_cleanup_errors=True) as folder:
            yield Path(folder).resolve()
        return
    given.mkdir(parents=True)
    yield given.resolve()


def about(ours: Side, theirs: Side, libre: Side | None, given: argparse.Namespace) -> dict[str, str]:
    """Where and with what it is measured; both sides have read their libraries once after this."""
    mine, peer = ours.ask("warm"), theirs.ask("warm")
    if peer.pop("ultralytics") != PEER:
        raise BenchError(f"{theirs.python}: another version of ultralytics; install ultralytics=={PEER}")
    other = libre.ask("warm") if libre else {}
    if libre and other.pop("libreyolo") != LIBRE:
        raise BenchError(f"{libre.python}: another version of LibreYOLO; install libreyolo=={LIBRE}")
    return {
        "machine": f"{_processor()}, {cores()} cores, {platform.system()}, {_bfloat16(given.hide_bfloat16)}",
        "gfldet": f"{mine.pop('gfldet')}, {_versions(mine)}",
        theirs.name: _versions(peer),
        **({libre.name: _versions(other)} if libre else {}),
        "data": Path(given.data).name,
        "command": "tools/bench " + " ".join(sys.argv[1:]),
    }


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _bfloat16(hidden: bool) -> str:
    """Whether the processor multiplies bfloat16 itself, on which the training rows hang."""
    import torch

    from gfldet.machine.device import mixed_precision

    if mixed_precision("auto", torch.device("cpu")) is None:
        return "without bfloat16"
    return "bfloat16 hidden" if hidden else "with bfloat16"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> int:
    """Measure, print the table, write it where asked; 1 if a measurement failed, 2 for bad input."""
    given = arguments()
    data = given.data if given.data == "shapes" else str(Path(given.data).resolve())
    rows: list[Row] = []
    facts: dict[str, str] = {}
    status = 0
    try:
        with work_folder(given.work) as work:
            if given.hide_bfloat16:
                os.environ.update(WITHOUT_BFLOAT16)
            ours, theirs = our_side(work), peer_side(work, peer_python(given.peer_python))
            libre = libre_side(work, libre_python(given.libre_python)) if "libre" in given.parts else None
            facts = about(ours, theirs, libre, given)
            copy = export(data, work / "data")
            bench = Bench(
                ours,
                theirs,
                work,
                data,
                copy,
                given.repeats,
                given.quick,
                given.threads,
                given.imgsz,
                given.batch,
                given.epochs,
                given.short,
                given.peer_accuracy,
                given.weights.resolve() if given.weights else None,
                not given.hide_bfloat16,
                given.plot,
                libre,
            )
            for row in measure(bench, given.parts):
                rows.append(row)
    except (UserError, BenchError, OSError) as error:
        print(f"tools/bench: {error}", file=sys.stderr)
        status = 2 if isinstance(error, UserError) else 1
    if rows:  # also those from before a failure: they took long enough
        tell(rows, facts, given.out)
    return status


def tell(rows: list[Row], facts: dict[str, str], files: list[Path]) -> None:
    """Print the table and write it to files, as markdown or JSON by their names."""
    table = markdown(rows, facts)
    print(table, end="")
    for file in files:
        text = table if file.suffix == ".md" else json.dumps(plain(rows, facts), indent=2)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
