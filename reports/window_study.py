"""The window accumulator's numerics study as a page: ``nmsat report --window DIR`` writes what reports/window holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..models.whole_file import write_whole
from .window_numerics import DOT_COLUMNS, LENGTHS, LSBS, SCALES, dot_figure, dot_rows, loss_figure, training_rows

# task, seeds, L (None: binary32), what `nmsat train` is given
RUNS: tuple[tuple[str, range, tuple[int | None, ...], dict[str, Any]], ...] = (
    ("digits-mlp", range(5), (None, 33, 24, 8), {}),
    ("digits-cnn", range(5), (None, 33), {}),
    ("bytes-lm", range(1), (None, 33, 8), {"steps": 90}),
)
NAMES = ("fp32", *(f"L = {lsb}" for lsb in LSBS))

Notes = Callable[[str], None]
_PAGE = """\
# Numerics of the window accumulator

`nmsat report --window reports/window` computes everything here; [docs/window.md](../../docs/window.md) says what it
means.

## Dot products

1,000 dot products a row of random data shaped like a stage's: activations behind a ReLU, He-normal weights, gradients
of standard deviation 1e-5 times the loss scale. Share of results whose binary16 differs from the exact dot product
rounded once, and (largest error in ulps; 0.50 is the best possible). Weight gradients leave as binary32; here they are
rounded too. Subnormal: results below 2^-14.

{dots}

![misrounded results](misrounded.png)

## Training

BDWP 2:8. Every product, attention's too, is summed by the accumulator named; fp32 is binary32 in BLAS order. Flags:
outputs with an Inf or NaN operand or a product of 2^16 or more. Infinite: forward or backward results beyond binary16.
Largest: magnitude of any sum. Rounds: epochs of the digits; tenths of a run of the language model, a byte-level
transformer on the Python standard library's source. L = 8 is the coarsest window that can be built.

{training}

![loss curves](losses.png)
"""


def write_window_study(folder: Path, note: Notes = lambda _: None) -> str:
    """Compute everything (minutes) and write ``dots.csv``, ``training.json``, figures and ``numerics.md``.

    Returns
    -------
    str
        The page.
    """
    rows = []
    for row in dot_rows():
        rows.append(row)
        if row[3] == NAMES[-1]:
            note(f"{row[0]} k {row[1]} loss scale {row[2]}")
    records = []
    for task, seeds, lsbs, given in RUNS:
        for record in training_rows(task, seeds, lsbs, given):
            records.append(record)
            note(f"{task} seed {record['seed']} {record['accumulator']}: {100 * record['accuracy']:.2f} %")
    return write_page(folder, rows, records)


def write_page(folder: Path, rows: list[tuple[Any, ...]], records: list[dict[str, Any]]) -> str:
    """Write the page and its data from computed rows (DOT_COLUMNS) and training records."""
    for figure in (dot_figure(rows), loss_figure(records)):
        figure.write(folder)
    write_whole(folder / "training.json", json.dumps(records, indent=1) + "\n")
    text = page(rows, records)
    write_whole(folder / "numerics.md", text)
    return text


def page(rows: list[tuple[Any, ...]], records: list[dict[str, Any]]) -> str:
    """The study as Markdown."""
    tables = {"dots": "\n".join(_dot_table(rows)), "training": "\n".join(_training_table(records))}
    return _PAGE.format(**tables)


def _dot_table(rows: Iterable[tuple[Any, ...]]) -> list[str]:
    found = {row[:4]: dict(zip(DOT_COLUMNS, row, strict=True)) for row in rows}
    head = f"| data | k | loss scale | subnormal | {' | '.join(NAMES)} |"
    lines = [head, "|---" * (4 + len(NAMES)) + "|"]
    for data in ("FF", "BP", "WU"):
        for k in LENGTHS:
            for scale in SCALES:
                if (data, k, scale, NAMES[0]) not in found:
                    continue
                cells = [found[data, k, scale, name] for name in NAMES]
                shown = " | ".join(f"{100 * c['misrounded']:.1f} % ({c['max_ulp']:.2f})" for c in cells)
                lines.append(f"| {data} | {k:,} | {scale:,} | {100 * cells[0]['subnormal']:.0f} % | {shown} |")
    return lines


def _training_table(records: list[dict[str, Any]]) -> list[str]:
    head = ("task", "accumulator", "seeds", "accuracy", "last loss", "skipped steps", "flags", "infinite", "largest")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for task in dict.fromkeys(record["task"] for record in records):
        for name in dict.fromkeys(record["accumulator"] for record in records if record["task"] == task):
            some = [r for r in records if (r["task"], r["accumulator"]) == (task, name)]
            mean = sum(r["accuracy"] for r in some) / len(some)
            spread = (sum((r["accuracy"] - mean) ** 2 for r in some) / max(len(some) - 1, 1)) ** 0.5
            loss = sum(r["losses"][-1] for r in some) / len(some)
            counted = [r for r in some if "flagged" in r]
            counts = [f"{sum(r[key] for r in counted):,}" if counted else "-" for key in ("flagged", "infinite")]
            largest = f"{max(r['largest'] for r in counted):,.0f}" if counted else "-"
            skipped = sum(r["skipped_steps"] for r in some)
            shown = f"{100 * mean:.2f} ± {100 * spread:.2f} %" if len(some) > 1 else f"{100 * mean:.2f} %"
            cells = (task, name, str(len(some)), shown, f"{loss:.4f}", str(skipped), *counts, largest)
            lines.append(f"| {' | '.join(cells)} |")
    return lines
