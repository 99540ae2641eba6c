"""Which super logic region every part of the kernel goes to, from a floorplan file and the design's hierarchy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.yaml_io import NamedFile
from .board import Board
from .hierarchy import Hierarchy

CROSSING_REGISTERS = 2
"""Fewest registers of a signal that changes the region: one on each side."""


class Rule(BaseModel, frozen=True):
    """Cells by path below the top: ``*`` is any text without a slash, ``**/`` any cells around, ``{column}`` a number.

    Either all go to ``slr``, or the columns are cut into as many equal parts as ``columns`` has entries.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    cells: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_/*{}]+$")
    slr: int | None = Field(default=None, ge=0, le=3)
    columns: Annotated[tuple[int, ...] | None, BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = (
        Field(default=None, min_length=1, max_length=4)
    )
    optional: bool = Field(default=False, description="the design may have no such cell")

    @model_validator(mode="after")
    def _check(self) -> Rule:
        if (self.slr is None) == (self.columns is None):
            raise ValueError("slr: must be given, or columns, not both or neither")
        if self.cells.count("{column}") != (self.columns is not None) or re.search(r"[{}]", self.pattern_text):
            raise ValueError(f"cells: must name {{column}} once, exactly where columns is given, not {self.cells!r}")
        if self.cells.count("*") > 4:
            raise ValueError(f"cells: must have at most 4 stars, not {self.cells!r}")
        return self

    @property
    def pattern_text(self) -> str:
        """The text without its placeholder."""
        return self.cells.replace("{column}", "")

    def matcher(self) -> re.Pattern[str]:
        """Regular expression of a whole path."""
        text = re.escape(self.cells).replace(r"\{column\}", r"(?P<column>\d+)")
        text = text.replace(r"\*\*/", r"(?:.*/)?").replace(r"\*", r"[^/]*")
        return re.compile(text)


class Floorplan(NamedFile, frozen=True):
    """A floorplan file; see ``fpga/floorplans/halves.yaml``."""

    _files = "floorplan", Path(__file__).parent / "floorplans"

    format: Literal["nmsat-floorplan/1"]
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = Field(default="", max_length=300, pattern=r"^[^\n\r\\]*$")
    rest: int = Field(ge=0, le=3, description="region of everything that no rule names")
    rules: Annotated[tuple[Rule, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]

    @property
    def regions(self) -> tuple[int, ...]:
        """Regions that the file names."""
        named = {self.rest}
        for rule in self.rules:
            named |= {rule.slr} if rule.slr is not None else set(rule.columns or ())
        return tuple(sorted(slr for slr in named if slr is not None))

    @property
    def cuts_columns(self) -> bool:
        """Whether columns of the array lie in several regions."""
        return any(len(set(rule.columns or ())) > 1 for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Placement:
    """A floorplan applied to a design.

    Attributes
    ----------
    plan : Floorplan
    cells : dict
        Region of every placed cell by its path below the top; what lies inside a cell goes with it. No cell is inside
        another.
    """

    plan: Floorplan
    cells: dict[str, int]

    def regions(self) -> dict[int, list[str]]:
        """Cells of every region, in the design's order."""
        found: dict[int, list[str]] = {slr: [] for slr in self.plan.regions}
        for path, slr in self.cells.items():
            found[slr].append(path)
        return {slr: cells for slr, cells in sorted(found.items()) if cells}


def default_floorplan(accelerator: Accelerator) -> str:
    """``halves`` where the accelerator registers a cut between its columns, else ``single``."""
    return "halves" if accelerator.slr_hop_cycles else "single"


def apply(plan: Floorplan, hierarchy: Hierarchy, accelerator: Accelerator, board: Board) -> Placement:
    """Place every cell of a design.

    Raises
    ------
    NmsatError
        The board lacks a region, a rule names no cell of the design, or the plan cuts the columns of an array whose
        ``slr_hop_cycles`` is less than two (or the other way round).
    """
    slrs = board.device.slrs
    for slr in plan.regions:
        if slr >= slrs:
            raise NmsatError.rule(f"floorplan {plan.name!r}", "slr", f"below {slrs}, the board's regions", slr)
    hops = accelerator.slr_hop_cycles
    if plan.cuts_columns and hops < CROSSING_REGISTERS:
        hint = f"or choose the floorplan {'single'!r}"
        rule = f"at least {CROSSING_REGISTERS}, the registers of a crossing, with floorplan {plan.name!r}"
        raise NmsatError.rule(f"accelerator {accelerator.name!r}", "slr_hop_cycles", rule, hops, hint)
    if hops and not plan.cuts_columns:
        rule = f"0 with floorplan {plan.name!r}, which does not cut the array"
        raise NmsatError.rule(f"accelerator {accelerator.name!r}", "slr_hop_cycles", rule, hops)
    matchers = [(rule, rule.matcher()) for rule in plan.rules]
    used: set[str] = set()

    def place(path: str, module: str) -> dict[str, int]:
        """Regions of a cell, or of the cells inside it if a rule names one of them; nothing if no rule does."""
        for rule, matcher in matchers:
            if found := matcher.fullmatch(path):
                used.add(rule.cells)
                return {path: _region(rule, found, plan, accelerator)}
        inside = {f"{path}/{name}": place(f"{path}/{name}", kind) for name, kind in hierarchy.children(module)}
        return _filled(inside, plan.rest) if any(inside.values()) else {}

    cells = _filled({name: place(name, kind) for name, kind in hierarchy.children(hierarchy.top)}, plan.rest)
    for rule in plan.rules:
        if rule.cells not in used and not rule.optional:
            raise NmsatError.rule(f"floorplan {plan.name!r}", "cells", "a cell of the design", rule.cells)
    return Placement(plan, cells)


def _region(rule: Rule, found: re.Match[str], plan: Floorplan, accelerator: Accelerator) -> int:
    if rule.columns is None:
        assert rule.slr is not None
        return rule.slr
    column = int(found["column"])
    if column >= accelerator.cols:
        raise NmsatError.rule(f"floorplan {plan.name!r}", found[0], f"a column below {accelerator.cols}", column)
    return rule.columns[column * len(rule.columns) // accelerator.cols]


def _filled(parts: dict[str, dict[str, int]], rest: int) -> dict[str, int]:
    """Placements of several cells; a cell without any goes to ``rest`` whole."""
    found: dict[str, int] = {}
    for path, inside in parts.items():
        found |= inside or {path: rest}
    return found
