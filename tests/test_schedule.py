"""The scheduler's byte and tile counts against a literal walk of the loop nest a mapping describes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nmsat.dataflow import Options
from nmsat.dataflow.program import Mode, Order
from nmsat.dataflow.schedule import Work, candidates, cost
from nmsat.models import DENSE, Accelerator, Sparsity

SMALL = Accelerator.load("sat").replace(
    rows=4, cols=4, w2e_bytes=4096, n2s_bytes=2048, output_bytes=2048, adder_latency_cycles=4
)


def walk(machine: Accelerator, work: Work, mapping) -> tuple[int, int]:
    """(bytes read, tiles) of one repeat, chunk by chunk; a bank remembers what it holds while an operand is resident."""
    b_bytes = work.b_elements * 2 if work.b_dense else work.b_elements // work.pattern.group * work.pattern.group_bytes
    row_bytes, col_bytes = work.a_bytes / work.m, b_bytes / work.n
    groups = work.taps * -(-work.kc // mapping.group)
    chunks_m = [range(x, min(x + mapping.m_chunk, work.m)) for x in range(0, work.m, mapping.m_chunk)]
    chunks_n = [range(x, min(x + mapping.n_chunk, work.n)) for x in range(0, work.n, mapping.n_chunk)]
    nest = [(i, j) for i in range(len(chunks_m)) for j in range(len(chunks_n))]
    if mapping.order is Order.NM:
        nest.sort(key=lambda pair: (pair[1], pair[0]))
    read, tiles, held_a, held_b = 0.0, 0, None, set()
    for i, j in nest:
        rows, cols = chunks_m[i], chunks_n[j]
        whole = mapping.b_resident and mapping.order is Order.MN  # all of B fits: nothing is ever thrown out
        if not whole:
            held_b = {j} & held_b if mapping.b_resident else set()
        if j not in held_b:
            read += len(cols) * col_bytes
            held_b.add(j)
        for _ in range(0, len(cols), machine.cols):
            if not (mapping.a_resident and held_a == i):
                read += len(rows) * row_bytes
                read += work.halo_bytes if i else 0
                held_a = i
            if mapping.mode is Mode.OS:
                tiles += -(-len(rows) // (machine.rows * mapping.interleave))
            else:
                tiles += -(-groups // machine.rows)
    return round(read), tiles


@pytest.mark.parametrize("seed", range(40))
def test_traffic_and_tiles_equal_the_walk(seed):
    rng = np.random.default_rng(seed)
    pattern = [DENSE, Sparsity(2, 8), Sparsity(1, 4)][seed % 3]
    m, n, taps = int(rng.integers(1, 300)), int(rng.integers(1, 40)), int(rng.choice([1, 9]))
    kc = int(rng.choice([8, 16, 64]))
    halo = int(rng.choice([0, 64])) if taps > 1 else 0
    work = Work(
        m, n, kc, taps, 1, pattern, False, m * kc * 2, halo, n * taps * kc, pattern.is_dense, m * n * 2, 0, False
    )
    seen = 0
    for flow in ("os", "ws"):
        for mapping in candidates(SMALL, work, Options(dataflow=flow)):
            found = cost(SMALL, work, mapping)
            read, tiles = walk(SMALL, work, mapping)
            assert (found.read_bytes, found.tiles) == (read, tiles), mapping
            repeated = cost(
                SMALL, replace(work, count=3, a_bytes=3 * work.a_bytes, b_elements=3 * work.b_elements), mapping
            )
            assert (repeated.read_bytes, repeated.tiles) == (3 * read, 3 * tiles)
            seen += 1
    assert seen >= 2


def test_forwarding_saves_exactly_one_pass():
    work = Work(128, 8, 8, 1, 1, DENSE, False, 2048, 0, 64, True, 2048, 0, False)
    for mapping in candidates(SMALL, work, Options()):
        plain, forwarded = cost(SMALL, work, mapping), cost(SMALL, replace(work, forwarded=True), mapping)
        saved = plain.read_bytes - forwarded.read_bytes
        assert saved == (2048 if mapping.a_resident and (mapping.order is Order.MN or mapping.n_chunk >= 8) else 0)


def test_no_chunk_exceeds_its_bank():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        m, n, kc = int(rng.integers(1, 5000)), int(rng.integers(1, 100)), int(rng.choice([8, 64, 256]))
        work = Work(m, n, kc, 1, 1, Sparsity(2, 8), False, m * kc * 2, 0, n * kc, False, m * n * 2, 0, False)
        for mapping in candidates(SMALL, work, Options()):
            if mapping.a_resident:
                assert min(mapping.m_chunk, m) * kc * 2 <= SMALL.w2e_bytes
            if mapping.b_resident:
                kept = n if mapping.order is Order.MN else mapping.n_chunk
                assert kept * kc // 8 * 5 <= SMALL.n2s_bytes
            if mapping.mode is Mode.WS:
                assert mapping.m_chunk * SMALL.cols * 4 <= SMALL.output_bytes
