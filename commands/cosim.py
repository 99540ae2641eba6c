"""``nmsat cosim``: a program on the RTL of the whole accelerator, against the golden executor and the cycle model."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..models.errors import NmsatError
from .options import add_run_options, positive, step, verb
from .output import check_outputs, write

SIMULATORS = ("verilated", "cxxrtl", "verilator", "icarus", "amaranth")


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "cosim",
        "a program on the RTL of the whole accelerator",
        "nmsat cosim digits-mlp -a sat_4x4 --batch 16 --steps 1",
        _cosim,
    )
    add_run_options(parser)
    parser.add_argument("--sim", choices=SIMULATORS, default="verilated", help="default: verilated")
    parser.add_argument("--steps", type=positive, default=1, metavar="K", help="default: 1")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of weights and memory pauses (default: 0)")
    parser.add_argument("--lr", type=float, default=0.05, metavar="X", help="learning rate (default: 0.05)")
    parser.add_argument(
        "--stall",
        type=float,
        default=0.0,
        metavar="P",
        help="probability of pauses of the memory",
    )
    parser.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")


def _cosim(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    if not 0 <= args.stall < 1:
        raise NmsatError.rule("", "--stall", "from 0 to below 1", args.stall)
    if args.seed < 0:
        raise NmsatError.rule("", "--seed", "0 or more", args.seed)
    from ..models import Accelerator
    from .cosim_task import task_of

    accelerator = Accelerator.load(args.accelerator)
    task = task_of(args, accelerator, step)
    cases = task.run(args.sim, args.stall, args.seed)
    failed = sum(case["failed"] for case in cases)
    talk = not (args.quiet or args.json == "-")
    if talk:
        _print(cases, args.stall > 0)
    if args.json:
        found = {
            "meta": task.program.meta | {"sim": args.sim, "steps": args.steps, "stall": args.stall, "seed": args.seed},
            "cases": [{key: value for key, value in case.items() if key != "failed"} for case in cases],
            "passed": len(cases) - failed, "failed": failed,
        }  # fmt: skip
        write(args.json, json.dumps(found, indent=1) + "\n")
    return 1 if failed else 0


def _print(cases: list[dict[str, Any]], stalls: bool) -> None:
    head = f"{'step':>4} {'descriptor':<28} {'RTL':>9} {'model':>9} {'error':>7}"
    print(head)
    for case in cases:
        names = case["parameters"]
        if case["block"] == "tensors":
            continue
        label = f"{names['index']:3} {names['kind']} {names['layer']} {names['stage']}"
        model, rtl = case["cycles_simulator"], case["cycles_rtl"]
        print(f"{names['step']:4} {label:<28} {rtl:9,} {model:9,} {rtl - model:7,}")
    for case in cases:
        if case["block"] == "tensors":
            names = case["parameters"]
            verdict = "equal" if not case["bits_differing"] else f"{case['bits_differing']} BITS DIFFER"
            print(
                f"step {names['step']}: {names['tensors']} tensors, {verdict}; {case['cycles_rtl']:,} cycles,"
                f" model {case['cycles_simulator']:,}" + (" without pauses" if stalls else "")
                + (f"; loss {names['loss']:.4f}" if names.get("loss") is not None else "")
            )  # fmt: skip
