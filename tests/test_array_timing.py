"""The closed forms alone: contract identities, hand-computed figures, edges, sizes no engine reaches, bad arguments."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.dataflow import array_timing as timing
from nmsat.dataflow.array_timing import ArrayShape
from nmsat.models.errors import NmsatError

SAT = ArrayShape(32, 32, 8, 4)
SMALL = st.integers(1, 12)
SHAPES = st.builds(ArrayShape, SMALL, SMALL, SMALL, SMALL)


def os_listing(shape: ArrayShape, keep: int, groups: int, inter: int, tiles: int) -> int:
    """The contract's recurrence for OS, tile by tile (docs/accelerator.md, section 3)."""
    p, folds = max(inter * keep, shape.adder_latency), keep - 1
    starts = [0]
    for j in range(tiles):
        length = max(groups, folds) * p + folds * inter if j else groups * p
        starts.append(starts[-1] + max(length, shape.rows * inter))
    pipeline = shape.multiplier_latency + shape.adder_latency
    if folds:
        base = starts[-1] + folds * p + (folds - 1) * inter + pipeline
    else:
        base = starts[-2] + (groups - 1) * p + pipeline
    last_word = base + shape.rows + (shape.cols - 1) + shape.rows * inter - 1
    return last_word + 1


def ws_listing(shape: ArrayShape, keep: int, rows_of_tiles: list[int]) -> int:
    """The contract's recurrence for WS, tile by tile (docs/accelerator.md, section 4)."""
    latency, start, begin = shape.adder_latency, shape.rows * keep, 0
    for m in rows_of_tiles:
        begin = start
        turnaround = next(x for x in range(latency + 2, latency + 2 + keep) if x % keep == 0)
        start += max(m * keep, shape.rows * keep, turnaround)
    lane0 = begin + (rows_of_tiles[-1] - 1) * keep + (shape.rows - 1) * latency + shape.cols - 1
    lane0 += shape.multiplier_latency + latency
    spacing = next(x for x in range(latency, latency + keep) if (x - 1) % keep == 0)
    return lane0 + min(1, keep - 1) + (keep - 1) * spacing + latency + 1


@pytest.mark.parametrize(
    ("keep", "groups", "inter", "tiles", "cycles"),
    [  # on 32x32, La 8, Lm 4; by hand: (base of the last tile) + 32 + 32*I + 31
        (1, 1, 8, 1, 0 + 12 + 32 + 256 + 31),
        (1, 40, 8, 1, 39 * 8 + 12 + 32 + 256 + 31),
        (1, 40, 8, 3, 2 * 320 + 39 * 8 + 12 + 32 + 256 + 31),
        (2, 16, 4, 1, 128 + 8 + 12 + 32 + 128 + 31),
        (2, 16, 4, 2, 128 + 132 + 8 + 12 + 32 + 128 + 31),
        (2, 15, 4, 2, 128 + 128 + 8 + 12 + 32 + 128 + 31),
        (8, 3, 1, 2, 32 + (7 * 8 + 7) + 7 * 8 + 6 + 12 + 32 + 32 + 31),
    ],
)
def test_os_by_hand(keep, groups, inter, tiles, cycles):
    assert timing.os_cycles(SAT, keep, groups, inter, tiles) == cycles


@pytest.mark.parametrize(
    ("keep", "runs", "cycles"),
    [  # load 32*N, starts, 31*8 + 31 of skew, 12 of pipeline, foot, +1
        (1, [(1, 1)], 32 + 0 + 248 + 31 + 12 + 8 + 1),
        (1, [(1, 100)], 32 + 99 + 248 + 31 + 12 + 8 + 1),
        (1, [(3, 100)], 32 + 299 + 248 + 31 + 12 + 8 + 1),
        (1, [(3, 31)], 32 + 64 + 30 + 248 + 31 + 12 + 8 + 1),
        (2, [(1, 100)], 64 + 198 + 248 + 31 + 12 + (1 + 9 + 8) + 1),
        (2, [(2, 100), (2, 7)], 64 + 400 + 64 + 12 + 248 + 31 + 12 + (1 + 9 + 8) + 1),
        (4, [(1, 5)], 128 + 16 + 248 + 31 + 12 + (1 + 27 + 8) + 1),
    ],
)
def test_ws_by_hand(keep, runs, cycles):
    assert timing.ws_cycles(SAT, keep, runs) == cycles


@given(SHAPES, SMALL, SMALL, SMALL, st.integers(1, 7))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_os_is_the_recurrence(shape, keep, groups, inter, tiles):
    assert timing.os_cycles(shape, keep, groups, inter, tiles) == os_listing(shape, keep, groups, inter, tiles)


@given(SHAPES, SMALL, st.lists(st.tuples(st.integers(0, 4), SMALL), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_ws_is_the_recurrence(shape, keep, runs):
    tiles = [m for count, m in runs for _ in range(count)]
    if tiles:
        assert timing.ws_cycles(shape, keep, runs) == ws_listing(shape, keep, tiles)
    else:
        with pytest.raises(NmsatError, match=r"^array timing: runs: must be "):
            timing.ws_cycles(shape, keep, runs)


@given(SHAPES, SMALL, SMALL, SMALL, st.integers(2, 10**9))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_one_more_tile_costs_one_period(shape, keep, groups, inter, tiles):
    one_more = timing.os_cycles(shape, keep, groups, inter, tiles + 1) - timing.os_cycles(
        shape, keep, groups, inter, tiles
    )
    assert one_more == timing.os_period(shape, keep, groups, inter)
    m = groups
    grown = timing.ws_cycles(shape, keep, [(tiles + 1, m)]) - timing.ws_cycles(shape, keep, [(tiles, m)])
    assert grown == timing.ws_period(shape, keep, m)


@given(SHAPES, SMALL, SMALL, SMALL, st.integers(1, 50))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_bounds(shape, keep, groups, inter, tiles):
    """Issue slots <= overlapped <= serial, in both dataflows; tiles without overlap pay exactly one tile each."""
    overlapped = timing.os_cycles(shape, keep, groups, inter, tiles)
    serial = timing.os_cycles_serial(shape, keep, groups, inter, tiles)
    assert tiles * groups * inter * keep < overlapped <= serial
    assert serial == tiles * timing.os_cycles(shape, keep, groups, inter, 1)
    runs = [(tiles, groups), (1, inter)]
    overlapped, serial = timing.ws_cycles(shape, keep, runs), timing.ws_cycles_serial(shape, keep, runs)
    assert (tiles * groups + inter) * keep < overlapped <= serial
    assert serial == tiles * timing.ws_cycles(shape, keep, [(1, groups)]) + timing.ws_cycles(shape, keep, [(1, inter)])


@given(SHAPES, SMALL)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_foot_spacing_is_the_smallest_of_its_class_and_free_of_collisions(shape, keep):
    """Outputs arrive every N cycles, steps are d >= La apart: step j of every output must own cycles of class j mod N.

    1 mod N is the contract's choice; a d of another class that is coprime to N would be free of collisions too.
    """
    spacing = timing.foot_spacing(shape, keep)
    slots = {(j * spacing) % keep for j in range(keep)}
    assert len(slots) == keep
    assert shape.adder_latency <= spacing < shape.adder_latency + keep
    assert (spacing - 1) % keep == 0
    steps = [min(1, keep - 1) + j * spacing for j in range(keep)]
    assert timing.foot_latency(shape, keep) == steps[-1] + shape.adder_latency
    assert all(step >= lane for lane, step in zip(range(1, keep), steps[:-1], strict=True))  # lane j is there


@pytest.mark.parametrize("keep", [1, 2, 4, 8])
@pytest.mark.parametrize("latency", [1, 2, 7, 8, 9])
def test_full_interleave_is_the_smallest_that_hides_the_adder(keep, latency):
    shape = ArrayShape(4, 4, latency, 3)
    inter = timing.full_interleave(shape, keep)
    assert timing.os_pass(shape, keep, inter) == inter * keep
    assert inter == 1 or (inter - 1) * keep < latency


@pytest.mark.parametrize("keep,inter", [(1, 1), (1, 8), (2, 1), (2, 4), (4, 2), (8, 1)])
@pytest.mark.parametrize("groups", [1, 2, 33])
def test_the_tile_latency_is_the_cycle_of_the_last_result(keep, inter, groups):
    """T = last issue slot + skew to the far element + pipeline, as in the per-issue derivation."""
    passes = max(inter * keep, 8)
    last_slot = (groups - 1) * passes + inter * keep - 1
    assert timing.os_tile_latency(SAT, keep, groups, inter) == last_slot + 31 + 31 + 4 + 8


def test_a_thousand_million_tiles_take_no_time():
    start = time.perf_counter()
    tiles = 10**9
    assert timing.os_cycles(SAT, 2, 576, 4, tiles) == 576 * 8 + (tiles - 1) * (576 * 8 + 4) + 8 + 12 + 32 + 128 + 31
    whole = timing.ws_cycles(SAT, 2, [(tiles, 100), (tiles, 3)])
    assert whole == timing.ws_cycles(SAT, 2, [(1, 3)]) + tiles * 200 + (tiles - 1) * 64
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ArrayShape(0, 1, 1, 1), r"^array timing: rows: must be at least 1, not 0$"),
        (lambda: ArrayShape(1, -2, 1, 1), r"^array timing: cols: must be at least 1, not -2$"),
        (lambda: ArrayShape(1, 1, 0, 1), r"^array timing: adder_latency: must be at least 1, not 0$"),
        (lambda: ArrayShape(1, 1, 1, 0), r"^array timing: multiplier_latency: must be at least 1, not 0$"),
        (lambda: timing.os_cycles(SAT, 2, 3, 4, 0), r"^array timing: tiles: must be at least 1, not 0$"),
        (lambda: timing.os_cycles(SAT, 2, 0, 4, 1), r"^array timing: groups: must be at least 1, not 0$"),
        (lambda: timing.os_cycles(SAT, 0, 1, 4, 1), r"^array timing: keep: must be at least 1, not 0$"),
        (lambda: timing.os_cycles(SAT, 1, 1, 0, 1), r"^array timing: interleave: must be at least 1, not 0$"),
        (lambda: timing.ws_cycles(SAT, 2, []), r"^array timing: runs: must be at least one tile of at least one row, "),
        (lambda: timing.ws_cycles(SAT, 2, [(0, 5)]), r"^array timing: runs: must be at least one tile "),
        (lambda: timing.ws_cycles(SAT, 2, [(1, 0)]), r"^array timing: runs: must be at least one tile "),
        (lambda: timing.ws_cycles_serial(SAT, 2, []), r"^array timing: runs: must be at least one tile "),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(NmsatError, match=message):
        call()


def test_the_closed_forms_import_no_numpy_or_numba():
    code = (
        "import sys, nmsat.dataflow.array_timing\nprint([name for name in ('numpy', 'numba') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
