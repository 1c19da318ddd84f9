"""tools/compare: variants of the losses and heads, trained on one data set with equal budgets and seeds."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from compare_parts.report import Result, chart, markdown
from compare_parts.runs import Budget, run
from compare_parts.variants import VARIANTS, parse
from gfldet.errors import UserError, WorkError


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser("tools/compare", description=__doc__)
    names = ", ".join(variant.name for variant in VARIANTS)
    parser.add_argument(
        "variants",
        nargs="*",
        metavar="VARIANT",
        help=f"of {names} (default: all), or one of your own: NAME:key=value,key=value",
    )
    parser.add_argument("--data", default="shapes", help="data YAML (default: the built-in shapes)")
    parser.add_argument("--model", default="gfldet-n", help="model (default: gfldet-n)")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/compare"),
        help="folder of the runs, table.md and chart.png; runs that it holds are not trained again",
    )
    given = parser.parse_args(argv)
    try:
        given.variants = [parse(text) for text in given.variants] or list(VARIANTS)
    except ValueError as error:
        parser.error(str(error))
    return given


def main() -> int:
    """Run everything, a seed at a time, and write the table after each run."""
    given = arguments()
    results: list[Result] = []
    budget = Budget(given.data, given.model, given.epochs, given.imgsz, given.batch, given.out)
    data = Path(given.data).name
    facts = [
        f"data: {data}; {given.model}, {given.epochs} epochs from scratch, {given.imgsz} px, batch {given.batch}, last "
        "weights",
        f"command: `tools/compare {shlex.join(sys.argv[1:])}`",
    ]
    try:
        for seed in given.seeds:
            for variant in given.variants:
                print(f"{variant.name}, seed {seed} ...", file=sys.stderr, flush=True)
                results.append(run(variant, seed, budget))
                (given.out / "table.md").write_text(markdown(results, facts), encoding="utf-8")
        chart(results, given.out / "chart.png")
    except (UserError, WorkError) as error:
        print(f"tools/compare: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(markdown(results, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
