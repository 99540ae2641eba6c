"""A sweep as a section of a page."""

from __future__ import annotations

from ..simulator.explore.spec import LARGER_IS_BETTER
from .labels import label, words
from .page import Cell, Column, HtmlTable, Section, facts_table, number
from .sweep_figures import sweep_figures
from .sweep_results import SweepResults

SHOWN = 500  # rows of the front


def sweep_section(sweep: SweepResults) -> Section:
    """Everything about one sweep."""
    spec, manifest = sweep.spec, sweep.manifest
    axes = [
        (label(name), f"{name}: {len(values)} values, {values[0]} to {values[-1]}")
        for name, values in spec.values().items()
    ]
    left_out = ("spec", "accelerator")
    details = [
        facts_table("Axes", axes),
        facts_table("What all designs share", [("accelerator", spec.accelerator), *spec.set.items()]),
        facts_table("Accelerator every design starts from", list(manifest.get("accelerator", {}).items())),
        facts_table(
            "Provenance", [("folder", sweep.folder.name), *((k, v) for k, v in manifest.items() if k not in left_out)]
        ),
    ]
    return Section(
        title=f"Sweep of {spec.workload or 'several networks'}: {', '.join(map(words, sweep.axes)) or 'one design'}",
        summary=tuple(summary(sweep)),
        tables=(front_table(sweep),),
        figures=tuple(sweep_figures(sweep)),
        details=tuple(details),
        command="nmsat sweep SPEC.yaml -o DIR, the file's content is in manifest.json",
    )


def summary(sweep: SweepResults) -> list[str]:
    """What the sweep says, in sentences."""
    counts = sweep.summary
    lines = [
        f"{counts['points']:,} designs were evaluated, {counts['valid']:,} can run, {counts['kept']:,} meet the "
        f"constraints; {len(sweep.front):,} are on the Pareto front of {', '.join(map(words, sweep.spec.objectives))}."
    ]
    for item in sweep.spec.constraints:
        low = f"at least {item.min:,.12g}" if item.min is not None else ""
        high = f"at most {item.max:,.12g}" if item.max is not None else ""
        lines.append(f"Constraint: {label(item.figure)} {' and '.join(part for part in (low, high) if part)}.")
    for name in sweep.spec.objectives:
        if not sweep.front:
            break
        pick = max if name in LARGER_IS_BETTER else min
        best = pick(sweep.front, key=lambda row: row[name])
        design = ", ".join(f"{words(axis)} {best[axis]}" for axis in sweep.axes)
        lines.append(f"Best by {label(name)}: {_short(best[name])} with {design}.")
    lines += [f"{count:,} refused: {reason}" for reason, count in counts.get("refused", {}).items()]
    return lines


def _short(value: float) -> str:
    """Six significant digits; whole numbers where they are larger than that."""
    return f"{value:,.0f}" if value >= 1e5 else f"{value:,.6g}"


def front_table(sweep: SweepResults) -> HtmlTable:
    """The Pareto front, to be sorted."""
    figures = list(sweep.spec.objectives)
    extra = [n for n in ("seconds", "utilization", "energy_j", "energy_low_j", "energy_high_j") if n not in figures]
    names = ["point", *sweep.axes, *figures, *extra]
    numeric = {name: all(_is_number(row[name]) for row in sweep.front) for name in names}
    rows = tuple(
        tuple(
            Cell(str(row[name]), float(row[name])) if numeric[name] and isinstance(row[name], str)
            else number(row[name], _short(row[name])) if numeric[name] else Cell(str(row[name]))
            for name in names
        )
        for row in sweep.front[:SHOWN]
    )  # fmt: skip
    note = f"The first {SHOWN:,} of {len(sweep.front):,}; all are in pareto.csv." if len(sweep.front) > SHOWN else ""
    columns = tuple(Column(label(name), numeric[name]) for name in names)
    return HtmlTable("Pareto front", columns, rows, note=note)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True
