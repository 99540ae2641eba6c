"""The tree of modules and instances of an emitted design."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..rtl.emit import Emitted

_LINE = re.compile(r"^(?:module \\(\S+)|\s+cell \\(\S+) \\(\S+))$", re.M)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Which modules place which.

    Attributes
    ----------
    top : str
    places : dict
        (instance name, module) of everything that a module of the design places, in the text's order.
    """

    top: str
    places: dict[str, tuple[tuple[str, str], ...]]

    def children(self, module: str) -> tuple[tuple[str, str], ...]:
        """(instance name, module) inside a module; nothing inside a primitive."""
        return self.places.get(module, ())

    def paths(self) -> Iterator[tuple[str, str]]:
        """(path below the top, module) of every instance, parents first."""

        def inside(prefix: str, module: str) -> Iterator[tuple[str, str]]:
            for name, kind in self.children(module):
                yield f"{prefix}{name}", kind
                yield from inside(f"{prefix}{name}/", kind)

        return inside("", self.top)


def hierarchy_of(emitted: Emitted) -> Hierarchy:
    """Read the tree from RTLIL. Cells of primitives (yosys' own names begin with a dollar) are left out."""
    places: dict[str, list[tuple[str, str]]] = {}
    module = ""
    for found in _LINE.finditer(emitted.rtlil):
        if found[1]:
            module = found[1]
            places[module] = []
        else:
            places[module].append((found[3], found[2]))
    return Hierarchy(emitted.top, {name: tuple(cells) for name, cells in places.items()})


_VERILOG = re.compile(r"^(?:module (\S+?)\s*\(|  (\S+) +(\S+) +\($)", re.M)


def hierarchy_of_verilog(top: str, text: str) -> Hierarchy:
    """Read the tree from Verilog that :mod:`nmsat.rtl.verilog` has written."""
    places: dict[str, list[tuple[str, str]]] = {}
    module = ""
    for found in _VERILOG.finditer(text):
        if found[1]:
            module = found[1].removeprefix("\\")
            places[module] = []
        else:
            places[module].append((found[3].removeprefix("\\"), found[2].removeprefix("\\")))
    kept = {name: tuple((cell, kind) for cell, kind in cells if kind in places) for name, cells in places.items()}
    return Hierarchy(top, kept)
