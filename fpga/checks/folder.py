"""A whole build folder, as it lies on the disk, through every check."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ...models.errors import NmsatError
from ...models.yaml_io import validate
from ...rtl.emit import Emitted, Port
from ...rtl.registers import register_map
from ..board import Board
from ..build_folder import FORMAT, MANIFEST, digest
from ..generate import KERNEL, KERNEL_SOURCES
from ..hierarchy import hierarchy_of_verilog
from ..kernel import kernel_of
from .constraints import check_constraints
from .netlist import check_floorplan, check_hierarchy, check_lint
from .scripts import check_block_design, check_build, check_package


def check(folder: Path) -> dict[str, list[str]]:
    """Faults by check; no Vivado is needed.

    Raises
    ------
    NmsatError
        The folder has no manifest of ``nmsat fpga generate``.
    MissingToolError
        tclsh, yosys or Verilator is not installed.
    """
    files, manifest = _read(folder)
    board = validate(Board, manifest["inputs"]["board"], f"{folder / MANIFEST}: inputs.board")
    ports = tuple(Port(str(name), int(width), bool(is_input)) for name, width, is_input in manifest["ports"])
    kernel = kernel_of(Emitted(manifest["top"], "", ports, {}))
    registers = register_map()
    kernel_files = {name: files[name] for name in KERNEL_SOURCES}
    bringup = {name: text for name, text in files.items() if name.startswith("bringup/")}
    lights = {f"led_{number}" for number in range(min(3, len(board.leds.pins)))}
    pins = set(re.findall(r"^  (?:input|output) (\w+);", files["bringup/bringup.v"].partition("endmodule")[0], re.M))
    tree = hierarchy_of_verilog(kernel.top, files["rtl/nmsat_top.v"])
    return {
        "files as generated": _changed(files, manifest),
        "constraints": check_constraints(files, "constraints/board.xdc", board, lights)
        + check_constraints(files, "bringup/bringup.xdc", board, pins),
        "packaging against the register map": check_package(files, board, kernel, registers),
        "block design": check_block_design(files, board, kernel, registers),
        "other scripts": check_build(files, board),
        "floorplan": check_floorplan(files, tree, board.device.slrs),
        "hierarchy with vendor primitives": check_hierarchy(kernel_files, KERNEL) + check_hierarchy(bringup, "bringup"),
        "lint": check_lint(kernel_files, KERNEL),
    }


def _read(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ValueError
        return {name: (folder / name).read_text() for name in manifest["files"]}, manifest
    except (OSError, ValueError, KeyError, TypeError):
        hint = "make it by nmsat fpga generate"
        raise NmsatError.rule("", "DIR", "a folder with a manifest and all its files", str(folder), hint) from None


def _changed(files: dict[str, str], manifest: dict[str, Any]) -> list[str]:
    return [
        f"{name}: must be as it was generated"
        for name, text in files.items()
        if digest(text) != manifest["files"][name]["sha256"]
    ]
