"""The engine with the window accumulator: golden's sums in every dataflow, the closed form's cycles, its hazards."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.dataflow import window_timing as timing
from nmsat.dataflow.array_timing import ArrayShape, os_cycles, ws_cycles
from nmsat.models.errors import NmsatError
from nmsat.models.golden import product_window
from nmsat.models.window import Window
from nmsat.simulator import window_engine
from nmsat.simulator.engine import run_product

WINDOWS = (Window(33, 64), Window(24, 50), Window(30, 54), Window(36, 67), Window(10, 34))
PATTERNS = ((1, 1), (2, 2), (4, 4), (8, 8), (1, 4), (2, 4), (1, 8), (2, 8), (4, 8), (2, 16), (3, 7))


def operands(rng, m, n, groups, keep, group, hard):
    shapes = (m, groups * group), (groups, keep, n)
    if hard:
        bits = [rng.integers(0, 1 << 16, shape).astype(np.uint16) for shape in shapes]
        bits = [np.where(rng.random(x.shape) < 0.9, x & 0xBFFF, x).astype(np.uint16) for x in bits]
        a, values = (x.view(np.float16) for x in bits)
    else:
        a, values = (rng.normal(size=shape).astype(np.float16) for shape in shapes)
    places = np.sort(np.argsort(rng.random((groups, group, n)), axis=1)[:, :keep], axis=1).astype(np.uint8)
    return a, values, places


def check(seed, cases):
    """Random configurations: both dataflows, any cut, give golden's sums; cycles equal the closed forms."""
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        window, (keep, group) = WINDOWS[rng.integers(len(WINDOWS))], PATTERNS[rng.integers(len(PATTERNS))]
        rows, cols = (int(rng.integers(1, 9)) for _ in range(2))
        shape = ArrayShape(rows, cols, 1, int(rng.integers(1, 7)))
        m, n, groups = int(rng.integers(1, 30)), int(rng.integers(1, 20)), int(rng.integers(1, 14))
        a, values, places = operands(rng, m, n, groups, keep, group, rng.random() < 0.5)
        expected = product_window(a, values, places, group, window)
        segment = int(rng.integers(1, min(groups, window.terms // keep) + 1))
        found = run_product(shape, "os", a, values, places, group=group, window=window, segment=segment)
        assert found.sums.same(expected)
        outputs = -(-m // rows) * -(-n // cols)
        assert found.cycles == timing.os_cycles(shape, keep, groups, segment, outputs)
        assert found.issue_slots == outputs * groups * keep
        m_chunk = int(rng.integers(1, m + 1))
        found = run_product(shape, "ws", a, values, places, group=group, window=window, m_chunk=m_chunk)
        assert found.sums.same(expected)
        per_chunk = -(-n // cols) * -(-groups // rows)
        runs = [(m // m_chunk * per_chunk, m_chunk), (per_chunk if m % m_chunk else 0, m % m_chunk)]
        assert found.cycles == timing.ws_cycles(shape, keep, runs)
    return cases


def test_closed_form_and_golden_equal_the_engine():
    assert check(1, 300) == 300


@pytest.mark.slow
def test_closed_form_and_golden_equal_the_engine_10000():
    assert check(2, 10_000) == 10_000


@pytest.mark.parametrize("keep", [1, 2, 8])
def test_the_default_guarantee_spills_at_16384_products(keep):
    """At the guarantee one tile, one product more and there are two; the bits are golden's either way."""
    rng, window, shape = np.random.default_rng(keep), Window(), ArrayShape(2, 2, 1, 4)
    for extra in (0, 1):
        groups = 16384 // keep + extra
        a, values, places = operands(rng, 2, 2, groups, keep, keep, False)
        found = run_product(shape, "os", a, values, places, group=keep, window=window)
        assert found.sums.same(product_window(a, values, places, keep, window))
        assert found.cycles == timing.os_cycles(shape, keep, groups, 16384 // keep, 1)
        last_issue = 16384 - 1 + (max(keep, 3) if extra else 0)
        assert found.cycles == last_issue + 4 + 1 + 2 * 2 + 2 - 1
        assert found.stall_slots == (max(3 - keep, 0) if extra else 0)


def test_the_largest_sums_stay_in_the_window():
    """As many products of the largest magnitude as the guarantee allows, all of one sign."""
    window = Window(20, 41)  # 16 products
    a = np.full((2, 16), 255.875, np.float16)
    values = np.full((16, 1, 2), 256, np.float16)
    places = np.zeros((16, 1, 2), np.uint8)
    shape = ArrayShape(16, 2, 1, 3)
    for sign in (1, -1):
        for dataflow in ("os", "ws"):
            found = run_product(shape, dataflow, a, np.float16(sign) * values, places, group=1, window=window)
            assert found.sums.integers().tolist() == [[sign * 16 * int(255.875 * 256) << 20] * 2] * 2
            assert not found.sums.flagged.any()


def test_a_sum_that_leaves_its_window_is_a_hazard():
    """What the guarantee prevents: twice its products, given to the compiled sequencers directly."""
    window, k = Window(20, 41), 33
    a, values = np.full((1, k), 255.875, np.float16), np.full((k, 1, 1), 256, np.float16)
    places = np.zeros((k, 1, 1), np.uint8)
    _, counters = window_engine.window_os(ArrayShape(1, 1, 1, 1), window, a, values, places, 1, k)
    assert counters[3] == window_engine.LEFT_WINDOW
    _, counters = window_engine.window_ws(ArrayShape(k, 1, 1, 1), window, a, values, places, 1, 1)
    assert counters[3] == window_engine.LEFT_WINDOW
    with pytest.raises(
        NmsatError, match=r"^engine: segment: must be 1 to 16, what Window\(lsb=20, bits=41\) holds, not 33$"
    ):
        run_product(ArrayShape(1, 1, 1, 1), "os", a, values, places, group=1, window=window, segment=k)
    with pytest.raises(NmsatError, match=r"^engine: rows: must be at most 16, "):
        run_product(ArrayShape(k, 1, 1, 1), "ws", a, values, places, group=1, window=window)


def test_narrow_sums_below_33_bits():
    assert not window_engine._outside(0, (1 << 24) - 1, 25)
    assert window_engine._outside(0, 1 << 24, 25)
    assert not window_engine._outside(-1, (1 << 32) - (1 << 24), 25)
    assert window_engine._outside(-1, (1 << 32) - (1 << 24) - 1, 25)


@pytest.mark.parametrize("skew", [(0, 0), (0, 2)])
def test_rows_that_issue_at_the_wrong_time_are_seen(skew):
    a, values, places = np.ones((2, 3)), np.ones((2, 1, 1)), np.zeros((2, 1, 1), np.int64)
    sums = window_engine._sums(1, 3)
    counters = np.zeros(4, np.int64)
    window_engine._ws(a, values, places, *sums, counters, np.array(skew), 2, 1, 1, 1, 1, 3, 1, 33, 64)
    assert counters[3] == window_engine.READ_EARLY


def test_what_it_gains():
    """Against fp32 at La = 8: no folds, no interleave, a skew of 1 a row. And where nothing is gained: long tiles."""
    fp32, window = ArrayShape(32, 32, 8, 4), ArrayShape(32, 32, 1, 4)
    assert os_cycles(fp32, 2, 72, 4, 100) / timing.os_cycles(window, 2, 72, 72, 400) > 1.0
    assert ws_cycles(fp32, 2, [(100, 32)]) - timing.ws_cycles(window, 2, [(100, 32)]) == 31 * 7 + 7 + (1 + 9 + 8 - 2)


@pytest.mark.parametrize(
    ("dataflow", "options", "message"),
    [
        ("is", {}, r"^engine: dataflow: must be os or ws, not 'is'$"),
        ("os", {"interleave": 2}, r"^engine: interleave: must be 1 with a window, not 2$"),
        ("os", {"m_chunk": 2}, r"^engine: m_chunk: must be left out under os, not 2$"),
        ("ws", {"segment": 2}, r"^engine: segment: must be left out under ws, not 2$"),
        ("ws", {"m_chunk": 0}, r"^engine: m_chunk: must be at least 1, not 0$"),
        ("os", {"segment": 0}, r"^engine: segment: must be 1 to "),
        ("os", {"window": None, "segment": 2}, r"^engine: segment: must be left out without a window, not 2$"),
    ],
)
def test_bad_arguments(dataflow, options, message):
    a, values, places = operands(np.random.default_rng(0), 2, 2, 2, 1, 4, False)
    with pytest.raises(NmsatError, match=message):
        run_product(ArrayShape(2, 2, 1, 1), dataflow, a, values, places, **{"group": 4, "window": Window(), **options})
