"""One layer: the three products of a training step, dense and 2:8, and where their cycles go."""

from __future__ import annotations

from nmsat.models import Accelerator, Layer, Workload
from nmsat.simulator import simulate

sat = Accelerator.load("sat")
first = Layer(name="first", op="conv2d", ic=64, oc=128, kh=3, kw=3, h=28, w=28, pad=1)
layer = Layer(name="conv", op="conv2d", ic=128, oc=256, kh=3, kw=3, h=28, w=28, pad=1)
network = Workload(name="one-layer", layers=(first, layer))  # a first layer has no input gradient, so there are two

print(f"{'stage':6}{'pattern':9}{'flow':6}{'cycles':>12}{'waiting':>9}{'useful':>8}{'DRAM, MB':>10}")
for method in ("dense", "bdwp"):
    result = simulate(network, sat, method=method, sparsity="dense" if method == "dense" else "2:8", batch=64)
    for row in result.layers:
        if row["layer"] == "conv" and row["stage"] != "vector":
            moved = (row["dram_read_bytes"] + row["dram_write_bytes"]) / 1e6
            print(
                f"{row['stage']:6}{row['sparsity']:9}{row['dataflow']:6}{row['cycles']:12,}{row['stall_cycles']:9,}"
                f"{100 * row['utilization']:7.1f}%{moved:10.1f}"
            )
