"""Cycles of a row of stored blocks: head, loops, tail and the mispredicted exit, from its instruction streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...models.core import Core
from .pipeline import Instruction, Pipeline, bound, steady_cycles

GRID = (1, 2, 4, 8, 16, 32)
_ROWS = 5


@dataclass(frozen=True, slots=True)
class RowCode:
    """Streams of one row block.

    ``loops`` is the loop over stored blocks, or the remainder's loop (one block an iteration) and the unrolled one;
    ``between`` joins them. ``repeats`` is how often the compiler unrolled the written loop once more, exits included.
    Where panels are grouped, head and tail are those of a row in one panel, and ``around`` is what a row does once
    for the group.
    """

    head: tuple[Instruction, ...]
    loops: tuple[tuple[Instruction, ...], ...]
    tail: tuple[Instruction, ...]
    between: tuple[tuple[Instruction, ...], ...] = ()
    repeats: int = 1
    around: tuple[Instruction, ...] = ()


@lru_cache(maxsize=8192)
def loop_cycles(core: Core, code: RowCode) -> float:
    """Cycles an iteration of the main loop in its steady state."""
    return steady_cycles(core, _hit(code.loops[-1]))


@lru_cache(maxsize=8192)
def row_table(core: Core, code: RowCode, unroll: int, missed: bool) -> tuple[float, ...]:
    """Cycles of rows of ``GRID`` stored blocks, each between rows like itself."""
    return tuple(_row_cycles(core, code, unroll, blocks, missed) for blocks in GRID)


def _row_cycles(core: Core, code: RowCode, unroll: int, blocks: int, missed: bool) -> float:
    pipeline, ends = Pipeline(core), []
    for _ in range(_ROWS):
        pipeline.run(code.head)
        if len(code.loops) == 2:
            for _ in range(blocks % unroll):
                pipeline.run(_hit(code.loops[0]))
            pipeline.run(code.between[0])
        turns, rest = blocks // unroll, blocks % unroll if len(code.loops) == 1 else 0
        main = code.loops[-1]
        for turn in range(turns):
            last = missed and not rest and turn == turns - 1
            pipeline.run(main if last else _hit(main))
        if rest:
            pipeline.run(_part(main, rest, unroll, missed))
        pipeline.run(code.tail)
        ends.append(pipeline.finish)
    return (ends[-1] - ends[0]) / (_ROWS - 1)


@lru_cache(maxsize=8192)
def _hit(loop: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """The loop with its exit predicted."""
    return tuple(Instruction(x.op, x.writes, x.reads, x.addend, x.writeback) for x in loop)


@lru_cache(maxsize=8192)
def _part(loop: tuple[Instruction, ...], blocks: int, unroll: int, missed: bool) -> tuple[Instruction, ...]:
    """A loop of ``unroll`` blocks left at its exit behind ``blocks`` blocks."""
    exits = [i for i, item in enumerate(loop) if item.op == "branch"]
    end = exits[-(-blocks * len(exits) // unroll) - 1]
    return (*_hit(loop[:end]), Instruction("branch", (), loop[end].reads, exits=missed))


def section_cycles(
    core: Core, code: RowCode, counts: NDArray[np.integer], unroll: int, missed: float
) -> tuple[float, str]:
    """Cycles of one pass over row blocks of ``counts`` stored blocks, and what bounds their loop.

    Between the grid's counts the table is interpolated; above it a row grows by the loop's steady cycles.
    ``missed`` is the share of rows whose exit is mispredicted.
    """
    steady = loop_cycles(core, code)
    unique, many = np.unique(np.asarray(counts, np.int64), return_counts=True)
    inside = np.minimum(unique, GRID[-1]).astype(float)
    beyond = np.maximum(unique - GRID[-1], 0) / unroll * steady
    cycles = 0.0
    for share, flag in ((missed, True), (1.0 - missed, False)):
        if share:
            table: Sequence[float] = row_table(core, code, unroll, flag)
            empty = max(table[0] - steady / unroll, len(code.head + code.tail) / core.issue_width.value)
            each = np.interp(inside, (0, *GRID), (empty, *table)) + beyond
            cycles += share * float(each @ many)
    return cycles, bound(core, code.loops[-1], steady)
