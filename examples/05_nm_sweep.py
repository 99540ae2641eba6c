"""Patterns compared: speed-up, energy and traffic of a training step of ViT for nine N:M patterns."""

from __future__ import annotations

from nmsat.models import Accelerator, Workload
from nmsat.models.energy_table import EnergyTable
from nmsat.simulator.explore import Designs, evaluate, skeleton_of
from nmsat.simulator.explore.evaluate import energy_j

network, sat, table = Workload.load("vit"), Accelerator.load("sat"), EnergyTable.load("vcu1525")
design = Designs.of(sat, {})  # one design; a sweep has a million of them here
dense = evaluate(skeleton_of(network, method="dense"), design).cycles[0]

print(f"{'pattern':9}{'speed-up':>9}{'DRAM, GB':>10}   energy of a step (model, range)")
for pattern in ("4:8", "2:4", "1:2", "4:16", "2:8", "1:4", "2:16", "1:8", "1:16"):
    skeleton = skeleton_of(network, method="bdwp", sparsity=pattern)
    found = evaluate(skeleton, design)
    moved = (found.dram_read_bytes[0] + found.dram_write_bytes[0]) / 1e9
    low, typical, high = (
        energy_j(skeleton, found, design, table, {}, bound)[0] for bound in ("low", "typical", "high")
    )
    print(f"{pattern:9}{dense / found.cycles[0]:9.3f}{moved:10.1f}   {typical:.1f} J ({low:.1f} to {high:.1f})")
