"""The array at its ports: values equal the engine's bit for bit, cycles equal the engine's and the closed form."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from nmsat.dataflow.array_timing import ArrayShape, os_cycles, ws_cycles
from nmsat.models import Accelerator
from nmsat.models.errors import NmsatError
from nmsat.rtl.array_bench import run_array
from nmsat.rtl.array_parameters import ArrayParameters
from nmsat.rtl.array_streams import as_json, north_width, os_streams, ws_streams
from nmsat.rtl.emit import Emission
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.simulators.bench import finish
from nmsat.rtl.simulators.cxxrtl import CxxrtlBench
from nmsat.rtl.stce import Stce
from nmsat.simulator.engine import run_os, run_ws

SMALL = ArrayParameters(4, 4, 8, 8, multiplier_latency=4, adder_latency=8)
WIDE = ArrayParameters(2, 3, 16, 32, multiplier_latency=2, adder_latency=5)


@cache
def compiled(parameters: ArrayParameters) -> CxxrtlBench:
    return CxxrtlBench(Emission().emit(Stce(parameters=parameters), "stce"))


def operands(keep, group, m, n, groups, *, hard, seed=0):
    """Random operands; ``hard``: every bit pattern, with a few Inf and NaN, so that order and specials show."""
    rng = np.random.default_rng([seed, m, n, keep, group])
    shapes = (m, groups * group), (groups, keep, n)
    if hard:
        found = []
        for shape in shapes:
            x = rng.integers(0, 1 << 16, shape).astype(np.uint16).view(np.float16)
            found.append(np.where(np.isfinite(x) | (rng.random(shape) < 0.01), x, np.float16(-0.0)))
        a, values = found
    else:
        a, values = (rng.normal(size=shape).astype(np.float16) for shape in shapes)
    places = np.sort(np.argsort(rng.random((groups, group, n)), axis=1)[:, :keep], axis=1).astype(np.uint8)
    return a, values, places


def run(parameters, mode, keep, group, m, n, groups, extra, *, sim="cxxrtl", hard=False, **bench):
    """(result of the RTL as float32 bits, its cycles, the engine's result); ``extra``: interleave or rows a tile."""
    p = parameters
    a, values, places = operands(keep, group, m, n, groups, hard=hard)
    shape = ArrayShape(p.rows, p.cols, p.adder_latency, p.multiplier_latency)
    make, engine = (os_streams, run_os) if mode == "os" else (ws_streams, run_ws)
    streams = make(p, a, values, places, group, extra)
    arguments = as_json(streams) | {"widths": {"west": 16 * p.max_group, "north": north_width(p)}, **bench}
    if sim == "cxxrtl":
        found = finish(run_array(compiled(p), **arguments))
    else:
        found = run_bench(Stce(parameters=p), "stce", run_array, arguments, sim)
    product = streams.product(found["south"])[:m, :n]
    return product.view(np.uint32), found["cycles"], engine(shape, a, values, places, group, extra)


def check(parameters, mode, *case, **how):
    product, cycles, expected = run(parameters, mode, *case, **how)
    assert np.array_equal(product, expected.values.view(np.uint32))
    if not how.get("idle"):
        assert cycles == expected.cycles


CASES = [  # keep, group, m, n, groups, interleave, rows a tile
    (1, 1, 1, 1, 1, 1, 1), (1, 4, 7, 7, 3, 8, 4), (1, 8, 33, 4, 9, 3, 33), (2, 2, 9, 3, 3, 4, 2), (2, 4, 13, 4, 4, 4, 13),
    (2, 8, 33, 4, 6, 4, 10), (2, 8, 3, 5, 1, 1, 3), (3, 8, 6, 3, 4, 2, 4), (4, 4, 5, 2, 3, 1, 5), (4, 8, 12, 9, 5, 2, 6),
    (5, 8, 9, 5, 6, 2, 3), (7, 8, 9, 5, 2, 2, 9), (8, 8, 5, 9, 5, 1, 2),
]  # fmt: skip
WIDE_CASES = [
    (2, 16, 8, 9, 2, 3, 1), (4, 16, 5, 4, 3, 2, 5), (8, 32, 5, 4, 3, 1, 5), (16, 16, 3, 4, 3, 1, 2), (2, 4, 6, 5, 5, 1, 2),
    (1, 32, 11, 7, 4, 5, 11), (13, 32, 3, 4, 4, 1, 2),
]  # fmt: skip


@pytest.mark.parametrize("hard", [False, True], ids=["normal", "hard"])
@pytest.mark.parametrize("mode", ["os", "ws"])
@pytest.mark.parametrize(
    "parameters, case", [(SMALL, c) for c in CASES] + [(WIDE, c) for c in WIDE_CASES], ids=lambda x: str(x)[:40]
)
def test_values_and_cycles(parameters, case, mode, hard):
    *sizes, interleave, rows = case
    check(parameters, mode, *sizes, interleave if mode == "os" else rows, hard=hard)


@pytest.mark.parametrize("mode", ["os", "ws"])
@pytest.mark.parametrize(
    "rows, cols, hop", [(3, 5, 3), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((4, 4, 2), (2, 2, 1)))]
)
def test_registers_at_the_cut_delay_the_eastern_half_and_nothing_else(rows, cols, hop, mode):
    """The way to another super logic region: the same bits, ``hop`` cycles later, as the scheduler counts it."""
    parameters = ArrayParameters(rows, cols, 8, 8, hop=hop)
    for keep, group, *sizes, interleave, chunk in CASES[:9]:
        product, cycles, expected = run(parameters, mode, keep, group, *sizes, interleave if mode == "os" else chunk)
        assert np.array_equal(product, expected.values.view(np.uint32))
        assert cycles == expected.cycles + hop
    check(parameters, mode, 2, 8, 9, 5, 6, 2, hard=True, idle=0.5, seed=3)


@pytest.mark.parametrize("mode", ["os", "ws"])
def test_closed_form(mode):
    """Simulator, closed form and RTL in one line each: nine tiles without a bubble."""
    keep, group, m, n, groups = 2, 8, 48, 12, 4
    _, cycles, expected = run(SMALL, mode, keep, group, m, n, groups, 4 if mode == "os" else 16)
    shape = ArrayShape(4, 4, 8, 4)
    closed = os_cycles(shape, keep, groups, 4, tiles=9) if mode == "os" else ws_cycles(shape, keep, [(9, 16)])
    assert cycles == expected.cycles == closed


@pytest.mark.parametrize("idle", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mode", ["os", "ws"])
@pytest.mark.parametrize("case", [(2, 8, 9, 5, 6), (1, 8, 9, 5, 6), (4, 8, 5, 9, 6)])
def test_back_pressure_and_idle_streams(mode, case, idle):
    check(SMALL, mode, *case, 2 if mode == "os" else 4, hard=True, idle=idle, seed=7)


@pytest.mark.parametrize("keep, m", [(1, 9), (3, 9), (5, 4)])
def test_a_late_command_delays_its_tile_to_whole_rows(keep, m):
    """Weight-stationary outputs stay a multiple of N cycles apart, or the feet would need their adders twice at once."""
    p, tiles = SMALL, 4
    a, values, places = operands(keep, 8, m, 7, 7, hard=True)
    streams = ws_streams(p, a, values, places, 8, m)
    expected = run_ws(ArrayShape(4, 4, 8, 4), a, values, places, 8, m).values
    arguments = as_json(streams) | {"widths": {"west": 128, "north": north_width(p)}}
    assert len(streams.commands) == tiles
    ends = []
    for late in range(2 * keep + 1):
        found = finish(run_array(compiled(p), **arguments, due=[0, 0, 150 + late, 150 + late]))
        assert np.array_equal(streams.product(found["south"])[:m, :7].view(np.uint32), expected.view(np.uint32))
        for left in found["left"]:
            assert {(cycle - left[0]) % keep for cycle in left} == {0}
        ends.append(found["left"][0][-1])
    assert all(0 <= later - sooner <= keep for sooner, later in pairwise(ends))
    assert ends[keep] == ends[0] + keep
    assert ends[-1] == ends[0] + 2 * keep


@pytest.mark.parametrize("after", [1, 2, 17, 40, 61, 90])
@pytest.mark.parametrize("mode", ["os", "ws"])
def test_reset_in_mid_operation(mode, after):
    check(SMALL, mode, 2, 8, 17, 5, 6, 4 if mode == "os" else 9, reset_after=after)


def test_modes_and_patterns_follow_each_other_without_reset():
    """Sequences queue up: the next starts when the last word of the one before has left."""
    p, commands, south = SMALL, [], [[] for _ in range(4)]
    west, north, expected = [[] for _ in range(4)], [[] for _ in range(4)], []
    for mode, keep, group in (("os", 2, 8), ("ws", 2, 8), ("os", 1, 4), ("os", 8, 8), ("ws", 4, 8), ("ws", 1, 2)):
        a, values, places = operands(keep, group, 9, 4, 4, hard=False)
        streams = (os_streams if mode == "os" else ws_streams)(p, a, values, places, group, 1 if mode == "os" else 9)
        commands += streams.commands
        for all_words, words in ((west, streams.west), (north, streams.north)):
            for lane, more in zip(all_words, words, strict=True):
                lane += more
        assert not streams.partial
        engine = run_os if mode == "os" else run_ws
        expected.append((streams, engine(ArrayShape(4, 4, 8, 4), a, values, places, group, 1 if mode == "os" else 9)))
    outputs = sum(len(streams.places) for streams, _ in expected)
    widths = {"west": 128, "north": north_width(p)}
    arguments = {
        "commands": commands,
        "west": west,
        "north": north,
        "partial": [],
        "outputs": outputs,
        "widths": widths,
    }
    south = finish(run_array(compiled(p), **arguments))["south"]
    for streams, result in expected:
        count = len(streams.places)
        mine, south = [words[:count] for words in south], [words[count:] for words in south]
        assert np.array_equal(streams.product(mine)[:9, :4].view(np.uint32), result.values.view(np.uint32))


@pytest.mark.parametrize("mode", ["os", "ws"])
@pytest.mark.parametrize(
    "sizes, case",
    [
        ((1, 1, 1, 1, 1, 1), (1, 1, 3, 2, 3, 1)),
        ((1, 2, 2, 4, 1, 3), (2, 4, 3, 3, 3, 1)),
        ((3, 1, 2, 2, 6, 1), (2, 2, 4, 2, 4, 1)),
        ((2, 2, 1, 4, 3, 9), (1, 4, 5, 3, 3, 9)),
    ],
)
def test_other_shapes_and_latencies_in_amaranth(mode, sizes, case):
    """rows, cols, N, M, Lm, La: no register inside a unit, more than there are cuts, one row, one column."""
    *rest, interleave = case
    check(ArrayParameters(*sizes), mode, *rest, interleave if mode == "os" else 2, sim="amaranth", hard=True)


@pytest.mark.parametrize("mode", ["os", "ws"])
def test_icarus_agrees(mode):
    check(ArrayParameters(2, 2, 2, 8), mode, 2, 8, 5, 3, 4, 4 if mode == "os" else 3, sim="icarus", hard=True)


@pytest.mark.parametrize("mode", ["os", "ws"])
def test_full_size(mode):
    """The shipped array's size and latencies at 2:8: more than one tile each way, tails in every direction."""
    check(ArrayParameters(32, 32, 2, 8), mode, 2, 8, 140, 40, 34, 4 if mode == "os" else 70, hard=True)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"rows": 0}, ValueError, r"^rows must be between 1 and 1024, not 0$"),
        ({"cols": 1025}, ValueError, r"^cols must be between 1 and 1024, not 1025$"),
        ({"cols": "4"}, TypeError, r"^cols must be an integer, not '4'$"),
        ({"max_keep": 9}, ValueError, r"^max_keep must be between 1 and 8, not 9$"),
        ({"max_keep": 0}, ValueError, r"^max_keep must be between 1 and 8, not 0$"),
        ({"max_group": 33}, ValueError, r"^max_group must be between 1 and 32, not 33$"),
        ({"adder_latency": 0}, ValueError, r"^adder_latency must be between 1 and 32, not 0$"),
        ({"hop": 17}, ValueError, r"^hop must be 0 to 16, not 17$"),
        ({"hop": 1, "cols": 1}, ValueError, r"^hop must be 0 with one column, not 1$"),
    ],
)
def test_parameters_are_checked(change, error, message):
    with pytest.raises(error, match=message):
        ArrayParameters(**({"rows": 4, "cols": 4, "max_keep": 2, "max_group": 8} | change))


def test_patterns_beyond_the_generated_maxima_are_refused():
    a, values, places = operands(2, 8, 3, 3, 2, hard=False)
    with pytest.raises(NmsatError, match=r"^array: keep: must be at most 1, not 2"):
        os_streams(ArrayParameters(2, 2, 1, 8), a, values, places, 8, 1)
    with pytest.raises(NmsatError, match=r"^array: group: must be at most 4, not 8"):
        ws_streams(ArrayParameters(2, 2, 2, 4), a, values, places, 8, 1)
    with pytest.raises(NmsatError, match=r"^array: interleave: must be 1 to 8 and at most 8 / N, not 5"):
        os_streams(ArrayParameters(2, 2, 2, 8), a, values, places, 8, 5)


def test_from_accelerator():
    sat = Accelerator.load("sat")
    assert ArrayParameters.from_accelerator(sat) == ArrayParameters(32, 32, 32, 32, 4, 8, hop=2)


@pytest.mark.parametrize("keep", range(1, 9))
def test_weight_ring_is_deep_enough(keep):
    """By enumeration of every row's writes and last reads over tiles of the shortest legal length."""
    R, La, N = 32, 8, keep
    period = max(R * N, N * -(-(La + 2) // N))

    def fits(sets):
        for r in range(R):
            for n in range(N):
                written = (R - 1 - r) * N + r + n + (sets - 1) * period  # of set `sets`, tile 0 starting at 0
                last_read = (period // N - 1) * N + n + r * La
                if written <= last_read:
                    return False
        return True

    least = next(sets for sets in range(2, 99) if fits(sets))
    assert ArrayParameters(R, 1, N, N, 4, La).weight_depth >= least * N
