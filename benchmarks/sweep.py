"""Designs a second and core of the vectorised evaluator: ResNet-50 training step, dataflow per layer and stage."""

import itertools
import sys
import time

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
sys.exit(rate < BAR)
