"""``nmsat verilog``: write the blocks of an accelerator as Verilog, with a manifest."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError
from .options import verb
from .output import write

BLOCKS = ("stce", "uspe", "sore", "transposer", "wuve", "epilogue", "drain")
WHOLE = ("product", "top")  # only if asked for: they hold the others


def add(verbs: Any) -> None:
    parser = verb(
        verbs, "verilog", "Verilog of the blocks, and a manifest", "nmsat verilog -a sat_4x4 -o out/rtl", _verilog
    )
    parser.add_argument("-a", "--accelerator", default="sat", metavar="ACCEL", help="name or YAML file (default: sat)")
    parser.add_argument(
        "--block",
        action="append",
        metavar="BLOCK",
        help=f"one of {', '.join((*BLOCKS, *WHOLE))} (default: all but the last two); may be repeated",
    )
    parser.add_argument(
        "--primitives", action="store_true", help="place the card's cells (DSP48E2, CARRY8, ...) where that saves area"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder; made if it is not there")


def _verilog(args: argparse.Namespace) -> int:
    from ..models import Accelerator
    from ..rtl.blocks import component_of
    from ..rtl.verilog import manifest, verilog

    accelerator = Accelerator.load(args.accelerator)
    names = list(dict.fromkeys(args.block or [name for name in BLOCKS if accelerator.window or name != "drain"]))
    for name in names:
        if name not in (*BLOCKS, *WHOLE):
            raise NmsatError.rule("", "--block", f"one of {', '.join((*BLOCKS, *WHOLE))}", name)
    folder = Path(args.output)
    if folder.exists() and not folder.is_dir():
        raise NmsatError.rule("", "-o", "a folder", args.output)
    designs = {
        f"{name}.v": verilog(component_of(name, accelerator), name, primitives=args.primitives) for name in names
    }
    text = manifest(designs, {"name": accelerator.name, "config_hash": accelerator.config_hash()})
    folder.mkdir(parents=True, exist_ok=True)
    for name, design in designs.items():
        write(str(folder / name), design.text)
        if not args.quiet:
            size, modules = len(design.text), len(design.emitted.instances)
            print(f"{folder / name}: {size:,} bytes, {modules} modules, {design.digest[:16]}")
    write(str(folder / "manifest.json"), text)
    return 0
