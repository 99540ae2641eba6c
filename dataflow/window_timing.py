"""Closed forms of the array's timing with the window accumulator (docs/accelerator.md, section 11).

The sum takes one cycle and one place: all N lanes of an output add to it, so there are no folds and nothing to
interleave. A column's foot is one more such sum. :mod:`.array_timing` has the forms of the fp32 accumulator; in a shape
used here ``adder_latency`` must be 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..models.window import TURNAROUND
from .array_timing import ArrayShape, require_positive, tiles_of


def os_spacing(shape: ArrayShape, keep: int, groups: int) -> int:
    """Cycles from the last issue of the tile before to that of an OS tile.

    Its G*N slots; or a column's drain, which must be over when the next sums enter the chain; or the turnaround. A
    short tile waits before its last slot.
    """
    return max(groups * keep, shape.rows, TURNAROUND)


def os_cycles(shape: ArrayShape, keep: int, groups: int, segment: int, outputs: int) -> int:
    """Cycles of the OS tiles of ``outputs`` output tiles, first issue to last word out of the last column, inclusive.

    Parameters
    ----------
    groups, segment : int
        Groups along k, and how many of them a tile adds before the sums go to the output buffer; the last tile of an
        output has the rest.

    Raises
    ------
    NmsatError
        A size is below 1.
    """
    require_positive(keep=keep, groups=groups, segment=segment, outputs=outputs)
    full, rest = divmod(groups, segment)
    first = min(groups, segment)
    spaced = full * os_spacing(shape, keep, segment) + (os_spacing(shape, keep, rest) if rest else 0)
    last_issue = first * keep - 1 + outputs * spaced - os_spacing(shape, keep, first)
    return last_issue + shape.multiplier_latency + 1 + 2 * shape.rows + shape.cols - 1


def os_cycles_serial(shape: ArrayShape, keep: int, groups: int, segment: int, outputs: int) -> int:
    """The same without overlap: every tile pays its own fill and drain."""
    full, rest = divmod(groups, segment)
    once = full * os_cycles(shape, keep, segment, segment, 1)
    return outputs * (once + (os_cycles(shape, keep, rest, rest, 1) if rest else 0))


def ws_period(shape: ArrayShape, keep: int, m: int) -> int:
    """Cycles of one WS weight tile that streams m rows: m*N slots, the next tile's load, or the turnaround.

    Lanes are added at the foot as they arrive, the previous k-tile's sum with lane 0: it is back N + 2 cycles later.
    """
    return max(m * keep, shape.rows * keep, keep + TURNAROUND - 1)


def ws_cycles(shape: ArrayShape, keep: int, runs: Sequence[tuple[int, int]]) -> int:
    """Cycles of a sequence of WS tiles, first weight load to last sum at the last column's foot, inclusive.

    Parameters and errors as :func:`.array_timing.ws_cycles`.
    """
    runs = tiles_of(keep, runs)
    last = runs[-1][1]
    body = sum(tiles * ws_period(shape, keep, m) for tiles, m in runs) - ws_period(shape, keep, last) + last * keep
    lane0_out = body - keep + (shape.rows - 1) + (shape.cols - 1) + shape.multiplier_latency + 1
    return shape.rows * keep + lane0_out + keep + 1


def ws_cycles_serial(shape: ArrayShape, keep: int, runs: Sequence[tuple[int, int]]) -> int:
    """The same without overlap: every tile pays its own load, fill and drain."""
    return sum(tiles * ws_cycles(shape, keep, [(1, m)]) for tiles, m in tiles_of(keep, runs))
