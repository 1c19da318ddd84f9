"""tools/compare: variants of the losses and heads, trained on one data set with equal budgets and seeds."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

from compare_parts.report import Result, chart, markdown
from compare_parts.variants import VARIANTS, Variant, parse
from gfldet import Model
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


def run(variant: Variant, seed: int, given: argparse.Namespace) -> Result:
    """Train and validate one variant with one seed, or read what an earlier call found."""
    name = "".join(c if c.isalnum() else "-" for c in f"{variant.name}-{given.epochs}-{seed}").lower()
    file: Path = given.out / f"{name}.json"
    if file.is_file():
        return Result(**json.loads(file.read_text(encoding="utf-8")))
    quiet = {"project": str(given.out), "plots": False, "verbose": False, "exist_ok": True, "device": "cpu"}
    data = {"data": given.data, "imgsz": given.imgsz, "batch": given.batch}
    began = time.perf_counter()
    Model(given.model).train(**data, **quiet, **variant.settings, epochs=given.epochs, seed=seed, val=False, name=name)
    seconds = time.perf_counter() - began
    found = Model(given.out / name / "weights" / "last.pt").val(**data, **quiet, name=f"{name}-val")
    plain = {key: math.nan if value is None else value for key, value in found.to_dict().items()}
    metrics = {key: value for key, value in plain.items() if isinstance(value, float)}
    result = Result(variant.name, seed, metrics, round(seconds, 1))
    file.write_text(json.dumps(asdict(result), indent=2), encoding="utf-8")
    return result


def main() -> int:
    """Run everything, a seed at a time, and write the table after each run."""
    given = arguments()
    results: list[Result] = []
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
                results.append(run(variant, seed, given))
                (given.out / "table.md").write_text(markdown(results, facts), encoding="utf-8")
        chart(results, given.out / "chart.png")
    except (UserError, WorkError) as error:
        print(f"tools/compare: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(markdown(results, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
