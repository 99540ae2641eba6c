"""The cycle model's ARM loops beside llvm-mca and OSACA."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..dataflow.kernels.description import Kernel
from ..models.core import Core
from ..models.errors import MissingToolError, NmsatError
from ..simulator.kernels.arm_loops import decode, loop_text
from ..simulator.kernels.pipeline import bound, steady_cycles

MCA = ("llvm-mca-19", "llvm-mca")
CORES = ("cortex-a53", "cortex-a55", "cortex-a72", "neoverse-n1", "neoverse-v1", "neoverse-n2", "neoverse-v2")
OSACA = {"cortex-a72": "A72", "neoverse-n1": "N1", "neoverse-v2": "V2"}
LOOPS: tuple[Kernel, ...] = (
    Kernel(mr=4),
    Kernel(mr=8),
    Kernel(mr=16),
    Kernel(mr=32),
    Kernel(mr=16, unroll=4),
    Kernel(mr=28, unroll=2),
    Kernel(mr=32, unroll=4),
    Kernel(mr=16, index="absolute"),
    Kernel(mr=32, index="dense"),
    Kernel(mr=16, nr=2),
    Kernel(mr=8, nr=4),
    Kernel(mr=16, nr=4),
)
TOLERANCE = 0.10


@dataclass(frozen=True, slots=True)
class LoopRow:
    """Cycles an iteration of one loop on one core: the model's, and the references' where they know the core."""

    core: str
    kernel: str
    model: float
    bound: str
    mca: float
    osaca: float | None

    @property
    def low(self) -> float:
        """Lower end of the references' interval."""
        return self.mca if self.osaca is None else min(self.mca, self.osaca)

    @property
    def high(self) -> float:
        """Upper end of the references' interval."""
        return self.mca if self.osaca is None else max(self.mca, self.osaca)

    @property
    def inside(self) -> bool:
        """Whether the model lies inside the interval, widened by the tolerance."""
        return self.low * (1 - TOLERANCE) <= self.model <= self.high * (1 + TOLERANCE)


def text(kernel: Kernel) -> list[str]:
    """The loop of a kernel's full panel."""
    return loop_text(kernel, kernel.nr, kernel.vectors)


def model_cycles(core: Core, kernel: Kernel) -> tuple[float, str]:
    """Cycles an iteration by the model, and what bounds them."""
    stream = decode(text(kernel))
    cycles = steady_cycles(core, stream)
    return cycles, bound(core, stream, cycles)


def mca_cycles(core: str, lines: list[str]) -> float:
    """Cycles an iteration by llvm-mca 19: the slope between 200 and 400 iterations."""
    program = next((name for name in MCA if shutil.which(name)), None)
    if program is None:
        raise MissingToolError("llvm-mca is not installed; install it with: apt install llvm-19")
    source = "\n".join(line.replace("1b", "#0") for line in lines) + "\n"
    totals = []
    for iterations in (200, 400):
        options = [
            "-mtriple=aarch64",
            f"-mcpu={core}",
            f"-iterations={iterations}",
            "-all-views=false",
            "-summary-view",
        ]
        done = subprocess.run([program, *options], input=source, capture_output=True, text=True)
        match = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
        if match is None:
            raise NmsatError(f"llvm-mca: {core}: must accept the loop; {done.stderr.strip()[:200]}")
        totals.append(int(match[1]))
    return (totals[1] - totals[0]) / 200


def osaca_cycles(core: str, lines: list[str]) -> float:
    """Cycles an iteration by OSACA: the larger of its port bound and its loop-carried dependence."""
    if find_spec("osaca") is None:
        raise MissingToolError("OSACA is not installed; install it with: pip install osaca")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loop.s"
        path.write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "osaca", "--arch", OSACA[core], "--ignore-unknown", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
    sums = [line for line in done.stdout.splitlines() if re.match(r"^[ \d.]+$", line) and "." in line]
    if not sums:
        raise NmsatError(f"OSACA: {core}: must accept the loop; {done.stderr.strip()[-200:]}")
    *ports, _, carried = (float(value) for value in sums[0].split())
    return max(*ports, carried)


def measure() -> list[LoopRow]:
    """Every loop on every core with both references, by running them."""
    rows = []
    for name in CORES:
        core = Core.load(name)
        for kernel in LOOPS:
            lines = text(kernel)
            osaca = osaca_cycles(name, lines) if name in OSACA else None
            rows.append(LoopRow(name, kernel.name, *model_cycles(core, kernel), mca_cycles(name, lines), osaca))
    return rows


def markdown(rows: list[LoopRow]) -> str:
    """The rows as a table, and how many lie inside."""
    lines = [
        "| core | loop | model | bound | llvm-mca 19.1.7 | OSACA | inside +-10 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        osaca = "" if row.osaca is None else f"{row.osaca:.2f}"
        inside = "yes" if row.inside else "**no**"
        lines.append(
            f"| {row.core} | {row.kernel} | {row.model:.2f} | {row.bound} | {row.mca:.2f} | {osaca} | {inside} |"
        )
    inside = sum(row.inside for row in rows)
    return "\n".join([*lines, "", f"{inside} of {len(rows)} loops lie inside the references' interval +-10 %.", ""])
