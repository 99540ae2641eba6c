"""``nmsat verify``: the RTL against the golden model (bits) and the simulator (cycles), on random legal cases."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from ..models.errors import NmsatError
from .options import positive, verb
from .output import check_outputs, write


def add(verbs: Any) -> None:
    example = "nmsat verify sore -a sat_4x4 --cases 20 --sim amaranth"
    parser = verb(verbs, "verify", "RTL against golden (bits) and simulator (cycles)", example, _verify)
    parser.add_argument(
        "block", nargs="*", metavar="BLOCK", help="stce, uspe, sore, transposer, wuve, epilogue, drain (default: all)"
    )
    parser.add_argument(
        "-a", "--accelerator", default="sat_4x4", metavar="ACCEL", help="name or YAML file (default: sat_4x4)"
    )
    parser.add_argument(
        "--sim",
        choices=("icarus", "verilator", "amaranth", "cxxrtl", "verilated"),
        default="cxxrtl",
        help="default: cxxrtl",
    )
    parser.add_argument("--cases", type=positive, default=10, metavar="K", help="random cases a block (default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="number of the first case (default: 0)")
    parser.add_argument("-j", "--jobs", type=positive, default=1, metavar="J", help="processes (default: 1)")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")
    parser.add_argument(
        "--primitives", action="store_true", help="the text for the card on models of its cells; icarus or verilator"
    )
    parser.add_argument("--waves", metavar="FILE", help="waveforms; one block, not with cxxrtl, verilated")


def _verify(args: argparse.Namespace) -> int:
    from ..models import Accelerator
    from ..rtl.testbench import BLOCKS

    check_outputs(args.json, args.waves)
    accelerator = Accelerator.load(args.accelerator)
    names = list(dict.fromkeys(args.block)) or [name for name in BLOCKS if accelerator.window or name != "drain"]
    for name in names:
        if name not in BLOCKS:
            raise NmsatError.rule("", "BLOCK", f"one of {', '.join(BLOCKS)}", name)
    if args.waves and len(names) != 1:
        raise NmsatError.rule("", "--waves", "used with one block", len(names))
    if args.waves and args.jobs > 1:
        raise NmsatError.rule("", "--waves", "used with -j 1", args.jobs)
    if args.first < 0:
        raise NmsatError.rule("", "--first", "0 or more", args.first)
    talk = not (args.quiet or args.json == "-")
    rows = []
    for name in names:
        if args.jobs > 1:
            found = verify_jobs(
                name, accelerator, args.sim, args.cases, args.seed, args.first, args.jobs, args.primitives
            )
        else:
            how = {"first": args.first, "primitives": args.primitives}
            found = verify_block(name, accelerator, args.sim, args.cases, args.seed, args.waves, **how)
        rows += found
        if talk:
            _print(name, found)
    failed = sum(not row["passed"] for row in rows)
    keys = ("block", "case", "parameters", "bits_differing", "cycles_rtl", "cycles_simulator", "stream_violations")
    content = {
        "accelerator": accelerator.name,
        "config_hash": accelerator.config_hash(),
        "sim": args.sim,
        "seed": args.seed,
        "cases": [{key: row[key] for key in keys} for row in rows],
        "passed": len(rows) - failed,
        "failed": failed,
    }
    if args.json:
        write(args.json, json.dumps(content, indent=1) + "\n")
    if talk:
        print(f"{content['passed']} cases passed, {failed} failed ({args.sim}, seed {args.seed})")
    return 1 if failed else 0


def verify_block(
    name: str,
    accelerator: Any,
    sim: str,
    cases: int,
    seed: int,
    waves: str | None = None,
    *,
    first: int = 0,
    primitives: bool = False,
) -> list[dict[str, Any]]:
    """Random cases of one block, each run at full speed, with random pauses, and with a reset on the way.

    Parameters
    ----------
    cases, seed, first : int
        Cases ``first`` to ``first + cases - 1`` of the seed; a case does not depend on those before it.

    Returns
    -------
    list of dict
        A row a case. ``bits_differing`` and ``stream_violations`` count all three runs, ``cycles_rtl`` is of the one
        at full speed, from the first word in to the last word out as seen at the ports.
    """
    from ..rtl.simulators import run_bench
    from ..rtl.testbench import BLOCKS

    block = BLOCKS[name]
    dice = [random.Random(f"{seed} {name} {number}") for number in range(first, first + cases)]
    drawn = [block.draw(rng, accelerator) for rng in dice]
    runs = [case.runs(rng) for case, rng in zip(drawn, dice, strict=True)]
    flat = [run for each in runs for run in each]
    made = block.make(accelerator)
    results = iter(run_bench(made, name, block.body, {"runs": flat}, sim, waves, primitives=primitives))
    rows = []
    for number, case, each in zip(range(first, first + cases), drawn, runs, strict=True):
        found = [next(results) for _ in each]
        row = {
            "block": name,
            "case": number,
            "parameters": case.parameters,
            "bits_differing": sum(case.bits_differing(result["words"]) for result in found),
            "cycles_rtl": found[0]["cycles"],
            "cycles_simulator": simulator_cycles(*case.timing),
            "stream_violations": sum(result["broken"] for result in found),
        }
        equal = row["cycles_rtl"] == row["cycles_simulator"]
        rows.append(row | {"passed": equal and not row["bits_differing"] and not row["stream_violations"]})
    return rows


def verify_jobs(
    name: str, accelerator: Any, sim: str, cases: int, seed: int, first: int, jobs: int, primitives: bool = False
) -> list[dict[str, Any]]:
    """:func:`verify_block` in several processes: the same rows in the same order."""
    rows = verify_block(
        name, accelerator, sim, 1, seed, first=first, primitives=primitives
    )  # builds what the others then find built
    share = 25  # cases: small enough to share out evenly, large enough to pay for loading a build
    starts = range(first + 1, first + cases, share)
    run = partial(verify_block, primitives=primitives)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        parts = [
            pool.submit(run, name, accelerator, sim, min(share, first + cases - at), seed, first=at) for at in starts
        ]
        for part in parts:
            rows += part.result()
    return rows


def simulator_cycles(block: str, *sizes: Any) -> int:
    """What the simulator says a case takes: the cycle engine for the array, the closed forms for the engines."""
    from ..dataflow import vector_timing
    from ..dataflow.array_timing import ArrayShape
    from ..simulator.engine import run_product

    if block == "stce":
        p, dataflow, a, values, indices, group, interleave, m_chunk, segment = sizes
        shape = ArrayShape(p.rows, p.cols, p.adder_latency, p.multiplier_latency)
        found = run_product(
            shape, dataflow, a, values, indices,
            group=group, interleave=interleave, m_chunk=m_chunk, window=p.window, segment=segment,
        )  # fmt: skip
        return found.cycles + p.hop  # as the scheduler adds slr_hop_cycles
    return getattr(vector_timing, f"{block}_cycles")(*sizes)


def _print(name: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        text = " ".join(f"{key}={value}" for key, value in row["parameters"].items())
        state = "ok" if row["passed"] else "DIFFERS"
        bits, rtl, simulator = row["bits_differing"], row["cycles_rtl"], row["cycles_simulator"]
        extra = f" stream violations {row['stream_violations']}" if row["stream_violations"] else ""
        print(f"{state:8}{name:11}{row['case']:<6}{text[:70]:71} bits {bits:<5} cycles {rtl} {simulator}{extra}")
