"""What the verbs have in common: their look, and the options of a simulated step."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..models.errors import NmsatError

Handler = Callable[[argparse.Namespace], int]


def verb(verbs: Any, name: str, summary: str, example: str, handler: Handler) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what was asked for by other options")
    parser.set_defaults(handler=handler)
    return parser


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    from ..models.methods import METHODS

    parser.add_argument(
        "workload",
        metavar="WORKLOAD",
        help="zoo name, .yaml, .onnx, .pt2, .safetensors or .npz with its YAML, SCALE-Sim .csv",
    )
    parser.add_argument("-a", "--accelerator", default="sat", metavar="ACCEL", help="name or YAML file (default: sat)")
    parser.add_argument("--method", choices=tuple(METHODS), default="bdwp", help="default: bdwp")
    parser.add_argument("--sparsity", default="2:8", metavar="N:M", help="pattern, or dense (default: 2:8)")
    parser.add_argument(
        "--batch", type=positive, metavar="B", help="default: the workload file's, else 512; 1 under scalesim"
    )
    parser.add_argument("--mode", choices=("train", "infer"), help="default: the workload file's, else train")
    parser.add_argument(
        "--dataflow",
        choices=("auto", "os", "ws", "is"),
        default="auto",
        help="default: auto; is only under scalesim",
    )
    parser.add_argument(
        "--overlap",
        choices=("full", "none"),
        default="full",
        help="none: memory, vector work and tiles are serial",
    )
    parser.add_argument(
        "--interleave",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="hide the adder's latency behind independent sums",
    )
    parser.add_argument(
        "--pregenerate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="prune weights once, at their update",
    )


def options(args: argparse.Namespace) -> Any:
    from ..dataflow import Options

    if args.dataflow == "is":
        raise NmsatError.rule("", "--dataflow", "auto, os or ws", "is", "is exists under --semantics scalesim only")
    full = args.overlap == "full"
    return Options(
        dataflow=args.dataflow,
        interleave=args.interleave,
        tile_overlap=full,
        dram_overlap=full,
        pregenerate=args.pregenerate,
        forward_on_chip=full,
    )


def step(args: argparse.Namespace, workload: Any) -> dict[str, Any]:
    """Keyword arguments that simulate and compile_program share; a workload file may say its batch and mode."""
    return {
        "method": args.method,
        "sparsity": args.sparsity,
        "batch": args.batch or workload.batch or 512,
        "mode": args.mode or workload.mode or "train",
        "options": options(args),
    }
