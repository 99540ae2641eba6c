"""Verilator's model of a design in this process: slow to build, the fastest to run by far."""

from __future__ import annotations

import os
import shutil
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
        _compile(folder, _runtime())

    inputs = [text, code, " ".join((*_OPTIONS, *_FLAGS)), verilator_version()]
    return built("verilated", inputs, build)


def _compile(folder: Path, runtime: Path) -> None:
    """The library from the C++ in a folder."""
    flags, sources = _flags(), sorted(folder.glob("*.cpp"))
    header, jobs = f"V{_TOP}__pch.h", []
    precompiled = folder / f"{header}.gch"  # a folder: the compiler takes the file whose options are its own
    precompiled.mkdir()
    for level in ("-O0", "-O1"):
        if sum(_level(source) == level for source in sources) > 4:  # a large design: its header takes two seconds
            jobs.append(["-x", "c++-header", level, header, "-o", f"{precompiled.name}/{level}"])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: run_tool(["g++", *flags, *job], folder), jobs))
        jobs = [["-c", _level(source), source.name, "-o", f"{source.stem}.o"] for source in sources]
        list(pool.map(lambda job: run_tool(["g++", *flags, *job], folder), jobs))
    objects = [f"{source.stem}.o" for source in sources]
    run_tool(["g++", "-shared", *objects, *map(str, sorted(runtime.glob("*.o"))), "-o", LIBRARY, "-lpthread"], folder)
    shutil.rmtree(precompiled)
    for name in objects:
        (folder / name).unlink()


def _level(source: Path) -> str:
    """What runs once, and what runs every cycle."""
    return "-O0" if source.stem.endswith("Slow") else "-O1"


def _flags() -> list[str]:
    include = verilator_folder() / "include"
    return [*_FLAGS, f"-I{include}", f"-I{include / 'vltstd'}"]


def _runtime() -> Path:
    """Objects of Verilator's runtime, the same for every design."""

    def build(folder: Path) -> None:
        for name in _RUNTIME:
            source = str(verilator_folder() / "include" / name)
            run_tool(["g++", *_flags(), "-c", "-O1", source, "-o", f"{Path(name).stem}.o"], folder)

    return built("verilator", [*_flags(), *_RUNTIME, verilator_version()], build)


def run_verilated(emitted: Emitted, body: Body, arguments: dict[str, Any]) -> Any:
    """Run a test body on a design."""
    return finish(body(VerilatedBench(emitted), **arguments))
