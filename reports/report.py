"""Sections of a page from runs and sweeps, in the order given; runs after the first are compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..simulator.result import RunResult
from .comparison import comparison_section
from .page import Section
from .run_section import run_section
from .sweep_results import SweepResults
from .sweep_section import sweep_section

Source = tuple[str, RunResult] | SweepResults


def sections_of(sources: Sequence[Source]) -> list[Section]:
    """Comparisons first: a reader of two runs asks what differs."""
    runs = [source for source in sources if not isinstance(source, SweepResults)]
    found = [comparison_section(runs[0][1], run) for _, run in runs[1:]]
    for source in sources:
        found.append(sweep_section(source) if isinstance(source, SweepResults) else run_section(source[1], source[0]))
    return found


def write_figures(sections: Sequence[Section], folder: Path) -> int:
    """Every figure of the sections as SVG, PNG and CSV, numbered where names repeat; how many."""
    seen: dict[str, int] = {}
    count = 0
    for section in sections:
        for figure in section.figures:
            seen[figure.name] = seen.get(figure.name, 0) + 1
            number = seen[figure.name]
            item = figure if number == 1 else replace(figure, name=f"{figure.name}_{number}")
            item.write(folder)
            count += 1
    return count
