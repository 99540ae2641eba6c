"""Your own network and accelerator in Python, written as files that every command reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from nmsat.models import Accelerator, Layer, Workload
from nmsat.simulator import simulate


def block(name: str, source: str, channels: int, size: int) -> list[Layer]:
    """A residual block: two convolutions and the addition of what came in."""
    shape = {"ic": channels, "oc": channels, "kh": 3, "kw": 3, "h": size, "w": size, "pad": 1}
    plane = {"oc": channels, "h": size, "w": size}
    return [
        Layer(name=f"{name}.conv1", op="conv2d", inputs=(source,), **shape),
        Layer(name=f"{name}.relu1", op="elementwise", function="relu", **plane),
        Layer(name=f"{name}.conv2", op="conv2d", **shape),
        Layer(name=f"{name}.add", op="elementwise", function="add", inputs=(f"{name}.conv2", source), **plane),
        Layer(name=f"{name}.relu2", op="elementwise", function="relu", **plane),
    ]


stem = Layer(name="stem", op="conv2d", ic=3, oc=64, kh=3, kw=3, h=32, w=32, pad=1, prune=False)
head = Layer(name="head", op="linear", ic=64, oc=10, prune=False)
pool = Layer(name="pool", op="elementwise", function="avgpool", oc=64, kh=32, kw=32, h=32, w=32, stride=32)
layers = (stem, *block("a", "stem", 64, 32), *block("b", "a.relu2", 64, 32), pool, head)
network = Workload(name="two-blocks", layers=layers)
wide = Accelerator.load("sat").replace(name="wide", rows=16, cols=64, max_keep=8, max_group=16, dram_mb_s=38400)

with tempfile.TemporaryDirectory() as folder:
    files = {"network.yaml": network, "wide.yaml": wide}
    for name, item in files.items():
        text = yaml.safe_dump(yaml.safe_load(item.model_dump_json(exclude_none=True)))
        (Path(folder) / name).write_text(text)  # nmsat run network.yaml -a wide.yaml
    network = Workload.load(Path(folder) / "network.yaml")
    wide = Accelerator.load(Path(folder) / "wide.yaml")

for pattern in ("2:4", "2:8", "2:16"):
    totals = simulate(network, wide, method="bdwp", sparsity=pattern, batch=128).totals
    print(
        f"{pattern}: {totals['cycles']:,} cycles, {totals['speedup_over_dense']:.2f} times dense, "
        f"{100 * totals['utilization']:.1f} % of the array used"
    )
