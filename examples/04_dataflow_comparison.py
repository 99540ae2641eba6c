"""Dataflows compared: output-stationary only, weight-stationary only, and the best of both for each layer and stage."""

from __future__ import annotations

from collections import Counter

from nmsat.dataflow import Options
from nmsat.models import Accelerator, Workload
from nmsat.simulator import simulate

sat = Accelerator.load("sat")
print(f"{'network':14}{'batch':>6}{'OS only':>15}{'WS only':>15}{'chosen':>15}  products in OS and WS")
for name, batch in (("resnet9", 1), ("resnet9", 512), ("vit", 1), ("vit", 512)):
    network = Workload.load(name)
    results = {
        flow: simulate(network, sat, sparsity="2:8", batch=batch, options=Options(dataflow=flow))
        for flow in ("os", "ws", "auto")
    }
    used = Counter(row["dataflow"] for row in results["auto"].layers if row["stage"] != "vector")
    cycles = "".join(f"{result.totals['cycles']:15,}" for result in results.values())
    print(f"{name:14}{batch:6}{cycles}  {used['os']} and {used['ws']}")
