"""Nets that reach cells in different super logic regions: what a floorplan asks of the wires between them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..rtl.emit import Emitted
from .floorplan import Placement

_MODULE = re.compile(r"^module \\(\S+)$")
_WIRE = re.compile(r"^  wire (?:width (\d+) )?(?:(input|output) \d+ +)?(?:signed +)?(\\\S+|\$\S+)$")
_CELL = re.compile(r"^  cell (\S+) (\S+)$")
_CONNECT = re.compile(r"^    connect \\(\S+) (.*)$")
_ASSIGN = re.compile(r"^(?:connect|    assign) (\\\S+|\$\S+)(?: (\[\d+(?::\d+)?\]))? (.*)$")
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
    launched : int
        Of these, the ones that come from a register or a registered memory with no logic between.
    regions : tuple of int
    """

    module: str
    net: str
    bits: int
    launched: int
    regions: tuple[int, ...]


@dataclass(slots=True)
class _Module:
    """Nets of a module: its placed modules (instance, module, ports), widths, outputs, and where bits come from."""

    placed: list[tuple[str, str, _Ports]] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    registers: set[_Bit] = field(default_factory=set)
    wires: dict[_Bit, _Bit | None] = field(default_factory=dict)


def crossings(emitted: Emitted, placement: Placement) -> list[Crossing]:
    """Nets between cells of different regions with nothing between, clock and reset left out.

    A net that passes a register of the module between two cells is two nets: registers of a module whose cells are
    placed apart belong to no region, and placement may put them at the edge. Of the registers inside the cells it
    knows those that a net starts at; whether one stands where it ends is not looked at.
    """
    modules = _read(emitted.rtlil)
    found: list[Crossing] = []
    launches: dict[str, set[_Bit]] = {}

    def launched(name: str, inputs: set[_Bit]) -> set[_Bit]:
        """Bits of a module's nets that come straight from a register, if the bits ``inputs`` do."""
        module, known = modules[name], set(inputs)
        known |= module.registers
        for _, kind, ports in module.placed:
            if kind not in launches:
                launches[kind] = launched(kind, set())
            for port, bits in ports:
                if port in modules[kind].outputs:
                    inside = launches[kind]
                    known |= {bit for place, bit in enumerate(bits) if bit and (f"\\{port}", place) in inside}
        for bit in module.wires:
            trail, end = [bit], module.wires[bit]
            while end is not None and end not in known and end in module.wires and end not in trail:
                trail.append(end)
                end = module.wires[end]
            if end is None or end in known:
                known.update(trail)
        return known

    def look(path: str, name: str, inputs: set[_Bit]) -> dict[_Bit, set[int]]:
        """Regions that every bit of a module's nets reaches inside it; crossings are noted on the way."""
        reached: dict[_Bit, set[int]] = {}
        apart: dict[_Bit, set[int]] = {}
        starts = launched(name, inputs)
        for cell, kind, ports in modules[name].placed:
            where = f"{path}/{cell}" if path else cell
            region = placement.cells.get(where)
            inside: dict[_Bit, set[int]] = {}
            if region is None:
                given = {(f"\\{port}", n) for port, bits in ports for n, bit in enumerate(bits) if bit in starts}
                inside = look(where, kind, given)
            for port, bits in ports:
                for place, bit in enumerate(bits):
                    regions = {region} if region is not None else inside.get((port, place), set())
                    if bit is None or _EVERYWHERE.fullmatch(port) or not regions:
                        continue
                    if reached.get(bit, regions) != regions:
                        apart.setdefault(bit, set()).update(regions, reached[bit])
                    reached[bit] = reached.get(bit, set()) | regions
        for net in sorted({net for net, _ in apart}):
            bits = {bit: regions for bit, regions in apart.items() if bit[0] == net}
            regions = tuple(sorted(set().union(*bits.values())))
            found.append(Crossing(path, net.lstrip("\\"), len(bits), len(bits.keys() & starts), regions))
        return {(net.removeprefix("\\"), place): regions for (net, place), regions in reached.items()}

    look("", emitted.top, set())
    return found


def crossings_text(found: list[Crossing], header: str) -> str:
    """Sums by regions and a line a net, for the build folder."""
    total = sum(item.bits for item in found)
    lines = [
        f"# {header}",
        f"# {len(found)} nets, {total} bits, from cell to cell in another region without a register between.",
        "# launched: bits that start at a register of their cell, with no logic before the crossing; the others have",
        "# logic there. Whether a register stands at the other end is not looked at.",
    ]
    for regions in sorted({item.regions for item in found}):
        these = [item for item in found if item.regions == regions]
        bits, launched = sum(item.bits for item in these), sum(item.launched for item in these)
        lines.append(f"# regions {','.join(map(str, regions))}: {len(these)} nets, {bits} bits, {launched} launched")
    lines.append("# bits  launched  regions  net")
    for item in found:
        path = f"{item.module}/{item.net}" if item.module else item.net
        lines.append(f"{item.bits:6}  {item.launched:8}  {','.join(map(str, item.regions)):7}  {path}")
    return "\n".join(lines) + "\n"


def _read(rtlil: str) -> dict[str, _Module]:
    """Modules of a text, primitives of a card left out."""
    modules: dict[str, _Module] = {}
    module, kind, ports = _Module(), "", list[tuple[str, list[_Bit | None]]]()
    clocked = chosen = False
    process: dict[_Bit, _Bit | None] | None = None
    for line in rtlil.splitlines():
        if match := _MODULE.match(line):
            module = modules.setdefault(match[1], _Module())
        elif match := _WIRE.match(line):
            module.widths[match[3]] = int(match[1] or 1)
            if match[2] == "output":
                module.outputs.add(match[3].removeprefix("\\"))
        elif match := _CELL.match(line):
            kind, ports, clocked = match[1], [], match[1] == "$dff"
            if not kind.startswith("$"):
                module.placed.append((match[2].removeprefix("\\"), kind.removeprefix("\\"), ports))
        elif match := _CONNECT.match(line):
            bits = _bits(match[2], module.widths)
            ports.append((match[1], bits))
            if clocked and match[1] in ("Q", "DATA"):
                module.registers.update(bit for bit in bits if bit)
        elif line.startswith("    parameter \\CLK_ENABLE "):  # of a memory's port
            clocked = kind == "$memrd_v2" and line.endswith("1")
        elif line.startswith("  process "):
            process, chosen = {}, False
        elif line.startswith("    switch "):
            chosen = True
        elif line == "  end":
            if process and not chosen:  # else it is logic
                module.wires |= process
            process = None
        elif match := _ASSIGN.match(line):
            target = _bits(f"{match[1]} {match[2]}" if match[2] else match[1], module.widths)
            for bit, source in zip(target, _bits(match[3], module.widths), strict=True):
                assert bit is not None
                (module.wires if process is None else process)[bit] = source
    for module in modules.values():
        module.placed = [item for item in module.placed if item[1] in modules]
    return modules


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
