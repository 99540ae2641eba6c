"""Nets that reach cells in different super logic regions: what a floorplan asks of the wires between them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..rtl.emit import Emitted
from .floorplan import Placement

_MODULE = re.compile(r"^module \\(\S+)$")
_WIRE = re.compile(r"^  wire (?:width (\d+) )?(?:(?:input|output) \d+ +)?(?:signed +)?(\\\S+|\$\S+)$")
_CELL = re.compile(r"^  cell \\(\S+) \\(\S+)$")
_CONNECT = re.compile(r"^    connect \\(\S+) (.*)$")
_PART = re.compile(r"(\d+)'[01x-]+|(\\\S+|\$\S+)(?: \[(\d+)(?::(\d+))?\])?")
_EVERYWHERE = re.compile(r"(.*_)?(clk|rst)")  # of any domain: all have the one clock

_Bit = tuple[str, int]
_Ports = list[tuple[str, list[_Bit | None]]]  # of a cell: port and its bits, lowest first; None is a constant


@dataclass(frozen=True, slots=True)
class Crossing:
    """A net of a module that joins ports of cells in several regions directly.

    Attributes
    ----------
    module : str
        Path of the instance that has the net; empty for the top.
    net : str
    bits : int
        Of the net, that reach several regions.
    regions : tuple of int
    """

    module: str
    net: str
    bits: int
    regions: tuple[int, ...]


def crossings(emitted: Emitted, placement: Placement) -> list[Crossing]:
    """Nets between cells of different regions with nothing between, clock and reset left out.

    A net that passes a register of the module between two cells is two nets: registers of a module whose cells are
    placed apart belong to no region, and placement may put them at the edge. What is left out: registers inside the
    cells at either end, of which this knows nothing.
    """
    modules = _connections(emitted.rtlil)
    found: list[Crossing] = []

    def look(path: str, module: str) -> dict[_Bit, set[int]]:
        """Regions that every bit of a module's nets reaches inside it; crossings are noted on the way."""
        reached: dict[_Bit, set[int]] = {}
        apart: dict[_Bit, set[int]] = {}
        for cell, kind, ports in modules[module]:
            where = f"{path}/{cell}" if path else cell
            region = placement.cells.get(where)
            inside = look(where, kind) if region is None else {}
            for port, bits in ports:
                for place, bit in enumerate(bits):
                    regions = {region} if region is not None else inside.get((port, place), set())
                    if bit is None or _EVERYWHERE.fullmatch(port) or not regions:
                        continue
                    if reached.get(bit, regions) != regions:
                        apart.setdefault(bit, set()).update(regions, reached[bit])
                    reached[bit] = reached.get(bit, set()) | regions
        for net in sorted({net for net, _ in apart}):
            bits = [regions for (name, _), regions in apart.items() if name == net]
            found.append(Crossing(path, net.lstrip("\\"), len(bits), tuple(sorted(set().union(*bits)))))
        return {(net.removeprefix("\\"), place): regions for (net, place), regions in reached.items()}

    look("", emitted.top)
    return found


def crossings_text(found: list[Crossing], header: str) -> str:
    """A line a net, for the build folder."""
    total = sum(item.bits for item in found)
    lines = [
        f"# {header}",
        f"# {len(found)} nets, {total} bits, from cell to cell in another region without a register between.",
        "# bits  regions  net",
    ]
    for item in found:
        path = f"{item.module}/{item.net}" if item.module else item.net
        lines.append(f"{item.bits:6}  {','.join(map(str, item.regions)):7}  {path}")
    return "\n".join(lines) + "\n"


def _connections(rtlil: str) -> dict[str, list[tuple[str, str, _Ports]]]:
    """Of every module its placed modules: instance, module, ports."""
    modules: dict[str, list[tuple[str, str, _Ports]]] = {}
    widths: dict[str, int] = {}
    cells: list[tuple[str, str, _Ports]] = []
    open_cell = False
    for line in rtlil.splitlines():
        if module := _MODULE.match(line):
            cells, widths = modules.setdefault(module[1], []), {}
        elif wire := _WIRE.match(line):
            widths[wire[2]] = int(wire[1] or 1)
        elif line.startswith("  cell "):
            cell = _CELL.match(line)
            open_cell = cell is not None
            if cell is not None:
                cells.append((cell[2], cell[1], []))
        elif open_cell and (joined := _CONNECT.match(line)):
            cells[-1][2].append((joined[1], _bits(joined[2], widths)))
    known = set(modules)
    return {name: [item for item in inside if item[1] in known] for name, inside in modules.items()}


def _bits(signal: str, widths: dict[str, int]) -> list[_Bit | None]:
    """Bits of a signal of RTLIL, the lowest first."""
    found: list[_Bit | None] = []
    for part in reversed(list(_PART.finditer(signal))):
        if part[1]:
            found += [None] * int(part[1])
        else:
            high = int(part[3]) if part[3] else widths[part[2]] - 1
            low = int(part[4]) if part[4] else (high if part[3] else 0)
            found += [(part[2], place) for place in range(low, high + 1)]
    return found
