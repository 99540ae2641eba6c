"""``nmsat kernel``: sparse CPU kernels generated, run and timed."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from ..models.errors import NmsatError
from . import kernel_predict
from .options import positive, verb
from .output import check_outputs, show, write


def add(verbs: Any) -> None:
    parser = verbs.add_parser("kernel", help="sparse CPU kernels", description="sparse CPU kernels")
    kinds = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    kernels = verb(kinds, "list", "the kernels that ship", "nmsat kernel list --json -", _list)
    kernels.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")
    emit = verb(
        kinds,
        "emit",
        "generate a kernel's code with seeded weights",
        "nmsat kernel emit 2:8 --shape 49x160x960 -o kernel.wat",
        _emit,
    )
    _product(emit)
    emit.add_argument("--target", choices=("wasm", "aarch64", "numba"), default="wasm", help="default: wasm")
    emit.add_argument(
        "-o", "--output", metavar="FILE", default="-", help=".wasm is written as a binary; default: stdout"
    )
    run = verb(
        kinds,
        "run",
        "run a kernel and compare it with the exact reference",
        "nmsat kernel run sparse --shape 196x512x512 --sparsity 0.9",
        _run,
    )
    _product(run)
    run.add_argument(
        "--engine", action="append", metavar="E", help="wasmtime (default), node, numba or qemu; repeatable"
    )
    run.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")

    kernel_predict.add(kinds, _product)
    timing = verb(
        kinds,
        "bench",
        "time kernels and their peers in one run",
        "nmsat kernel bench --shape 196x512x512 --sparsity 0.9 --rounds 5",
        _bench,
    )
    timing.add_argument("--shape", type=shape, action="append", metavar="MxNxK", help="repeatable (default: all 42)")
    timing.add_argument("--sparsity", type=float, action="append", metavar="S", help="repeatable (default: 0.9)")
    timing.add_argument("--rounds", type=positive, default=7, metavar="R", help="of 2 ms a kernel (default: 7)")
    timing.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")

    packing = verb(
        kinds,
        "pack",
        "pack a workload file's pruned weights and report their footprint",
        "nmsat kernel pack pruned.yaml --json -",
        _pack,
    )
    packing.add_argument("workload", metavar="FILE", help="a workload file with weights")
    packing.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")
    network = verb(
        kinds,
        "network",
        "run a whole mobile network in one wasm module and compare every tensor",
        "nmsat kernel network mobilenet_v2 --sparsity 0.9",
        _network,
    )
    network.add_argument("workload", metavar="WORKLOAD", help="zoo name (seeded weights) or workload file with weights")
    network.add_argument("--sparsity", type=float, default=0.9, metavar="S", help="of seeded weights (default: 0.9)")
    network.add_argument("--seed", type=int, default=0, help="of weights and input (default: 0)")
    network.add_argument("--simd", choices=("relaxed", "plain"), default="relaxed", help="default: relaxed (fused)")
    network.add_argument("--engine", choices=("wasmtime", "node"), default="wasmtime", help="default: wasmtime")
    network.add_argument("--rounds", type=positive, default=3, metavar="R", help="timed runs (default: 3)")
    network.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")


def _product(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", help="a name of `nmsat kernel list`")
    parser.add_argument("--shape", type=shape, default=(196, 512, 512), metavar="MxNxK", help="default: 196x512x512")
    parser.add_argument("--sparsity", type=float, default=0.9, metavar="S", help="share of zeros (default: 0.9)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and input (default: 0)")


def shape(text: str) -> tuple[int, int, int]:
    """(m, n, k) of ``MxNxK``."""
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})x(\d{1,9})", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be MxNxK, not {text!r}")
    m, n, k = (positive(part) for part in match.groups())
    return m, n, k


def _list(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    from ..dataflow.kernels.presets import PRESETS

    rows = [
        {"name": name, "kernel": kernel.name, "targets": ["wasm", "aarch64", "numba"], "description": text}
        for name, (kernel, text) in PRESETS.items()
    ]
    if args.json:
        write(args.json, json.dumps(rows, indent=1) + "\n")
    if not (args.json == "-" or args.quiet):
        for row in rows:
            print(f"{row['name']:16} {row['description']}")
    return 0


def _packed(args: argparse.Namespace) -> Any:
    from ..dataflow.kernels import pack
    from ..dataflow.kernels.presets import preset
    from ..dataflow.kernels.samples import sample_weights

    if args.seed < 0:
        raise NmsatError.rule("", "--seed", "0 or more", args.seed)
    kernel = preset(args.kernel)
    return pack(kernel, sample_weights(kernel, args.shape, args.sparsity, args.seed))


def _emit(args: argparse.Namespace) -> int:
    check_outputs(args.output)
    packed, text = _packed(args), ""
    if args.target == "wasm":
        text = _emit_wasm(packed, args)
    elif args.target == "aarch64":
        from ..dataflow.kernels import aarch64

        text = aarch64.layer(packed, args.shape[0])
    else:
        from ..dataflow.kernels import numba_text

        text = numba_text.module(packed.kernel, tuple(section.height for section in packed.sections))
    write(args.output, text)
    return 0


def _emit_wasm(packed: Any, args: argparse.Namespace) -> str | bytes:
    from ..simulator.kernels.wasm import load_wasmtime, products_image

    text = products_image([(packed, args.shape[0])])[0].whole_text()
    return bytes(load_wasmtime().wat2wasm(text)) if args.output.endswith(".wasm") else text


def _run(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    from ..dataflow.kernels.samples import sample_input
    from ..simulator.kernels.engines import execute

    packed, x = _packed(args), sample_input(args.shape, args.seed)
    outcomes = [execute(engine, packed, x) for engine in args.engine or ["wasmtime"]]
    if args.json:
        rows = [
            {
                "kernel": args.kernel,
                "shape": list(args.shape),
                "engine": o.engine,
                "bits_differing": o.bits_differing,
                "guards_intact": o.guards_intact,
                "nonzeros": packed.nonzeros,
                "stored": packed.stored,
                "footprint_bytes": packed.footprint_bytes,
            }
            for o in outcomes
        ]
        write(args.json, json.dumps(rows, indent=1) + "\n")
    if not (args.json == "-" or args.quiet):
        dense = 4 * packed.n * (packed.k + 1)
        share = packed.footprint_bytes / dense
        show(
            f"{packed.kernel.name}: {packed.nonzeros} non-zeros, {packed.stored} stored, "
            f"{packed.footprint_bytes} bytes = {100 * share:.1f} % of dense binary32"
        )
        for o in outcomes:
            guards = {True: "guards intact", False: "GUARDS BROKEN", None: "no guards"}[o.guards_intact]
            show(f"{o.engine}: {o.bits_differing} of {packed.n * args.shape[0]} values differ in bits, {guards}")
    return 0 if all(o.ok for o in outcomes) else 1


def _bench(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    from dataclasses import asdict

    from ..dataflow.kernels.shapes import all_shapes
    from ..simulator.kernels.bench import bench, geomean, ratios
    from .output import progress

    points = [(shape, zeros) for zeros in args.sparsity or [0.9] for shape in args.shape or all_shapes()]
    silent, rows, found, missing = args.json == "-" or args.quiet, [], {}, {}
    for where, zeros in progress("kernels")(points):
        timings, absent = bench(where, zeros, args.rounds)
        missing |= absent
        rows += [asdict(t) for t in timings]
        for name, ratio in ratios(timings).items():
            found.setdefault((zeros, name), []).append(ratio)
        if not silent:
            show(*_bench_lines(timings))
    if args.json:
        write(args.json, json.dumps(rows, indent=1) + "\n")
    if not silent:
        show("", "our fastest sparse tile is faster by (measured; geometric mean over the shapes, least, most):")
        for (zeros, name), values in found.items():
            span = f"{geomean(values):5.2f}x  {min(values):5.2f} .. {max(values):.2f}"
            show(f"  {100 * zeros:g} % zeros, {name:28} {span}")
        show(*(f"left out: {name}: {reason}" for name, reason in missing.items()))
    return 0


def _bench_lines(timings: list[Any]) -> list[str]:
    """A product's figures in GFLOP/s: actual, and effective for the dense ones, which compute the zeros too."""
    from ..simulator.kernels.bench import family

    where = timings[0]
    lines = [f"{'x'.join(map(str, where.shape))} at {100 * where.sparsity:g} % zeros, GFLOP/s (dense: effective)"]
    for engine in dict.fromkeys(t.engine for t in timings):
        parts = []
        for name in dict.fromkeys(t.kernel.split(":")[0] for t in timings if t.engine == engine):
            best = family(timings, name, engine)
            assert best is not None
            rate = best.gflops_effective if "dense" in name else best.gflops_actual
            tile = f" ({best.kernel.split(':')[1]})" if ":" in best.kernel else ""
            parts.append(f"{name} {rate:.1f}{tile}")
        lines.append(f"  {engine:10} " + ", ".join(parts))
    return lines


def _pack(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    from pathlib import Path

    from ..dataflow.kernels import pack
    from ..dataflow.kernels.from_workload import columns, kernel_for, matrices
    from ..models.workload_file import WorkloadFile

    file, rows = WorkloadFile.load(Path(args.workload)), []
    sizes = {layer.name: columns(layer) for layer in file.workload.expanded().layers}
    for name, weights in matrices(file).items():
        packed = pack(kernel_for(weights), weights)
        rows.append(
            {
                "layer": name,
                "shape": [sizes[name], packed.n, packed.k],
                "kernel": packed.kernel.name,
                "nonzeros": packed.nonzeros,
                "stored": packed.stored,
                "footprint_bytes": packed.footprint_bytes,
                "dense_bytes": 4 * packed.n * (packed.k + 1),
            }
        )
    if args.json:
        write(args.json, json.dumps(rows, indent=1) + "\n")
    if not (args.json == "-" or args.quiet):
        for row in rows:
            share = 100 * row["footprint_bytes"] / row["dense_bytes"]
            size = f"{'x'.join(map(str, row['shape'])):16} {row['footprint_bytes']:9} bytes, {share:5.1f} % of dense"
            print(f"{row['layer']:24} {size}, {row['kernel']}")
    return 0


def _network(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    import numpy as np

    from ..dataflow.kernels.network import lower, sample_parameters
    from ..models import Workload
    from ..simulator.kernels.network_values import run, sample_image

    if args.seed < 0:
        raise NmsatError.rule("", "--seed", "0 or more", args.seed)
    workload = Workload.load(args.workload)
    if workload.tensors is None:
        weights, biases = sample_parameters(workload, args.sparsity, args.seed)
    else:
        from pathlib import Path

        from ..dataflow.kernels.from_workload import kept_weights
        from ..models.workload_file import WorkloadFile

        file = WorkloadFile.load(Path(args.workload))
        weighted = [x for x in workload.expanded().layers if x.has_weights]
        weights = {x.name: kept_weights(file, x.name) for x in weighted}
        biases = {x.name: np.zeros(x.oc, np.float32) for x in weighted}
    network = lower(workload, weights, biases, "fma" if args.simd == "relaxed" else "mul_add")
    outcome = run(network, sample_image(network, args.seed), args.engine, args.rounds)
    if args.json:
        facts = {"workload": workload.name, "engine": args.engine, "simd": args.simd, "seconds": outcome.seconds}
        facts |= {"steps": len(network.steps), "values": outcome.values, "bits_differing": outcome.bits_differing}
        facts |= {"guards_intact": outcome.guards_intact, "memory_bytes": outcome.memory_bytes}
        write(args.json, json.dumps(facts, indent=1) + "\n")
    if not (args.json == "-" or args.quiet):
        guards = "guards intact" if outcome.guards_intact else "GUARDS BROKEN"
        show(
            f"{workload.name}, {args.simd} SIMD: {len(network.steps)} steps in one module, "
            f"{outcome.memory_bytes / 2**20:.0f} MiB",
            f"{outcome.bits_differing} of {outcome.values} values differ in bits from the reference, {guards}",
            f"{args.engine}: an image in {1e3 * outcome.seconds:.1f} ms of CPU time (measured)",
        )
    return 0 if outcome.ok else 1
