"""Small parts of the units by themselves: waiting mask bytes, bits put into a plane."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from nmsat.rtl.product.rests import Rests
from nmsat.rtl.update_planes import _put


@pytest.mark.parametrize("rows", [1, 2, 5, 255, 256, 257, 600, 1024])
def test_rests_are_a_byte_a_row(rows):
    rests, numbers, kept = Rests(rows=rows), random.Random(rows), {}

    async def bench(ctx):
        for _ in range(120):
            row = numbers.choice([0, rows - 1, numbers.randrange(rows), *list(kept)[:3]])
            new, enable = numbers.randrange(256), numbers.random() < 0.6
            ctx.set(rests.row, row)
            ctx.set(rests.keep, new)
            ctx.set(rests.enable, enable)
            assert ctx.get(rests.rest) == kept.get(row, 0), row
            await ctx.tick()
            if enable:
                kept[row] = new

    simulator = Simulator(rests)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(("size", "width", "unit"), [(64, 16, 16), (40, 24, 8), (100, 7, 4), (16, 16, 16)])
def test_bits_are_put_at_their_unit_and_those_below_stay(size, width, unit):
    target, value, units, result = Signal(size), Signal(width), Signal(8), Signal(size)
    m = Module()
    put = _put(target, value, units, unit)
    m.d.comb += result.eq(put.rhs)
    numbers = random.Random(size)

    async def bench(ctx):
        for _ in range(60):
            before, new, at = numbers.getrandbits(size), numbers.getrandbits(width), numbers.randrange(size // unit + 1)
            ctx.set(target, before)
            ctx.set(value, new)
            ctx.set(units, at)
            below = (1 << at * unit) - 1
            assert ctx.get(result) == ((before & below) | new << at * unit) & ((1 << size) - 1)
            await ctx.delay(1e-9)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
