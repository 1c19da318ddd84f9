"""tools/reproduce: the accuracy of gfldet-n from scratch on several data sets, lengths and seeds, as one table."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from gfldet.errors import UserError, WorkError
from gfldet.experiments import Budget, Variant, folder_of, run
from measure.bench.peer import peer_ap
from measure.bench.sides import BenchError
from measure.report import Cell, cells_chart, cells_table


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser("tools/reproduce", description=__doc__)
    parser.add_argument("data", nargs="*", default=["shapes"], help="data YAMLs (default: the built-in shapes)")
    parser.add_argument("--epochs", type=int, nargs="+", default=[30, 60])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", default="gfldet-n")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="one cell: the first data set, length and seed")
    parser.add_argument(
        "--peer", action="store_true", help="train the peer too, with a step every batch (nbs=16); long"
    )
    parser.add_argument("--peer-python", type=Path, help="a Python with the peer (default: .bench/peer)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/reproduce"),
        help="folder of the runs, table.md and chart.png; runs that it holds are not trained again",
    )
    given = parser.parse_args(argv)
    if given.quick:
        given.data, given.epochs, given.seeds = given.data[:1], given.epochs[:1], given.seeds[:1]
    return given


def cell(data: str, epochs: int, given: argparse.Namespace) -> Cell:
    """All seeds of one data set and length."""
    name = Path(data).stem
    budget = Budget(data, given.model, epochs, given.imgsz, given.batch, given.out / name, curve=True)
    default = Variant(given.model, {})
    runs = []
    for seed in given.seeds:
        print(f"{name}, {epochs} epochs, seed {seed} ...", file=sys.stderr, flush=True)
        runs.append(run(default, seed, budget))
    curves = [folder_of(default, seed, budget) / "results.csv" for seed in given.seeds]
    peer = []
    for seed in given.seeds if given.peer else ():
        with tempfile.TemporaryDirectory(prefix="gfldet-reproduce-") as work:
            peer.append(peer_ap(data, epochs, seed, given.imgsz, given.batch, Path(work), given.peer_python))
    return Cell(name, epochs, runs, curves, peer)


def main() -> int:
    """Run every cell, and write the table and the chart after each."""
    given = arguments()
    cells: list[Cell] = []
    facts = [
        f"{given.model} from scratch, {given.imgsz} px, batch {given.batch}, weights of the last epoch",
        f"command: `tools/reproduce {shlex.join(sys.argv[1:])}`",
    ]
    try:
        for data in given.data:
            for epochs in given.epochs:
                cells.append(cell(data, epochs, given))
                (given.out / "table.md").write_text(cells_table(cells, facts), encoding="utf-8")
                cells_chart(cells, given.out / "chart.png")
    except (UserError, WorkError, BenchError) as error:
        print(f"tools/reproduce: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(cells_table(cells, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
