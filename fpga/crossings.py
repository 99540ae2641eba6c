"""Nets between cells in different super logic regions: what a floorplan asks of the wires between them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..rtl.emit import Emitted
from .floorplan import Placement

_MODULE = re.compile(r"^module \\(\S+)$")
_WIRE = re.compile(r"^  wire (?:width (\d+) )?(?:(input|output) \d+ +)?(?:signed +)?(\\\S+|\$\S+)$")
_CELL = re.compile(r"^  cell (\S+) (\S+)$")
_CONNECT = re.compile(r"^    connect \\(\S+) (.*)$")
_ASSIGN = re.compile(r"^(?:connect| {4,}assign) (\\\S+|\$\S+)(?: (\[\d+(?::\d+)?\]))? (.*)$")
_PART = re.compile(r"(\d+)'[01x-]+|(\\\S+|\$\S+)(?: \[(\d+)(?::(\d+))?\])?")
_SWITCH = re.compile(r"^ +switch (.*)$")
_BITWISE = {"$and", "$or", "$xor", "$xnor", "$not", "$mux"}
_EVERYWHERE = re.compile(r"(.*_)?(clk|rst)")  # of any domain: all have the one clock

_Bit = tuple[str, int]
_Place = tuple[str, _Bit]  # path of a module's instance, and a bit in it
_Ports = list[tuple[str, list[_Bit | None]]]  # of a cell: port and its bits, lowest first; None is a constant


@dataclass(frozen=True, slots=True)
class Crossing:
    """A net of a module that joins ports of cells in several regions, directly or behind logic of the modules around.

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
    logic: list[tuple[list[_Bit], list[_Bit]]] = field(default_factory=list)  # bits that depend on others at once


def crossings(emitted: Emitted, placement: Placement) -> list[Crossing]:
    """Nets between cells of different regions with no register between, clock and reset left out.

    First those that join cells directly; then, a net each, inputs of cells that logic of a module around them, which
    belongs to no region, makes from outputs of cells elsewhere. A net that passes a register of the module between two
    cells is two nets: registers of a module whose cells are placed apart belong to no region, and placement may put
    them at the edge. Of the registers inside the cells it knows those that a net starts at; whether one stands where
    it ends is not looked at.
    """
    modules = _read(emitted.rtlil)
    found: list[Crossing] = []
    launches: dict[str, set[_Bit]] = {}
    direct: set[_Place] = set()

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
        direct.update((path, bit) for bit in apart)
        for net in sorted({net for net, _ in apart}):
            bits = {bit: regions for bit, regions in apart.items() if bit[0] == net}
            regions = tuple(sorted(set().union(*bits.values())))
            found.append(Crossing(path, net.lstrip("\\"), len(bits), len(bits.keys() & starts), regions))
        return {(net.removeprefix("\\"), place): regions for (net, place), regions in reached.items()}

    look("", emitted.top, set())
    return found + _behind_logic(modules, emitted.top, placement, direct)


def _behind_logic(modules: dict[str, _Module], top: str, placement: Placement, direct: set[_Place]) -> list[Crossing]:
    """Nets at inputs of cells that depend in the same cycle on outputs of cells in other regions.

    Left out are bits ``direct`` and what is joined to them: these are known.
    """
    joined: dict[_Place, list[_Place]] = {}  # bits by path
    after: dict[_Place, list[_Place]] = {}  # what a bit decides through logic
    starts: dict[int, list[_Place]] = {}
    ends: list[tuple[int, _Place]] = []

    def walk(path: str, name: str) -> None:
        module = modules[name]
        for target, source in module.wires.items():
            if source is not None:
                joined.setdefault((path, source), []).append((path, target))
        for targets, sources in module.logic:
            for source in sources:
                after.setdefault((path, source), []).extend((path, target) for target in targets)
        for cell, kind, ports in module.placed:
            where = f"{path}/{cell}" if path else cell
            region = placement.cells.get(where)
            if region is None:
                walk(where, kind)
            for port, bits in ports:
                leaves = port in modules[kind].outputs
                for place, bit in enumerate(bits):
                    if bit is None or _EVERYWHERE.fullmatch(port):
                        continue
                    outside, inside = (path, bit), (where, (f"\\{port}", place))
                    if region is None:
                        source, target = (inside, outside) if leaves else (outside, inside)
                        joined.setdefault(source, []).append(target)
                    elif leaves:
                        starts.setdefault(region, []).append(outside)
                    else:
                        ends.append((region, outside))

    walk("", top)
    known = _closure(direct, joined)
    reached = {region: _closure(bits, joined, after) for region, bits in starts.items()}
    nets: dict[tuple[str, str], dict[_Bit, set[int]]] = {}
    for region, (path, bit) in ends:
        others = {other for other, seen in reached.items() if other != region and (path, bit) in seen}
        if others and (path, bit) not in known:
            nets.setdefault((path, bit[0]), {}).setdefault(bit, set()).update(others, {region})
    return [
        Crossing(path, net.lstrip("\\"), len(bits), 0, tuple(sorted(set().union(*bits.values()))))
        for (path, net), bits in sorted(nets.items())
    ]


def _closure(bits: Iterable[_Place], *edges: dict[_Place, list[_Place]]) -> set[_Place]:
    """Bits and all that follows from them."""
    seen = set(bits)
    left = list(seen)
    while left:
        bit = left.pop()
        for onward in edges:
            for target in onward.get(bit, ()):
                if target not in seen:
                    seen.add(target)
                    left.append(target)
    return seen


def crossings_text(found: list[Crossing], header: str) -> str:
    """Sums by regions and a line a net, for the build folder."""
    total = sum(item.bits for item in found)
    lines = [
        f"# {header}",
        f"# {len(found)} nets, {total} bits, from cell to cell in another region without a register between.",
        "# launched: bits that start at a register of their cell, with no logic before the crossing; the others have",
        "# logic there, or in a module around the cells. Whether a register stands at the other end is not looked at.",
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
    cells: list[tuple[_Module, str, dict[str, list[_Bit | None]]]] = []  # logic
    deciding: list[_Bit] = []  # what a process switches on
    assigned: list[tuple[_Bit, _Bit | None]] = []
    for line in rtlil.splitlines():
        if match := _MODULE.match(line):
            module = modules.setdefault(match[1], _Module())
        elif match := _WIRE.match(line):
            module.widths[match[3]] = int(match[1] or 1)
            if match[2] == "output":
                module.outputs.add(match[3].removeprefix("\\"))
        elif match := _CELL.match(line):
            kind, ports, clocked = match[1], [], match[1] == "$dff"
            if kind.startswith("$"):
                cells.append((module, kind, {}))
            else:
                module.placed.append((match[2].removeprefix("\\"), kind.removeprefix("\\"), ports))
        elif match := _CONNECT.match(line):
            bits = _bits(match[2], module.widths)
            ports.append((match[1], bits))
            if kind.startswith("$"):
                cells[-1][2][match[1]] = bits
            if clocked and match[1] in ("Q", "DATA"):
                module.registers.update(bit for bit in bits if bit)
        elif line.startswith("    parameter \\CLK_ENABLE "):  # of a memory's port
            clocked = kind == "$memrd_v2" and line.endswith("1")
        elif line.startswith("  process "):
            process, chosen, deciding, assigned = {}, False, [], []
        elif match := _SWITCH.match(line):
            chosen = True
            deciding += [bit for bit in _bits(match[1], module.widths) if bit]
        elif line == "  end":
            if process and not chosen:
                module.wires |= process
            elif process:
                module.logic.append((list(process), deciding))
                module.logic += [([target], [source]) for target, source in assigned if source]
            process = None
        elif match := _ASSIGN.match(line):
            target = _bits(f"{match[1]} {match[2]}" if match[2] else match[1], module.widths)
            for bit, source in zip(target, _bits(match[3], module.widths), strict=True):
                assert bit is not None
                (module.wires if process is None else process)[bit] = source
                if process is not None:
                    assigned.append((bit, source))
    for module, kind, connected in cells:
        module.logic += _of_cell(kind, connected, module.registers)
    for module in modules.values():
        module.placed = [item for item in module.placed if item[1] in modules]
    return modules


def _of_cell(
    kind: str, connected: dict[str, list[_Bit | None]], registers: set[_Bit]
) -> list[tuple[list[_Bit], list[_Bit]]]:
    """Bits that a cell of logic makes, and those that it makes them from; nothing of registers and memories' writes."""
    targets = connected.get("DATA" if kind == "$memrd_v2" else "Y", [])
    if any(bit in registers for bit in targets if bit):
        return []
    sources = [bits for port, bits in connected.items() if port in ("A", "B", "ADDR")]
    found = []
    if kind in _BITWISE:
        for place, bit in enumerate(targets):
            found.append(([bit], [bits[min(place, len(bits) - 1)] for bits in sources]))
        sources = []
    found.append((targets, [bit for bits in [*sources, connected.get("S", [])] for bit in bits]))
    return [([bit for bit in made if bit], [bit for bit in of if bit]) for made, of in found]


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
