"""Patterns by layer against one pattern everywhere, on networks that were really trained.

``python -m nmsat.reports.allocation_study reports/accuracy/allocation.json`` trains (minutes) and writes the record
that docs/allocation.md and the gallery show; tests/test_allocate.py trains one network of it again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..models.accelerator import Accelerator
from ..models.errors import InputFileError
from ..models.pruning import Operands, magnitude_nm
from ..models.sparsity import DENSE, Sparsity
from ..models.whole_file import write_whole
from ..models.workload import Layer, Workload
from ..simulator.allocate import Allocation, problem
from .figure import BLUE, GREY, ORANGE, WIDTH, Figure

RECORD = Path(__file__).resolve().parent / "accuracy/allocation.json"
ACCELERATOR, BATCH, EPOCHS, SEEDS = "sat_4x4", 32, 8, 5
BUDGETS = ("2:4", "2:8", "1:8")


def five_convolutions() -> Workload:
    """A deeper chain than digits-cnn: five 3x3 convolutions that may be pruned."""
    layers: list[Layer] = []
    sizes = ((1, 16, 8, 1), (16, 16, 8, 1), (16, 32, 8, 2), (32, 32, 4, 1), (32, 64, 4, 2), (64, 64, 2, 1))
    for number, (ic, oc, size, stride) in enumerate(sizes, 1):
        shape: dict[str, Any] = {"ic": ic, "oc": oc, "kh": 3, "kw": 3, "h": size, "w": size, "stride": stride, "pad": 1}
        layers.append(Layer(name=f"conv{number}", op="conv2d", prune=number > 1, **shape))
        out = size // stride
        layers.append(Layer(name=f"conv{number}.relu", op="elementwise", function="relu", oc=oc, h=out, w=out))
    layers.append(Layer(name="fc", op="linear", ic=256, oc=10, prune=False))
    layers.append(Layer(name="loss", op="elementwise", function="cross_entropy", oc=10))
    return Workload(name="five-convolutions", layers=tuple(layers))


NETWORKS = {"digits-cnn": lambda: Workload.load("digits-cnn"), "five-convolutions": five_convolutions}


def measure(network: str, seed: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train dense, prune once without retraining: one pattern, and by layer within the same cycles of an inference."""
    from ..models.training.data import digits
    from ..models.training.export import workload_file
    from ..models.training.network import Stack
    from ..models.training.trainer import Settings, accuracy, train

    workload = NETWORKS[network]()
    run = train(workload, "dense", "2:8", seed=seed, settings=Settings(epochs=epochs))
    stack, data = Stack.of(workload), digits()

    def facts(found: Allocation) -> dict[str, Any]:
        patterns, operands = found.patterns(), {}
        for layer in stack.layers:
            w16 = run.state.w16[layer.name]
            mask = magnitude_nm(w16, patterns.get(layer.name, DENSE), -1)
            operands[layer.name] = Operands(np.where(mask, w16, np.float16(0)), w16)
        right = accuracy(stack, operands, data.test_x, data.test_y)
        text = {name: str(pattern) for name, pattern in patterns.items()}
        return {"cycles": found.cycles, "error": found.error, "accuracy": right, "patterns": text}

    file = workload_file(workload, "dense", run, batch=BATCH)
    step = {"batch": BATCH, "mode": "infer"}
    choices = problem(file, Accelerator.load(ACCELERATOR), **step)
    rows = []
    for budget in BUDGETS:
        uniform = choices.uniform(Sparsity.parse(budget))
        rows.append({"budget": budget, "uniform": facts(uniform), "allocated": facts(choices.best(uniform.cycles))})
    low = choices.fixed_cycles + sum(min(c.cycles for c in options) for options in choices.options.values())
    high = choices.uniform(Sparsity.dense()).cycles
    curve = [choices.best(budget) for budget in np.linspace(low, high, 40).astype(int).tolist()]
    return {
        "network": network,
        "seed": seed,
        "dense_accuracy": run.accuracy,
        "budgets": rows,
        "curve": [[item.cycles, item.error] for item in curve],
    }


def write_record(path: Path) -> None:
    """Train every network with every seed and write the record."""
    runs = [measure(network, seed) for network in NETWORKS for seed in range(SEEDS)]
    head = {
        "command": f"python -m nmsat.reports.allocation_study {path.as_posix()}",
        "accelerator": ACCELERATOR,
        "batch": BATCH,
        "mode": "infer",
        "epochs": EPOCHS,
        "error": "relative: squares of dropped weights over the layer's squares, summed over layers",
        "accuracy": "share of 540 test images, pruned once, not retrained",
    }
    rows = ",\n".join(json.dumps(run) for run in runs)
    write_whole(path, json.dumps(head, indent=1)[:-2] + f',\n "runs": [\n{rows}\n ]\n}}\n')


def load_record(path: Path = RECORD) -> dict[str, Any]:
    """The committed record; an InputFileError where it is not there (an installed package)."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: must be the record of a checkout; {error}") from None


def means(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a network and budget: means over the seeds."""
    found = []
    for network in NETWORKS:
        runs = [run for run in record["runs"] if run["network"] == network]
        for index, budget in enumerate(BUDGETS):
            rows = [run["budgets"][index] for run in runs]
            mean = {
                f"{kind}_{key}": float(np.mean([row[kind][key] for row in rows]))
                for kind in ("uniform", "allocated")
                for key in ("cycles", "error", "accuracy")
            }
            dense = float(np.mean([run["dense_accuracy"] for run in runs]))
            found.append({"network": network, "budget": budget, "dense_accuracy": dense, **mean})
    return found


def to_markdown(record: dict[str, Any]) -> str:
    """The table of docs/allocation.md."""
    lines = [
        "| network | budget: cycles of | cycles, one pattern / by layer | weight error | accuracy, % (dense) |",
        "|---|---|---|---|---|",
    ]
    for row in means(record):
        cycles = f"{row['uniform_cycles']:,.0f} / {row['allocated_cycles']:,.0f}"
        error = f"{row['uniform_error']:.3f} / {row['allocated_error']:.3f}"
        accuracy = f"{100 * row['uniform_accuracy']:.1f} / {100 * row['allocated_accuracy']:.1f}"
        dense = 100 * row["dense_accuracy"]
        lines.append(f"| {row['network']} | {row['budget']} | {cycles} | {error} | {accuracy} ({dense:.1f}) |")
    return "\n".join(lines) + "\n"


def allocation_figure(record: dict[str, Any]) -> Figure:
    """Weight error against cycles: one pattern everywhere, and the exact optimum by layer."""
    runs = [next(run for run in record["runs"] if run["network"] == network) for network in NETWORKS]
    rows: list[tuple[Any, ...]] = []
    for run in runs:
        rows += [(run["network"], "by layer", "", *point) for point in run["curve"]]
        for row in run["budgets"]:
            rows.append(
                (run["network"], "one pattern", row["budget"], row["uniform"]["cycles"], row["uniform"]["error"])
            )

    def draw(plt: Any) -> Any:
        fig, grid = plt.subplots(1, len(runs), figsize=(WIDTH, 3.4))
        for axes, run in zip(grid, runs, strict=True):
            some = [row for row in rows if row[0] == run["network"]]
            curve = [(row[3] / 1e3, row[4]) for row in some if row[1] == "by layer"]
            axes.plot(*zip(*curve, strict=True), color=BLUE, linewidth=1.4, label="by layer, exact optimum")
            points = [(row[3] / 1e3, row[4], row[2]) for row in some if row[1] == "one pattern"]
            axes.scatter([p[0] for p in points], [p[1] for p in points], color=ORANGE, marker="s", s=30, zorder=3,
                         label="one pattern everywhere")  # fmt: skip
            for x, y, text in points:
                axes.annotate(text, (x, y), (6, 4), textcoords="offset points", fontsize=8, color=GREY)
            axes.set_title(run["network"])
            axes.set_xlabel("cycles of an inference (thousands)")
            axes.set_ylabel("relative weight error (sum over layers)")
            axes.legend()
        return fig

    caption = (
        f"Trained on the digits, pruned once: squares of dropped weights over each layer's squares, against the "
        f"simulated cycles of an inference of {record['batch']} images on {record['accelerator']}. Seed 0."
    )
    columns = ("network", "kind", "pattern", "cycles", "error")
    return Figure("allocation", "Patterns by layer", caption, columns, tuple(rows), draw)


if __name__ == "__main__":
    write_record(Path(sys.argv[1]))
