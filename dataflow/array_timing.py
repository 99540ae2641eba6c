"""Closed forms of the array's timing: plain integers, O(1) in the number of tiles.

Derivation in docs/accelerator.md, sections 3 and 4. Every form equals the cycle engine
(``nmsat.simulator.engine``) on random legal configurations, by test. N is ``keep``, the values kept in a
group; G is ``groups``, the groups along k; P = max(I*N, La) is the length of one pass over the groups' values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..models.errors import NmsatError


@dataclass(frozen=True, slots=True)
class ArrayShape:
    """What the timing of a product depends on besides the product.

    Parameters
    ----------
    rows, cols : int
        R and C.
    adder_latency, multiplier_latency : int
        La and Lm in cycles.

    Raises
    ------
    NmsatError
        One of them is below 1.
    """

    rows: int
    cols: int
    adder_latency: int
    multiplier_latency: int

    def __post_init__(self) -> None:
        require_positive(
            rows=self.rows,
            cols=self.cols,
            adder_latency=self.adder_latency,
            multiplier_latency=self.multiplier_latency,
        )


def require_positive(**arguments: int) -> None:
    """NmsatError unless every argument is at least 1."""
    for name, value in arguments.items():
        if value < 1:
            raise NmsatError.rule("array timing", name, "at least 1", value)


def full_interleave(shape: ArrayShape, keep: int) -> int:
    """I = ceil(La / N): the smallest interleave that hides the adder's latency."""
    return -(-shape.adder_latency // keep)


def os_pass(shape: ArrayShape, keep: int, interleave: int) -> int:
    """P, cycles of one pass: I*N issue slots, or La where the accumulation would otherwise collide."""
    return max(interleave * keep, shape.adder_latency)


def os_tile_latency(shape: ArrayShape, keep: int, groups: int, interleave: int) -> int:
    """Cycles from the first issue of one tile to its last sum ready in the far corner element (T of section 6)."""
    skew = (shape.rows - 1) + (shape.cols - 1)
    pipeline = shape.multiplier_latency + shape.adder_latency - 1
    return os_pass(shape, keep, interleave) * (groups - 1) + interleave * keep + skew + pipeline


def _os_lengths(shape: ArrayShape, keep: int, groups: int, interleave: int) -> tuple[int, int]:
    """(first tile, later tiles): cycles from a tile's first issue to the next tile's first issue."""
    folds, step = keep - 1, os_pass(shape, keep, interleave)
    drain = shape.rows * interleave
    return max(groups * step, drain), max(max(groups, folds) * step + folds * interleave, drain)


def os_period(shape: ArrayShape, keep: int, groups: int, interleave: int) -> int:
    """Steady-state cycles a tile: G*P + (N-1)*I, or the R*I cycles of the column drain if longer."""
    return _os_lengths(shape, keep, groups, interleave)[1]


def os_cycles(shape: ArrayShape, keep: int, groups: int, interleave: int, tiles: int) -> int:
    """Cycles of a sequence of OS tiles, first issue to last word out of the last column, inclusive.

    Raises
    ------
    NmsatError
        A size is below 1.
    """
    require_positive(keep=keep, groups=groups, interleave=interleave, tiles=tiles)
    folds, step = keep - 1, os_pass(shape, keep, interleave)
    first, later = _os_lengths(shape, keep, groups, interleave)
    if folds:
        ready = first + (tiles - 1) * later + folds * step + (folds - 1) * interleave
    else:
        ready = (first + (tiles - 2) * later if tiles > 1 else 0) + (groups - 1) * step
    ready += shape.multiplier_latency + shape.adder_latency
    return ready + shape.rows + shape.rows * interleave + shape.cols - 1


def os_cycles_serial(shape: ArrayShape, keep: int, groups: int, interleave: int, tiles: int) -> int:
    """The same without overlap: every tile pays its own fill, fold and drain."""
    return tiles * os_cycles(shape, keep, groups, interleave, 1)


def foot_spacing(shape: ArrayShape, keep: int) -> int:
    """Cycles between the steps of one output's sum at the column foot: the smallest value >= La that is 1 mod N.

    Lanes arrive every cycle, outputs every N. With a spacing of 1 mod N, step j of every output falls on cycles of
    class j mod N, so no two steps ever meet in the adder and the class alone says which step it is.
    """
    return shape.adder_latency + (1 - shape.adder_latency) % keep


def foot_latency(shape: ArrayShape, keep: int) -> int:
    """Cycles from an output's first lane at the column foot to its sum with the previous k-tile."""
    return min(1, keep - 1) + (keep - 1) * foot_spacing(shape, keep) + shape.adder_latency


def ws_period(shape: ArrayShape, keep: int, m: int) -> int:
    """Cycles of one WS weight tile that streams m rows.

    m*N issue slots, or the R*N cycles of the next tile's weight load, or La+2 so that the output buffer has the
    previous k-tile's sums (one cycle to write, one to read), rounded up to whole rows of N slots: a tile that
    started elsewhere in that rhythm would meet the previous tile's sums in the foot adder.
    """
    turnaround = -(-(shape.adder_latency + 2) // keep) * keep
    return max(m * keep, shape.rows * keep, turnaround)


def ws_cycles(shape: ArrayShape, keep: int, runs: Sequence[tuple[int, int]]) -> int:
    """Cycles of a sequence of WS tiles, first weight load to last sum at the last column's foot, inclusive.

    Parameters
    ----------
    runs : sequence of (tiles, m)
        Consecutive weight tiles that each stream m rows. A run of no tiles is allowed and ignored.

    Raises
    ------
    NmsatError
        There is no tile, or a tile streams no row.
    """
    runs = tiles_of(keep, runs)
    body = sum(tiles * ws_period(shape, keep, m) for tiles, m in runs)
    last = runs[-1][1]
    body -= ws_period(shape, keep, last) - last * keep  # nothing waits for the last tile's slack
    lane0_out = body - keep + (shape.rows - 1) * shape.adder_latency + shape.cols - 1
    lane0_out += shape.multiplier_latency + shape.adder_latency
    return shape.rows * keep + lane0_out + foot_latency(shape, keep) + 1


def ws_cycles_serial(shape: ArrayShape, keep: int, runs: Sequence[tuple[int, int]]) -> int:
    """The same without overlap: every tile pays its own load, fill and drain."""
    return sum(tiles * ws_cycles(shape, keep, [(1, m)]) for tiles, m in tiles_of(keep, runs))


def tiles_of(keep: int, runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of WS tiles without the empty ones; NmsatError unless there is a tile and every tile has a row."""
    require_positive(keep=keep)
    found = [(tiles, m) for tiles, m in runs if tiles]
    if not found or any(tiles < 0 or m < 1 for tiles, m in found):
        raise NmsatError.rule("array timing", "runs", "at least one tile of at least one row", runs)
    return found
