"""``nmsat kernel predict``: cycles of kernels on cores, by the cycle model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from .options import verb
from .output import check_outputs, show, write


def add(kinds: Any, product: Callable[[argparse.ArgumentParser], None]) -> None:
    parser = verb(
        kinds,
        "predict",
        "cycles of a kernel on a core, by the cycle model (docs/kernel_model.md)",
        "nmsat kernel predict 16x1 --core cortex-a72 --shape 196x512x512 --json -",
        _predict,
    )
    product(parser)
    parser.add_argument(
        "--core",
        action="append",
        metavar="CORE",
        help="of `nmsat list cores`, or a YAML file; repeatable (default: all)",
    )
    parser.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")


def _predict(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    from ..dataflow.kernels.presets import preset
    from ..dataflow.kernels.samples import checked_shape
    from ..models.core import Core
    from ..models.errors import MissingToolError
    from ..simulator.kernels.predict import arm_form, predict_shape

    kernel, shape = preset(args.kernel), checked_shape(args.shape)
    rows = []
    absent: list[str] = []
    for name in args.core or Core.names():
        core = Core.load(name)
        form = kernel if core.isa == "x86-64" else arm_form(kernel)
        try:
            found = predict_shape(core, form, shape, args.sparsity, args.seed)
        except MissingToolError as error:
            if args.core:
                raise
            absent.append(f"{name}: left out; {error}")
            continue
        rows.append(found.to_dict() | {"kernel": args.kernel})
    if args.json:
        write(args.json, json.dumps(rows, indent=1) + "\n")
    if not (args.json == "-" or args.quiet):
        for row in rows:
            memory = f"{100 * row['memory_cycles'] / row['cycles']:.0f} % memory"
            show(
                f"{row['core']:17} {row['kernel']}: {row['cycles']:,} cycles (model), bound by {row['bound']}, {memory}"
            )
        for line in absent:
            show(line)
    return 0
