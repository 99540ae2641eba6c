"""N:M sensitivity: what every pattern is worth, network by network."""

from __future__ import annotations

from typing import Any

from ..models.accelerator import Accelerator
from ..models.sparsity import Sparsity
from ..models.workload import Workload
from ..simulator.explore import Designs, evaluate, skeleton_of
from .figure import BLACK, CYCLE, MARKERS, WIDTH, Figure, plain_log

NETWORKS = ("vgg19", "resnet18_tiny", "resnet50", "vit")
PATTERNS = ("1:2", "2:4", "4:8", "1:4", "2:8", "4:16", "1:8", "2:16", "4:32", "1:16", "2:32", "1:32")
COLUMNS = ("network", "pattern", "density", "cycles", "dense_cycles", "speedup")


def sensitivity(accelerator: Accelerator, *, batch: int = 512) -> Figure:
    """Speed-up of a BDWP training step over dense against N / M, simulated by the sweep's evaluator."""
    designs = Designs.of(accelerator, {"max_keep": 32, "max_group": 32})
    rows: list[tuple[Any, ...]] = []
    for network in NETWORKS:
        workload = Workload.load(network)
        dense = int(evaluate(skeleton_of(workload, method="dense", batch=batch), designs).cycles[0])
        for text in PATTERNS:
            pattern = Sparsity.parse(text)
            found = evaluate(skeleton_of(workload, method="bdwp", sparsity=pattern, batch=batch), designs)
            cycles = int(found.cycles[0])
            rows.append((network, text, pattern.keep / pattern.group, cycles, dense, dense / cycles))

    def draw(plt: Any) -> Any:
        fig, axes = plt.subplots(figsize=(WIDTH, 4.2))
        densities = sorted({row[2] for row in rows})
        ideal = [3 / (2 * density + 1) for density in densities]
        axes.plot(densities, ideal, color=BLACK, linewidth=1, linestyle="--", label="all layers N:M: 3 / (2 N/M + 1)")
        for index, network in enumerate(NETWORKS):
            for group in sorted({row[2] for row in rows}):
                some = [row[5] for row in rows if row[0] == network and row[2] == group]
                axes.plot([group, group], [min(some), max(some)], color=CYCLE[index], linewidth=1)
            best = [max(row[5] for row in rows if row[0] == network and row[2] == group) for group in densities]
            axes.plot(densities, best, color=CYCLE[index], marker=MARKERS[index], ms=5, label=network)
        axes.set_xscale("log")
        plain_log(axes.xaxis)
        axes.set_xticks(densities, [f"1/{round(1 / density)}" for density in densities])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("density of pruned operands, N/M (left: sparser)")
        axes.set_ylabel("speed-up over dense (x, simulated)")
        axes.set_ylim(bottom=1)
        axes.legend()
        return fig

    caption = (
        f"BDWP training step on {accelerator.name}, batch {batch}: speed-up over dense by density; where "
        "patterns of one density differ, a bar spans them. Simulated."
    )
    return Figure("nm_sensitivity", "N:M sensitivity", caption, COLUMNS, tuple(rows), draw)
