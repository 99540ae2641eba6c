"""Sweeping a ResNet-50 training step, dataflow per layer and stage: designs a second and core, and 10^6 end to end.

The second part times `nmsat sweep -j 2` as a user runs it: start, workers, every row as CSV, the Pareto front. Its
memory is the sum of the resident sizes of all its processes, read 20 times a second; pages that they
share are counted each time.
"""

import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from nmsat.models import Accelerator, Workload
from nmsat.simulator import simulate
from nmsat.simulator.explore import Designs, evaluate, skeleton_of

BAR = 1e6
workload, base = Workload.load("resnet50"), Accelerator.load("sat")
# 36 arrays with their buffers, 4 clocks, 2 lane counts, 1736 memory bandwidths: 499,968 designs, no two alike.
axes = {
    "rows": (16, 32, 64),
    "cols": (16, 32, 64),
    "w2e_bytes": (2**19, 2**21),
    "n2s_bytes": (2**19, 2**21),
    "vector_lanes": (64, 128),
    "clock_mhz": (150, 200, 250, 300),
    "dram_mb_s": np.linspace(4_000, 460_000, 1736, dtype=np.int64),
}
grid = np.array(list(itertools.product(*axes.values())))
designs = Designs.of(base, dict(zip(axes, grid.T, strict=True)))
skeleton = skeleton_of(workload)
evaluate(skeleton, Designs(designs.table[:100]))  # compile
rate = 0.0
for _ in range(5):
    start = time.thread_time()
    figures = evaluate(skeleton, designs)
    rate = max(rate, len(designs) / (time.thread_time() - start))
index = 123_456
start = time.thread_time()
expected = simulate(workload, designs.accelerator(index, base)).totals["cycles"]
scalar = 1 / (time.thread_time() - start)
if figures.cycles[index] != expected:
    sys.exit(f"sweep: design {index}: {figures.cycles[index]} cycles, simulate says {expected}")
verdict = "PASS" if rate >= BAR else "MISS"
print(f"sweep resnet50: {rate:,.0f} points/s a core, bar >= {BAR:,.0f}: {verdict}; {rate / scalar:,.0f} x simulate")
missed = rate < BAR

POINTS, SECONDS_BAR, MEMORY_BAR = 1_000_224, 5.0, 1000
SPEC = """\
format: nmsat-sweep/1
workload: resnet50
axes:
  rows: [16, 32, 64]
  cols: [16, 32, 64]
  w2e_bytes: [524288, 2097152]
  n2s_bytes: [524288, 2097152]
  vector_lanes: [64, 128]
  clock_mhz: [150, 200, 250, 300]
  dram_mb_s: {from: 4000, to: 460000, count: COUNT}
objectives: [seconds, energy_j]
"""


def tree(parent: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    return [parent, *(found for child in children for found in tree(int(child)))]


def resident_mb(parent: int) -> float:
    """Resident memory of a process and its descendants."""
    pages = 0
    for process in tree(parent):
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def sweep(folder: Path, count: int) -> tuple[float, float, float]:
    """Wall and CPU seconds and peak MB of a sweep in processes of its own."""
    spec = folder / f"{count}.yaml"
    spec.write_text(SPEC.replace("COUNT", str(count)))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "nmsat", "sweep", str(spec), "-o", str(folder / str(count)), "-j", "2", "-q"]
    child, peak = subprocess.Popen(command), 0.0
    while child.poll() is None:
        peak = max(peak, resident_mb(child.pid))
        time.sleep(0.05)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        sys.exit(f"sweep: exit code {child.returncode}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


with tempfile.TemporaryDirectory() as name:
    sweep(Path(name), 1)  # compile
    rounds = []
    for number in range(3):
        inside = Path(name) / f"round{number}"
        inside.mkdir()
        rounds.append(sweep(inside, POINTS // 288))
wall, busy, peak = (min(found[index] for found in rounds) for index in range(3))
peak = max(found[2] for found in rounds)
for text, value, bar in (("s wall", wall, SECONDS_BAR), ("MB", peak, MEMORY_BAR)):
    verdict = "PASS" if value < bar else "MISS"
    print(f"sweep {POINTS:,} points end to end, 2 processes: {value:.1f} {text}, bar < {bar:g}: {verdict}")
    missed |= value >= bar
print(f"sweep {POINTS:,} points: {busy:.1f} s CPU in all processes, start included; load {os.getloadavg()[0]:.1f}")
sys.exit(missed)
