"""``nmsat export``: a network of another tool becomes a workload file."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..models.errors import NmsatError
from .options import positive, verb
from .output import check_outputs, show, write


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "export",
        "turn a pruned network into a workload file",
        "nmsat export model.onnx -o workload.yaml --batch 64 --pattern auto",
        _export,
    )
    parser.add_argument("model", metavar="MODEL", help=".onnx, .pt2, or .safetensors or .npz with its YAML")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="workload.yaml; its NPZ is put beside it")
    parser.add_argument("--batch", type=positive, default=1, metavar="B", help="samples of a step (default: 1)")
    parser.add_argument("--mode", choices=("train", "infer"), default="train", help="default: train")
    parser.add_argument(
        "--pattern", default="auto", metavar="N:M", help="hold every layer to one pattern; auto finds each one's own"
    )
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=SIZE", help="size of an ONNX file's open dimension"
    )
    parser.add_argument("--json", metavar="FILE", help="write what was found a layer as JSON; - is standard output")


def _export(args: argparse.Namespace) -> int:
    check_outputs(args.output, args.json)
    if not args.output.endswith((".yaml", ".yml")):
        raise NmsatError.rule("", "-o", "a .yaml file", args.output)
    from ..models.importers import import_network

    dims = dict(_dim(text) for text in args.dim)
    found = import_network(args.model, batch=args.batch, mode=args.mode, pattern=args.pattern, dims=dims)
    found.network.save(args.output)
    workload = found.network.workload
    if args.json:
        meta = {"workload": workload.name, "batch": workload.batch, "mode": workload.mode, "pattern": args.pattern}
        source = workload.source.model_dump() if workload.source else None
        data = {"meta": meta | {"source": source}, "layers": found.layers, "notes": list(workload.notes)}
        write(args.json, json.dumps(data, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        from ..reports.patterns import pattern_table

        show(pattern_table(found.layers), *(f"note: {note}" for note in workload.notes[:20]))
        print(f"{args.output}: {len(workload.layers)} layers, {workload.weights:,} weights, batch {workload.batch}")
    return 0


def _dim(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    if not (name and size.isascii() and size.isdigit() and 1 <= int(size[:12]) <= 2**31 - 1):
        raise NmsatError.rule("", "--dim", "NAME=SIZE, for example seq=128", text)
    return name, int(size)
