"""Closed forms of the vector engines' timing: SORE, WUVE, epilogue and transpose buffer, as the RTL takes it.

Counts run from the first word accepted to the last word out, inclusive, when the source always has a word and the sink
always takes one. A pipeline of latency L passes b words in b + L cycles. What the simulator charges is the b: engines
of one chain overlap, so their latencies are paid once a step and lie beside the array's own fill.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..models.errors import NmsatError

SORE_LATENCY_CYCLES = 8
WUVE_LATENCY_CYCLES = 31
EPILOGUE_LATENCY_CYCLES = 4
DRAIN_LATENCY_CYCLES = 5
TRANSPOSER_LATENCY_CYCLES = 5


def words(count: int, lanes: int) -> int:
    """Words of ``lanes`` items that hold ``count`` items: the busy cycles of an engine."""
    if lanes < 1 or count < 0:
        raise NmsatError.rule("vector timing", "lanes and count", "at least 1 and 0", (lanes, count))
    return -(-count // lanes)


def sore_cycles(groups: int, lanes: int) -> int:
    """Cycles of SORE over ``groups`` groups of one stream."""
    return _cycles(words(groups, lanes), SORE_LATENCY_CYCLES)


def wuve_cycles(weights: int, lanes: int) -> int:
    """Cycles of WUVE over ``weights`` weights."""
    return _cycles(words(weights, lanes), WUVE_LATENCY_CYCLES)


def epilogue_cycles(values: int, lanes: int) -> int:
    """Cycles of the epilogue over ``values`` sums."""
    return _cycles(words(values, lanes), EPILOGUE_LATENCY_CYCLES)


def drain_cycles(values: int, lanes: int) -> int:
    """Cycles of the window accumulator's drain over ``values`` sums."""
    return _cycles(words(values, lanes), DRAIN_LATENCY_CYCLES)


def transposer_cycles(tiles: Iterable[tuple[int, int]]) -> int:
    """Cycles of the transpose buffer over tiles of (rows, columns).

    Two banks: the rows of tile j enter behind those of tile j-1 and, at the earliest, while the last column of tile j-2
    is read; its columns are read from two cycles after its last row and behind those of tile j-1. In the steady state
    of equal tiles one takes max(rows, columns).

    Raises
    ------
    NmsatError
        A tile has no row or no column.
    """
    accepted = read = -1  # cycle of the last row accepted and of the last column read
    older = 0  # and of the last column of the tile before
    for rows, cols in tiles:
        if rows < 1 or cols < 1:
            raise NmsatError.rule("vector timing", "tiles", "at least one row and one column", (rows, cols))
        accepted = max(accepted, older - 1) + rows
        older, read = read, max(accepted + 1, read) + cols
    return read + TRANSPOSER_LATENCY_CYCLES - 1 if read >= 0 else 0


def _cycles(count: int, latency: int) -> int:
    return count + latency if count else 0
