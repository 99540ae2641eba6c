"""``nmsat allocate``: a pattern for every layer, by weight error under a budget of cycles."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError
from .options import options, positive, verb
from .output import check_outputs, show, write


def add(verbs: Any) -> None:
    example = "nmsat allocate trained/workload.yaml --budget 2:8 -o allocated.yaml"
    parser = verb(
        verbs, "allocate", "choose every layer's pattern: least weight error within a budget of cycles", example, _run
    )
    parser.add_argument("network", metavar="WORKLOAD.yaml", help="a workload file with weights: nmsat train or export")
    parser.add_argument(
        "--budget", required=True, metavar="N:M|CYCLES", help="cycles, or those of one pattern everywhere"
    )
    parser.add_argument("-a", "--accelerator", default="sat", metavar="ACCEL", help="name or YAML file (default: sat)")
    parser.add_argument("--patterns", metavar="P,P,...", help="default: dense and N of 4, 8, 16 up to a half")
    parser.add_argument("--method", choices=("bdwp", "sr-ste", "sdwp"), default="bdwp", help="default: bdwp")
    parser.add_argument("--batch", type=positive, metavar="B", help="default: the file's")
    parser.add_argument("--mode", choices=("train", "infer"), help="default: the file's")
    parser.add_argument(
        "--error", choices=("relative", "absolute"), default="relative",
        help="squares of dropped weights, each layer's over its own sum (default) or as they are",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="the network with its patterns and masks")
    parser.add_argument("--json", metavar="FILE", help="write the choice as JSON; - is standard output")
    parser.set_defaults(dataflow="auto", overlap="full", interleave=True, pregenerate=True)


def _run(args: argparse.Namespace) -> int:
    check_outputs(args.output, args.json)
    if args.output and not args.output.endswith((".yaml", ".yml")):
        raise NmsatError.rule("", "-o", "a .yaml file", args.output)
    from ..models import Accelerator, Sparsity
    from ..models.workload_file import WorkloadFile
    from ..simulator.allocate import apply, problem

    network, accelerator = WorkloadFile.load(Path(args.network)), Accelerator.load(args.accelerator)
    batch, mode = args.batch or network.workload.batch or 512, args.mode or network.workload.mode or "train"
    patterns = args.patterns.split(",") if args.patterns else None
    step = {"method": args.method, "batch": batch, "mode": mode}
    found = problem(network, accelerator, patterns=patterns, options=options(args), error=args.error, **step)
    uniform = None
    if args.budget.isascii() and args.budget.replace(",", "").isdigit():
        budget = int(args.budget.replace(",", ""))
    else:
        uniform = found.uniform(Sparsity.parse(args.budget, key="--budget"))
        budget = uniform.cycles
    best = found.best(budget)
    if args.output:
        apply(network, best.patterns(), **step).save(args.output)
    if args.json:
        data = {
            "meta": {"workload": network.workload.name, "accelerator": accelerator.name, "error": args.error, **step},
            "budget_cycles": budget,
            "uniform": _facts(uniform) if uniform else None,
            "allocated": _facts(best),
        }
        write(args.json, json.dumps(data, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        from ..reports.tables import allocation_lines

        show(*allocation_lines(best, uniform, budget, args.budget))
        if args.output:
            print(f"{args.output}: nmsat run {args.output} -a {args.accelerator} --method {args.method}")
    return 0


def _facts(found: Any) -> dict[str, Any]:
    layers = [
        {"layer": item.layer, "pattern": str(item.pattern), "cycles": item.cycles, "error": item.error}
        for item in found.choices
    ]
    return {"cycles": found.cycles, "error": found.error, "layers": layers}
