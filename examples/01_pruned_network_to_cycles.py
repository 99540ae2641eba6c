"""From a pruned network to cycles in one page.

Trains the CNN for the digits with both weight masks of BDWP at 2:8, writes it as a workload file, and simulates a
training step of that file, sparse and dense. Needs the extra `data`: pip install "nmsat[data]".
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from nmsat.models import Accelerator, Workload
from nmsat.models.training.export import workload_file
from nmsat.models.training.trainer import Settings, train
from nmsat.simulator import simulate

EPOCHS, BATCH = 4, 32

# 1. Train: binary16 operands, binary32 sums and master weights, masks chosen anew every step.
network = Workload.load("digits-cnn")
run = train(network, "bdwp", "2:8", seed=0, settings=Settings(epochs=EPOCHS, batch=BATCH))
print(f"accuracy {100 * run.accuracy:.1f} % of 540 test images after {EPOCHS} epochs")
print(f"backward masks keep {100 * run.overlap:.0f} % of what forward masks keep")

# 2. Export: dense master weights and both masks, readable without nmsat.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "workload.yaml"
    workload_file(network, "bdwp", run, batch=BATCH).save(path)
    trained = Workload.load(path)

# 3. Simulate a training step on two arrays.
for name in ("sat_4x4", "sat"):
    accelerator = Accelerator.load(name)
    sparse = simulate(trained, accelerator, method="bdwp", sparsity="2:8", batch=BATCH).totals
    dense = simulate(network, accelerator, method="dense", sparsity="dense", batch=BATCH).totals
    ratio = dense["cycles"] / sparse["cycles"]
    print(f"{name}: dense {dense['cycles']:,} cycles, BDWP 2:8 {sparse['cycles']:,} cycles, speed-up {ratio:.2f}")
