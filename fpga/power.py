"""Dynamic power by an activity model: toggles counted in simulation, times primitives, times assumed energies."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..models.accelerator import Accelerator
from ..rtl.array_bench import run_array
from ..rtl.array_parameters import ArrayParameters
from ..rtl.array_streams import as_json, north_width, os_streams
from ..rtl.simulators import run_bench
from ..rtl.stce import Stce

# Energy of one toggle of an output with its wires, or of one clocked cycle, in pJ at 0.85 V: (low, typical, high).
# Our assumptions, a decade wide: half C V^2 of 0.14, 0.4 and 1.4 pF for an output with its route, 3 to 20 fF of clock a
# flip-flop, some tens of LUTs a busy block. Vivado's own report replaces them (nmsat fpga import-reports).
ENERGY_PJ = {
    "lut": (0.05, 0.15, 0.5),
    "ff": (0.05, 0.15, 0.5),
    "ff_clock": (0.001, 0.003, 0.007),
    "dsp": (1.5, 3.0, 6.0),
    "bram36": (3.0, 6.0, 12.0),
    "uram": (5.0, 10.0, 20.0),
}


def power_model(estimate: dict[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """Dynamic power of a design whose area was estimated.

    Every bit is taken to toggle as often as the average bit of a 2x2 array at work on random dense operands; DSPs and
    memories are busy every cycle. Static power, PCIe and DDR4 are not in it.

    Returns
    -------
    dict
        ``kind`` ("model"), ``toggles_per_bit_cycle``, ``dynamic_w`` (low, typical, high), ``energy_pj``.
    """
    rate = toggle_rate()
    total = estimate["total"]
    counts = {
        "lut": total["lut"] * rate, "ff": total["ff"] * rate, "ff_clock": total["ff"],
        "dsp": total["dsp"], "bram36": total["bram36"], "uram": total["uram"],
    }  # fmt: skip
    watts = [
        sum(counts[name] * energies[level] for name, energies in ENERGY_PJ.items()) * 1e-12 * accelerator.clock_hz
        for level in range(3)
    ]
    return {
        "kind": "model",
        "toggles_per_bit_cycle": rate,
        "clock_mhz": accelerator.clock_mhz,
        "dynamic_w": [round(value, 3) for value in watts],
        "energy_pj": ENERGY_PJ,
    }


@functools.cache
def toggle_rate(seed: int = 1) -> float:
    """Toggles a bit and cycle of all signals of a 2x2 array in a 2:8 product of normal operands, fill included."""
    p = ArrayParameters(rows=2, cols=2, max_keep=2, max_group=8)
    numbers, groups, keep, group, interleave = np.random.default_rng(seed), 24, 2, 8, 4
    a = numbers.normal(size=(p.rows * interleave, groups * group)).astype(np.float16)
    values = numbers.normal(size=(groups, keep, p.cols)).astype(np.float16)
    places = np.sort(np.argsort(numbers.random((groups, group, p.cols)), axis=1)[:, :keep], axis=1).astype(np.uint8)
    streams = as_json(os_streams(p, a, values, places, group, interleave))
    arguments = {**streams, "widths": {"west": 16 * p.max_group, "north": north_width(p)}}
    with tempfile.TemporaryDirectory() as folder:
        waves = Path(folder) / "waves.vcd"
        run_bench(Stce(parameters=p), "stce", run_array, arguments, sim="amaranth", waves=str(waves))
        return round(toggles_of(waves.read_text()), 4)


_VARIABLE = re.compile(r"^\$var \S+ (\d+) (\S+) (\S+)", re.M)


def toggles_of(vcd: str) -> float:
    """Toggles a bit and clock cycle of a VCD text; the variable ``clk`` is the clock and not counted."""
    head, _, body = vcd.partition("$enddefinitions")
    widths = {code: int(width) for width, code, name in _VARIABLE.findall(head) if name != "clk"}
    clocks = {code for _, code, name in _VARIABLE.findall(head) if name == "clk"}
    values: dict[str, int] = {}
    toggles = cycles = 0
    for line in body.splitlines():
        if line.startswith("b"):
            bits, _, code = line[1:].partition(" ")
        elif line[:1] in ("0", "1"):
            bits, code = line[0], line[1:]
        else:
            continue
        if code in clocks:
            cycles += bits == "1"
            continue
        if code not in widths or not set(bits) <= {"0", "1"}:
            continue
        value = int(bits, 2)
        toggles += (values.get(code, value) ^ value).bit_count()
        values[code] = value
    bits_in_all = sum(widths.values())
    return toggles / (bits_in_all * cycles) if bits_in_all and cycles else 0.0
