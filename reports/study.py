"""The study: five networks x methods x patterns, and what every optimisation is worth alone.

``nmsat report --study DIR`` writes study.csv, study.md and the speed-up figure; a copy is in the gallery.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..dataflow.schedule import Options
from ..models.accelerator import Accelerator
from ..models.whole_file import write_whole
from ..models.workload import Workload
from ..simulator.run import simulate
from .figure import CYCLE, WIDTH, Figure

NETWORKS = ("resnet9", "vit", "vgg19", "resnet18_tiny", "resnet50")
PATTERNS = ("2:4", "2:8", "2:16")
METHODS = ("sr-ste", "sdgp", "bdwp")
BATCHES = (1, 16, 64, 512)
PUBLISHED_SPEEDUP = 1.75  # abstract of arXiv 2309.13015: BDWP 2:8 over dense, average of its networks
FULL = Options()
NONE = Options(tile_overlap=False, dram_overlap=False, forward_on_chip=False)
Progress = Callable[[Iterable[Any]], Iterable[Any]]

ABLATIONS: tuple[tuple[str, Options], ...] = (
    ("all optimisations", FULL),
    ("OS only", replace(FULL, dataflow="os")),
    ("WS only", replace(FULL, dataflow="ws")),
    ("no interleave mapping", replace(FULL, interleave=False)),
    ("no interleave, OS only", replace(FULL, interleave=False, dataflow="os")),
    ("no pre-generation", replace(FULL, pregenerate=False)),
    ("no tile overlap", replace(FULL, tile_overlap=False)),
    ("no memory and vector overlap", replace(FULL, dram_overlap=False, forward_on_chip=False)),
    ("none of the overlaps", NONE),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One simulated configuration."""

    network: str
    method: str
    sparsity: str
    batch: int
    case: str
    cycles: int
    speedup: float
    utilization: float
    dram_bytes: int
    vector_share: float


def run_study(progress: Progress | None = None) -> list[Point]:
    """Simulate every point of the study on ``sat`` (and its 19.2 GB/s variant for the placement of 1.75x)."""
    sat = Accelerator.load("sat")
    slow = sat.replace(name="sat_19", dram_mb_s=19200, dram_channels=1)
    jobs: list[tuple[str, str, str, int, str, Options, Accelerator]] = []
    for network in NETWORKS:
        jobs.append((network, "dense", "dense", 512, "all optimisations", FULL, sat))
        for method in METHODS:
            jobs += [(network, method, pattern, 512, "all optimisations", FULL, sat) for pattern in PATTERNS]
        for batch in BATCHES:
            for case, options in ABLATIONS:
                if batch != 512 or options != FULL:
                    jobs.append((network, "bdwp", "2:8", batch, case, options, sat))
        jobs.append((network, "bdwp", "2:8", 512, "none of the overlaps, 19.2 GB/s", NONE, slow))
        jobs.append((network, "bdwp", "2:8", 512, "all optimisations, 19.2 GB/s", FULL, slow))
    loaded = {name: Workload.load(name) for name in NETWORKS}
    points = []
    for network, method, pattern, batch, case, options, accelerator in progress(jobs) if progress else jobs:
        totals = simulate(
            loaded[network], accelerator, method=method, sparsity=pattern, batch=batch, options=options
        ).totals
        points.append(
            Point(
                network,
                method,
                pattern,
                batch,
                case,
                totals["cycles"],
                totals["speedup_over_dense"],
                totals["utilization"],
                totals["dram_read_bytes"] + totals["dram_write_bytes"],
                totals["vector_exposed_cycles"] / totals["cycles"],
            )
        )
    return points


def average(points: list[Point], **wanted: Any) -> float:
    """Mean speed-up over the networks of the points that match."""
    found = [p.speedup for p in points if all(getattr(p, key) == value for key, value in wanted.items())]
    return sum(found) / len(found)


def to_markdown(points: list[Point]) -> str:
    """The study's three tables."""
    return "\n".join([*_speedups(points), "", *_ablation(points), "", *_placement(points)]) + "\n"


def _speedups(points: list[Point]) -> list[str]:
    lines = ["Speed-up over dense (utilisation, DRAM traffic of a step), batch 512, simulated", ""]
    lines += ["| network | " + " | ".join(f"{m} {s}" for m in METHODS for s in PATTERNS) + " |"]
    lines += ["|---" * (1 + len(METHODS) * len(PATTERNS)) + "|"]
    full = [p for p in points if p.batch == 512 and p.case == "all optimisations"]
    for network in NETWORKS:
        cells = []
        for method in METHODS:
            for pattern in PATTERNS:
                p = next(x for x in full if (x.network, x.method, x.sparsity) == (network, method, pattern))
                cells.append(f"{p.speedup:.2f} ({100 * p.utilization:.0f} %, {p.dram_bytes / 1e9:.0f} GB)")
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    means = [f"**{average(full, method=m, sparsity=s):.2f}**" for m in METHODS for s in PATTERNS]
    return [*lines, "| average | " + " | ".join(means) + " |"]


def _ablation(points: list[Point]) -> list[str]:
    """Cycles of a case over cycles with everything on, mean over the networks."""
    base = {(p.network, p.batch): p.cycles for p in points if _bdwp28(p) and p.case == "all optimisations"}
    lines = [
        "Time of a BDWP 2:8 step without one optimisation, over the time with all, mean of the five networks",
        "",
    ]
    lines += [
        "| case | " + " | ".join(f"batch {b}" for b in BATCHES) + " |",
        "|---" * (1 + len(BATCHES)) + "|",
    ]
    for case, _ in ABLATIONS[1:]:
        cells = []
        for batch in BATCHES:
            found = [
                p.cycles / base[p.network, batch] for p in points if _bdwp28(p) and (p.case, p.batch) == (case, batch)
            ]
            cells.append(f"{sum(found) / len(found):.3f}")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return lines


def _bdwp28(point: Point) -> bool:
    return (point.method, point.sparsity) == ("bdwp", "2:8")


def placement(points: list[Point]) -> list[tuple[str, float]]:
    """The published average among ours, highest first."""
    cases = (
        "all optimisations",
        "all optimisations, 19.2 GB/s",
        "none of the overlaps",
        "none of the overlaps, 19.2 GB/s",
    )
    rows = [(case, average(points, method="bdwp", sparsity="2:8", batch=512, case=case)) for case in cases]
    rows.append(("published (arXiv 2309.13015, abstract)", PUBLISHED_SPEEDUP))
    return sorted(rows, key=lambda row: -row[1])


def _placement(points: list[Point]) -> list[str]:
    lines = [
        "BDWP 2:8 over dense, average of the five networks, batch 512",
        "",
        "| case | speed-up |",
        "|---|---|",
    ]
    return lines + [f"| {case} | {value:.3f} |" for case, value in placement(points)]


def to_csv(points: list[Point]) -> str:
    """Every point as CSV text."""
    out = io.StringIO()
    names = list(Point.__dataclass_fields__)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(point, name) for name in names] for point in points)
    return out.getvalue()


def speedup_figure(points: list[Point]) -> Figure:
    """Speed-up by network and pattern, with the published average as a line."""
    full = [p for p in points if (p.method, p.batch, p.case) == ("bdwp", 512, "all optimisations")]
    rows = [(p.network, p.sparsity, p.speedup) for p in full if p.sparsity in PATTERNS]
    rows += [("average", pattern, average(full, sparsity=pattern)) for pattern in PATTERNS]
    names = [*NETWORKS, "average"]

    def draw(plt: Any) -> Any:
        fig, axes = plt.subplots(figsize=(WIDTH, 3.6))
        for index, pattern in enumerate(PATTERNS):
            heights = [next(row[2] for row in rows if row[:2] == (name, pattern)) for name in names]
            places = [place + (index - 1) * 0.27 for place in range(len(names))]
            bars = axes.bar(places, heights, 0.25, color=CYCLE[index], label=f"BDWP {pattern}")
            axes.bar_label(bars, fmt="%.2f", fontsize=7)
        label = "published average, 2:8 (1.75x)"
        axes.axhline(PUBLISHED_SPEEDUP, color="#555555", linewidth=1, linestyle="--", label=label)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("speed-up over dense, simulated (x)")
        axes.set_ylim(0, 3.1)
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper center", ncols=4)
        return fig

    caption = (
        "BDWP training step on sat, batch 512, all vector work and DRAM charged. Simulated; the line is the average "
        "that arXiv 2309.13015 states in its abstract."
    )
    columns = ("network", "pattern", "speedup")
    return Figure("speedup", "Speed-up by network and pattern", caption, columns, tuple(rows), draw)


def write_study(folder: Path, progress: Progress | None = None) -> str:
    """Run the study and write study.csv, study.md and the figure; returns the Markdown."""
    points = run_study(progress)
    text = to_markdown(points)
    write_whole(folder / "study.csv", to_csv(points))
    write_whole(folder / "study.md", text + "\n`nmsat report --study DIR` wrote this page.\n")
    speedup_figure(points).write(folder)
    return text
