"""The gallery: figures of every kind from real runs, each with its data and command; a copy is in reports/gallery."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..models.accelerator import Accelerator
from ..models.whole_file import write_whole
from ..models.workload import Workload
from ..simulator.explore.inline import InlineExecutor
from ..simulator.explore.spec import SweepSpec
from ..simulator.explore.sweep import run_sweep
from ..simulator.run import simulate
from .allocation_study import allocation_figure, load_record
from .figure import Figure
from .run_figures import run_figures
from .sensitivity import sensitivity
from .study import Progress, run_study, speedup_figure, to_csv, to_markdown
from .sweep_figures import sweep_figures
from .sweep_results import load_sweep

GALLERY_COMMAND = "nmsat report --gallery reports/gallery"
RUN = "resnet50"
SWEEPS = (  # title, file, prefix of its figures' names
    ("Arrays, patterns and memories for ResNet-18", "pareto", ""),
    ("Throughput, look-up tables and energy", "pareto_area", "area_"),
)
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True, slots=True)
class Exhibit:
    """Figures that one command makes; file names of a run's figures begin with the network."""

    title: str
    command: str
    figures: tuple[Figure, ...]


def exhibits(progress: Progress | None = None) -> Iterator[Exhibit]:
    """Everything in the gallery but the study's tables, which :func:`write_gallery` adds."""
    sat = Accelerator.load("sat")
    run = simulate(Workload.load(RUN), sat)
    named = tuple(replace(item, name=f"{RUN}_{item.name}") for item in run_figures(run))
    command = f"nmsat run {RUN} --json {RUN}.json && nmsat report {RUN}.json --figures figures"
    yield Exhibit("A training step of ResNet-50, BDWP 2:8, batch 512", command, named)
    for title, name, prefix in SWEEPS:
        with tempfile.TemporaryDirectory() as folder:
            run_sweep(SweepSpec.load(EXAMPLES / f"{name}.yaml"), Path(folder) / name, executor=InlineExecutor())
            figures = sweep_figures(load_sweep(Path(folder) / name))
        command = f"nmsat sweep examples/{name}.yaml -o out/{name} && nmsat report out/{name} --figures figures"
        yield Exhibit(title, command, tuple(replace(item, name=prefix + item.name) for item in figures))
    yield Exhibit("What a pattern is worth", GALLERY_COMMAND, (sensitivity(sat),))
    record = load_record()
    yield Exhibit("Patterns by layer", record["command"], (allocation_figure(record),))


def write_gallery(folder: Path, progress: Progress | None = None) -> list[str]:
    """Write study.csv, study.md, every figure as SVG, PNG and CSV, and README.md; names of the figures."""
    points = run_study(progress)
    write_whole(folder / "study.csv", to_csv(points))
    write_whole(folder / "study.md", to_markdown(points) + f"\n`{GALLERY_COMMAND}` wrote this page.\n")
    study = Exhibit("Five networks, three patterns", "nmsat report --study DIR", (speedup_figure(points),))
    found = [study, *exhibits(progress)]
    for exhibit in found:
        for figure in exhibit.figures:
            figure.write(folder)
    write_whole(folder / "README.md", page(found))
    return [figure.name for exhibit in found for figure in exhibit.figures]


def page(found: list[Exhibit]) -> str:
    """The gallery as Markdown: each figure, what it shows, the command under it, its data."""
    lines = [
        "# Gallery",
        "",
        f"`{GALLERY_COMMAND}` (or `make gallery`) regenerates every figure and table here. CI does so and compares",
        "all data exactly and the pictures to a tolerance (`tests/test_gallery.py`). Cycles and bytes are simulated;",
        "energies are a model, areas an estimate.",
    ]
    for exhibit in found:
        lines += ["", f"## {exhibit.title}"]
        for figure in exhibit.figures:
            lines += ["", f"### {figure.title}", "", f"![{figure.title}]({figure.name}.png)", "", figure.caption, ""]
            lines += [f"`{exhibit.command}`", "", f"[data]({figure.name}.csv), [SVG]({figure.name}.svg)"]
    return "\n".join([*lines, ""])
