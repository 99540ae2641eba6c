"""``nmsat list``: what ships with the package."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .options import verb
from .output import write


def add(verbs: Any) -> None:
    parser = verb(verbs, "list", "what ships with the package", "nmsat list workloads --json -", _list)
    parser.add_argument("what", nargs="?", choices=("workloads", "accelerators", "cores"), help="default: all")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")


def _list(args: argparse.Namespace) -> int:
    from ..models import Accelerator, Workload
    from ..models.core import Core

    data: dict[str, Any] = {}
    if args.what in (None, "workloads"):
        loaded = [Workload.load(name) for name in Workload.names()]
        data["workloads"] = [
            {
                "name": w.name,
                "layers": len(w.layers),
                "macs": w.macs,
                "weights": w.weights,
                "description": w.description,
            }
            for w in loaded
        ]
    if args.what in (None, "accelerators"):
        items = [Accelerator.load(name) for name in Accelerator.names()]
        data["accelerators"] = [
            {
                "name": a.name,
                "rows": a.rows,
                "cols": a.cols,
                "clock_mhz": a.clock_mhz,
                "description": a.description,
            }
            for a in items
        ]
    if args.what in (None, "cores"):
        cores = [Core.load(name) for name in Core.names()]
        data["cores"] = [
            {
                "name": c.name,
                "isa": c.isa,
                "engine": c.engine,
                "in_order": c.in_order,
                "clock_mhz": c.clock_mhz.value,
                "description": c.description,
            }
            for c in cores
        ]
    if args.json:
        write(args.json, json.dumps(data, indent=1) + "\n")
    if not (args.json == "-" or args.quiet):
        from ..reports.tables import quantity

        for w in data.get("workloads", []):
            size = f"{quantity(w['macs'], 'MAC'):>10} {quantity(w['weights']):>7} weights"
            print(f"{w['name']:16} {size}  {w['description']}")
        for a in data.get("accelerators", []):
            print(f"{a['name']:16} {a['description']}")
        for c in data.get("cores", []):
            print(f"{c['name']:16} {c['description']}")
    return 0
