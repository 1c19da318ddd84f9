"""tools/compare: variants of the losses, heads or recipe, trained on data sets with equal budgets and seeds."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from gfldet.errors import UserError, WorkError
from gfldet.experiments import Budget, Result, parse_variant, run
from measure.report import beside, chart, markdown
from measure.variants import NAMED, SETS


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser("tools/compare", description=__doc__)
    names = "; ".join(f"{name}: {', '.join(v.name for v in variants)}" for name, variants in SETS.items())
    names = names.replace("%", "%%")  # argparse formats help texts
    parser.add_argument(
        "variants",
        nargs="*",
        metavar="VARIANT",
        help=f"one that has a name ({names}), or one of your own, NAME:key=value,key=value (default: the whole set)",
    )
    parser.add_argument("--set", choices=list(SETS), default="losses", help="what to compare (default: losses)")
    parser.add_argument(
        "--data",
        nargs="+",
        default=["shapes"],
        help="data YAMLs; several make one table of differences from the first variant (default: the built-in shapes)",
    )
    parser.add_argument("--model", default="gfldet-n", help="model (default: gfldet-n)")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[30], help="length of a run, or one length for each data set"
    )
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
        given.variants = [parse_variant(text, NAMED) for text in given.variants] or list(SETS[given.set])
    except ValueError as error:
        parser.error(str(error))
    if len({Path(data).stem for data in given.data}) < len(given.data):
        parser.error("--data: two of the files have one name, which is what their runs are called by; rename one")
    if len(given.epochs) not in (1, len(given.data)):
        parser.error(f"--epochs: {len(given.epochs)} lengths for {len(given.data)} data sets; give one or as many")
    if len(given.epochs) == 1:
        given.epochs *= len(given.data)
    return given


def main() -> int:
    """Run everything, a seed and a data set at a time, and write the table after each run."""
    given = arguments()
    budgets = {
        Path(data).stem: Budget(data, given.model, epochs, given.imgsz, given.batch, given.out)
        for data, epochs in zip(given.data, given.epochs, strict=True)
    }
    results: dict[str, list[Result]] = {name: [] for name in budgets}
    lengths = ", ".join(f"{Path(budget.data).name}: {budget.epochs} epochs" for budget in budgets.values())
    facts = [
        f"{lengths}; {given.model} from scratch, {given.imgsz} px, batch {given.batch}, last weights",
        f"command: `tools/compare {shlex.join(sys.argv[1:])}`",
    ]
    table = ""
    try:
        for seed in given.seeds:
            for variant in given.variants:
                for name, budget in budgets.items():
                    print(f"{name}, {variant.name}, seed {seed} ...", file=sys.stderr, flush=True)
                    results[name].append(run(variant, seed, budget))
                first, *others = results.values()
                table = beside(results, facts) if others else markdown(first, facts)
                (given.out / "table.md").write_text(table, encoding="utf-8")
        chart(results, given.out / "chart.png")
    except (UserError, WorkError) as error:
        print(f"tools/compare: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
