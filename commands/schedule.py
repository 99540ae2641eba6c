"""``nmsat schedule``: compile a workload to its program."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..models.errors import NmsatError
from .options import add_run_options, step, verb
from .output import check_outputs, write


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "schedule",
        "compile to the program",
        "nmsat schedule digits-mlp -a sat_4x4 --batch 16 -o program.bin",
        _schedule,
    )
    add_run_options(parser)
    parser.add_argument("--layer", metavar="L", help="only this layer's descriptors")
    parser.add_argument("-o", "--output", metavar="FILE", help="program.json (readable) or program.bin (encoded)")
    parser.add_argument("--json", metavar="FILE", help="write the readable form; - is standard output")


def _schedule(args: argparse.Namespace) -> int:
    check_outputs(args.output, args.json)
    if args.output and not args.output.endswith((".json", ".bin")):
        raise NmsatError.rule("", "-o", "a .json (readable) or .bin (encoded) file", args.output)
    from ..dataflow import compile_program
    from ..models import Accelerator, Workload

    workload, accelerator = Workload.load(args.workload), Accelerator.load(args.accelerator)
    program = compile_program(workload, accelerator, **step(args, workload))
    readable = program.readable()
    if args.layer is not None:
        if args.layer not in program.layers:
            raise NmsatError.rule("", "--layer", f"a layer of {workload.name}", args.layer)
        readable["descriptors"] = [item for item in readable["descriptors"] if item["layer"] == args.layer]
    if args.output and args.output.endswith(".bin"):
        if args.layer is not None:
            raise NmsatError.rule("", "--layer", "left out with an encoded program", args.layer, "write .json instead")
        write(args.output, program.encode())
    elif args.output:
        write(args.output, json.dumps(readable, indent=1) + "\n")
    if args.json:
        write(args.json, json.dumps(readable, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        for item in readable["descriptors"]:
            shown = " ".join(f"{key}={value}" for key, value in item.items() if key not in ("kind", "layer", "stage"))
            print(f"{item['kind']:8} {item['layer']} {item['stage']} {shown}")
        print(f"{len(program.descriptors)} descriptors, {len(program.encode())} bytes encoded")
    return 0
