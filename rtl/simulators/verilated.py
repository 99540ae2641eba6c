"""Verilator's model of a design in this process: slow to build, the fastest to run by far."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..cache import built
from ..emit import Emitted
from ..verilog import LINT_WAIVERS, verilog_of
from .bench import Body, finish
from .compiled import LIBRARY, CompiledBench, Places, harness
from .compiler import require_compiler, run_tool
from .verilator import verilator_folder, verilator_path, verilator_version

CELLS = Path(__file__).parents[1] / "ultrascale.v"
"""Models of the card's cells, for designs emitted with ``primitives``."""
_OPTIONS = ("--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "-Wno-fatal", *LINT_WAIVERS)
_FLAGS = ("-std=c++17", "-fPIC", "-DVERILATOR=1", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TRACE=0")
_TOP = "nmsat_bench"
_RUNTIME = ("verilated.cpp", "verilated_threads.cpp")


class VerilatedBench(CompiledBench):
    """A design compiled by Verilator, loaded into this process.

    Parameters
    ----------
    emitted : Emitted
        What to build; builds are kept (:mod:`nmsat.rtl.cache`).

    Raises
    ------
    MissingToolError
        verilator, perl or g++ is not installed.
    """

    def __init__(self, emitted: Emitted) -> None:
        places = Places(emitted.ports)
        super().__init__(places, _build(emitted, places))


def _wrapper(emitted: Emitted, places: Places) -> str:
    """A module whose ports are two vectors of words: no name of a port can clash with C++."""
    pins = [".clk(clk)"] if places.clocked else []
    for vector, ports in (("i", places.inputs), ("o", places.outputs)):
        pins += [f".{name}({vector}[{8 * at} +: {places.widths[name]}])" for name, (at, _) in ports.items()]
    return (
        f"module {_TOP}(input clk, input [{32 * places.in_words - 1}:0] i,"
        f" output [{32 * places.out_words - 1}:0] o);\n  {emitted.top} made({', '.join(pins)});\nendmodule\n"
    )


def _build(emitted: Emitted, places: Places) -> Path:
    require_compiler()
    include = verilator_folder() / "include"
    text = verilog_of(emitted).text + (CELLS.read_text() if emitted.primitives else "") + _wrapper(emitted, places)
    code = harness(
        places,
        head=f'#include "V{_TOP}.h"\ndouble sc_time_stamp() {{ return 0; }}',
        type_name=f"V{_TOP}",
        step="design.eval();",
        clock="design.clk = {value};",
        reads=f"  memcpy(&design.i, in, {4 * places.in_words});\n",
        writes=f"  memcpy(out, &design.o, {4 * places.out_words});\n",
    )

    def build(folder: Path) -> None:
        (folder / "design.v").write_text(text)
        command = ["verilator", *_OPTIONS, "--Mdir", ".", "--top-module", _TOP, "design.v"]
        run_tool(command, folder, os.environ | {"PATH": verilator_path()})
        (folder / "harness.cpp").write_text(code)
        flags = [*_FLAGS, f"-I{include}", f"-I{include / 'vltstd'}"]

        def compile_one(source: Path) -> str:
            level = "-O0" if source.stem.endswith("Slow") else "-O1"  # what runs once, and what runs every cycle
            run_tool(["g++", "-c", level, *flags, str(source), "-o", f"{source.stem}.o"], folder)
            return f"{source.stem}.o"

        sources = [*sorted(folder.glob("*.cpp")), *(include / name for name in _RUNTIME)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, sources))
        run_tool(["g++", "-shared", *objects, "-o", LIBRARY, "-lpthread"], folder)
        for name in objects:
            (folder / name).unlink()

    inputs = [text, code, " ".join((*_OPTIONS, *_FLAGS)), verilator_version()]
    return built("verilated", inputs, build)


def run_verilated(emitted: Emitted, body: Body, arguments: dict[str, Any]) -> Any:
    """Run a test body on a design."""
    return finish(body(VerilatedBench(emitted), **arguments))
