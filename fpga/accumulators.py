"""Both accumulators side by side: areas of arrays and of elements by yosys.

Estimates, never a fit: no place and route, no buffers, no DMA, no shell.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..models.accelerator import Accelerator
from ..rtl.array_parameters import ArrayParameters
from ..rtl.emit import Emission
from ..rtl.window_uspe import WindowUspe
from .estimate import Area, estimate, modules_of

SIZES = (4, 8, 16, 32, 64)
WINDOWS = ((24, 47), (24, 55), (30, 53), (30, 61), (33, 56), (33, 64), (36, 67))  # L, W of the table of elements
KEYS = ("lut", "lut_memory", "lc", "ff", "dsp")


def arrays(base: Accelerator, sizes: Iterable[int] = SIZES) -> list[dict[str, Any]]:
    """Areas of square arrays of ``base`` with each accumulator: edges, feet, sequencer and, with a window, the drain.

    Returns
    -------
    list of dict
        ``size``, ``accumulator``, areas (KEYS), ``lut_per_element``: the array's LUTs over its elements, ``tool``.
    """
    rows = []
    for size in sizes:
        for name in ("fp32", "window"):
            machine = base.replace(rows=size, cols=size, accumulator=name)
            found = estimate("stce", machine)
            area = {key: found["area"][key] for key in KEYS}
            if machine.window:
                drain = estimate("drain", machine)["area"]
                area = {key: area[key] + drain[key] for key in KEYS}
            each = {"size": size, "accumulator": name, **area, "lut_per_element": area["lut"] / size**2}
            rows.append(each | {"tool": found["tool"]})
    return rows


def elements(base: Accelerator) -> list[dict[str, Any]]:
    """Areas of one element: fp32, windows of WINDOWS, and 33/64 with the select before the conversion to operands.

    Returns
    -------
    list of dict
        ``element``, areas (KEYS), ``depth`` (see :func:`.estimate.modules_of`).
    """
    found = estimate("uspe", base.replace(accumulator="fp32"))
    depth = max(module["depth"] for module in found["modules"].values())
    rows = [{"element": "fp32", **{key: found["area"][key] for key in KEYS}, "depth": depth}]
    for lsb, bits in WINDOWS:
        machine = base.replace(accumulator="window", window_lsb=lsb, window_bits=bits)
        rows.append(_element(f"window {lsb}/{bits}", machine))
    machine = base.replace(accumulator="window")
    later = f"window {machine.window_lsb}/{machine.window_bits}"
    rows.append(_element(f"{later}, 5-cycle multiplier", machine.replace(multiplier_latency_cycles=5)))
    rows.append(_element(f"{later}, select before conversion", machine, raw=True))
    return rows


def tables(found: dict[str, list[dict[str, Any]]]) -> tuple[list[str], list[str]]:
    """Markdown of elements and of arrays, from ``elements`` and ``arrays`` as above."""
    first = ["| element | LUT | of it memory | LC | FF | DSP | depth |", "|---|---|---|---|---|---|---|"]
    for row in found["elements"]:
        numbers = " | ".join(str(row[key]) for key in (*KEYS, "depth"))
        first.append(f"| {row['element']} | {numbers} |")
    second = ["| array | accumulator | LUT | FF | DSP | LUT an element |", "|---|---|---|---|---|---|"]
    for row in found["arrays"]:
        numbers = " | ".join(f"{row[key]:,}" for key in ("lut", "ff", "dsp"))
        second.append(
            f"| {row['size']}x{row['size']} | {row['accumulator']} | {numbers} | {row['lut_per_element']:.0f} |"
        )
    return first, second


def _element(name: str, machine: Accelerator, *, raw: bool = False) -> dict[str, Any]:
    element = WindowUspe(**ArrayParameters.from_accelerator(machine).element(), raw=raw)
    areas, depths = modules_of(Emission(primitives=True).emit(element, "uspe"))
    total = Area()
    for area in areas.values():
        total = total.plus(area, 1)
    return {"element": name, **{key: getattr(total, key) for key in KEYS}, "depth": max(depths.values())}
