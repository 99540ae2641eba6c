"""The table of what an importer found in a network's weights."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def pattern_table(rows: list[dict[str, Any]]) -> Table:
    """One line a layer with weights; renders with rich, printing is the caller's."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("layer", "op", "weight", "pattern", "along"):
        table.add_column(name, no_wrap=True)
    for name in ("density", "violations"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("runs", no_wrap=True)
    for row in rows:
        runs = ", ".join(f"{stage} {pattern}" for stage, pattern in row["runs"].items()) or "as the run says"
        shape = "x".join(str(size) for size in row["shape"])
        table.add_row(
            row["layer"],
            row["op"],
            shape,
            row["pattern"],
            row["axis"] or "",
            f"{100 * row['density']:.1f} %",
            str(row["violations"] or ""),
            runs,
        )
    return table
