"""One self-contained HTML page of runs and sweeps: no network, readable on a phone."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .figure import Figure

LIMITS = (
    "Cycles and bytes are simulated, exact under the model of docs/accelerator.md; it has no DRAM pages or banks.",
    "Energies are a model: counted events times a table whose every number has a range and a source (docs/energy.md).",
    "Areas are estimates fitted to yosys results, before place and route (docs/area.md).",
    "Nothing here was timed, fitted or powered on an FPGA.",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell: what is read, and what it is sorted by (None: the text)."""

    text: str
    value: float | int | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; numbers are set to the right."""

    name: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """A table of a page; ``wrap`` breaks long texts."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = True
    note: str = ""
    wrap: bool = False

    @property
    def untitled(self) -> HtmlTable:
        """The same below a heading of its own."""
        return replace(self, title="")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: what it says in words, tables, figures, tables to unfold, and the command that made it."""

    title: str
    summary: tuple[str, ...] = ()
    tables: tuple[HtmlTable, ...] = ()
    figures: tuple[Figure, ...] = ()
    details: tuple[HtmlTable, ...] = ()
    command: str = ""


def facts_table(title: str, facts: Sequence[tuple[str, Any]]) -> HtmlTable:
    """Names and values, not to be sorted."""
    rows = tuple((Cell(name), Cell(_text(value))) for name, value in facts)
    return HtmlTable(title, (Column("name"), Column("value")), rows, sortable=False, wrap=True)


def number(value: float, text: str | None = None) -> Cell:
    """A cell with a number: integers with separators, else four significant digits."""
    if text is None:
        text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return Cell(text, value)


def render(title: str, sections: Sequence[Section], written_by: str) -> str:
    """The page's HTML; texts are escaped, figures become data URIs."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False, keep_trailing_newline=True)
    template = environment.from_string((Path(__file__).parent / "page.html.j2").read_text())
    used: set[str] = {"limits"}
    data = {
        "title": title,
        "written_by": written_by,
        "sections": [_section(section, used) for section in sections],
        "limits": LIMITS,
    }
    return template.render(page=data)


def _section(section: Section, used: set[str]) -> dict[str, Any]:
    anchor = base = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
    number = 1
    while anchor in used:
        number += 1
        anchor = f"{base}-{number}"
    used.add(anchor)
    figures = [
        {"title": item.title, "caption": item.caption, "data": base64.b64encode(item.svg()).decode()}
        for item in section.figures
    ]
    return {
        "anchor": anchor,
        "title": section.title,
        "summary": section.summary,
        "tables": section.tables,
        "figures": figures,
        "details": section.details,
        "command": section.command,
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "none" if value is None else str(value)
