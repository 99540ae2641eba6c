"""A Pareto front in Python: 1,296 arrays and memories for a ResNet-18 step, time against energy."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from nmsat.simulator.explore.inline import InlineExecutor
from nmsat.simulator.explore.spec import SweepSpec
from nmsat.simulator.explore.sweep import run_sweep

spec = SweepSpec.model_validate(
    {
        "format": "nmsat-sweep/1",
        "workload": "resnet18",
        "set": {"max_keep": 8},
        "axes": {
            "sparsity": ["2:4", "2:8", "2:16"],
            "rows": [16, 32, 64],
            "cols": [16, 32, 64],
            "clock_mhz": [150, 200, 250],
            "dram_mb_s": {"from": 9600, "to": 153600, "count": 16},
        },
        "constraints": [{"figure": "energy_j", "max": 100}],
        "objectives": ["seconds", "energy_j"],
    }
)
with tempfile.TemporaryDirectory() as folder:
    summary = run_sweep(spec, Path(folder) / "out", executor=InlineExecutor())
    with (Path(folder) / "out/pareto.csv").open(newline="") as file:
        front = list(csv.DictReader(file))
print(f"{summary.points:,} designs, {summary.kept:,} within 100 J, {summary.front} on the front")
for row in sorted(front, key=lambda row: float(row["seconds"])):
    print(
        f"{row['rows']} x {row['cols']} at {row['clock_mhz']} MHz, {int(row['dram_mb_s']) / 1000:g} GB/s, "
        f"{row['sparsity']}: {float(row['seconds']):.3f} s, {float(row['energy_j']):.1f} J (model)"
    )
