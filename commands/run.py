"""``nmsat run``: simulate a training step or an inference."""

from __future__ import annotations

import argparse
from typing import Any

from ..models.errors import NmsatError
from .options import add_run_options, step, verb
from .output import check_outputs, show, write


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "run",
        "simulate a training step or an inference",
        "nmsat run resnet18 --sparsity 2:8 --csv rows.csv",
        _run,
    )
    add_run_options(parser)
    parser.add_argument(
        "--semantics",
        choices=("nmsat", "scalesim"),
        default="nmsat",
        help="scalesim: that tool's printed cycles, dense forward only",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the rows as CSV")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - is standard output")
    parser.add_argument("--trace", metavar="FILE", help="write the schedule as a Chrome/Perfetto trace")


def _run(args: argparse.Namespace) -> int:
    check_outputs(args.csv, args.json, args.trace)
    from ..models import Accelerator, Workload

    if is_core(args.accelerator):
        return _run_core(args)
    workload, accelerator = Workload.load(args.workload), Accelerator.load(args.accelerator)
    if args.semantics == "scalesim":
        from ..simulator.scalesim import simulate_scalesim

        if args.trace:
            raise NmsatError.rule("", "--trace", "left out under --semantics scalesim", args.trace)
        dataflow = "os" if args.dataflow == "auto" else args.dataflow
        result = simulate_scalesim(workload, accelerator, dataflow=dataflow, batch=args.batch or 1)
    else:
        from ..simulator import simulate

        result = simulate(workload, accelerator, **step(args, workload))
    if args.csv:
        write(args.csv, result.to_csv())
    if args.json:
        write(args.json, result.to_json())
    if args.trace:
        from ..reports.trace import chrome_trace

        write(args.trace, chrome_trace(result, accelerator.clock_mhz))
    if not (args.quiet or "-" in (args.json, args.csv, args.trace)):
        from ..reports.tables import layer_table, summary_lines

        show(layer_table(result, accelerator.processing_elements), *summary_lines(result, accelerator.dram_gib))
    return 0


def is_core(name: str) -> bool:
    """Whether ``-a`` names a CPU core, shipped or a file of the core format."""
    from pathlib import Path

    from ..models.core import Core
    from ..models.yaml_io import read_yaml

    if name in Core.names():
        return True
    path = Path(name)
    return path.is_file() and path.suffix in (".yaml", ".yml") and read_yaml(path).get("format") == "nmsat-core/1"


def _run_core(args: argparse.Namespace) -> int:
    """Inference on a CPU core by the cycle model: the same workload, the same columns."""
    from ..models import Workload
    from ..models.core import Core
    from ..simulator.kernels.network import simulate_core

    for option, given in (("--trace", args.trace), ("--semantics", args.semantics == "scalesim")):
        if given:
            raise NmsatError.rule("", option, "left out on a CPU core", given)
    core = Core.load(args.accelerator)
    result = simulate_core(
        Workload.load(args.workload),
        core,
        method=args.method,
        sparsity=args.sparsity,
        batch=args.batch or 1,
        mode=args.mode,
    )
    for name, text in ((args.csv, result.to_csv), (args.json, result.to_json)):
        if name:
            write(name, text())
    if not (args.quiet or "-" in (args.json, args.csv)):
        from ..reports.tables import core_summary, layer_table
        from ..simulator.kernels.network import peak_macs

        show(layer_table(result, peak_macs(core)), *core_summary(result))
    return 0
