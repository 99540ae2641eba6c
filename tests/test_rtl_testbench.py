"""Stream agents: they carry every word, and they see each kind of fault."""

from __future__ import annotations

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from nmsat.rtl.simulators import run_bench
from nmsat.rtl.simulators.bench import GUARD_CYCLES
from nmsat.rtl.testbench.stream import run_stream


class Faulty(wiring.Component):
    """A register stage on a stream, right or with a planted fault."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(self.o.ready | ~self.o.valid)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload ^ (self.fault == "bit"))]
        if self.fault == "drops":
            m.d.comb += self.i.ready.eq(1)
        if self.fault == "changes":
            with m.If(self.o.valid & ~self.o.ready):
                m.d.sync += self.o.payload.eq(self.o.payload + 1)
        if self.fault == "extra":
            with m.If(self.o.ready):
                m.d.sync += self.o.valid.eq(1)
        return m


@pytest.mark.parametrize("fault", ["", "bit", "drops", "changes", "extra"])
def test_agents_see_faults(fault):
    words = [7 * k % 256 for k in range(30)]
    arguments = {"words": words, "expected": 30, "stall": 0.5, "idle": 0.2, "seed": 3, "reset_after": 9}
    found = run_bench(Faulty(fault=fault), "faulty", run_stream, arguments, "amaranth")
    assert (found["words"] == words and not found["broken"]) == (not fault)


@pytest.mark.parametrize("sim", ["icarus", "cxxrtl"])
def test_the_same_body_elsewhere(sim):
    arguments = {"words": list(range(20)), "expected": 20, "stall": 0.3, "idle": 0.3, "seed": 5}
    here = run_bench(Faulty(), "faulty", run_stream, arguments, "amaranth")
    assert run_bench(Faulty(), "faulty", run_stream, arguments, sim) == here
    assert here["words"] == arguments["words"]


def test_cycles_are_those_between_the_ports():
    found = run_bench(Faulty(), "faulty", run_stream, {"words": [1, 2, 3], "expected": 3}, "amaranth")
    assert found == {"words": [1, 2, 3], "cycles": 4, "broken": 0}
    assert found["cycles"] < GUARD_CYCLES
