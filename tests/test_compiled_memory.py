# amaranth: UnusedElaboratable=no
"""The memory in machine code is the memory in Python: the same bits in the same cycles, and the same rules."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from nmsat.models.memory_timing import MemoryTiming
from nmsat.rtl.axi import Axi4
from nmsat.rtl.dma import Dma
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.compiled_memory import CompiledMemory
from nmsat.rtl.testbench.dma import dma_cases
from nmsat.rtl.testbench.memory import AxiMemory, ProtocolError

SIZE = 1 << 13
SHAPES = {32: (("a",), ("w",), 2, 4), 64: (("a", "b", "c"), ("v", "w"), 4, 8)}
"""Of a width of the bus: readers, writers, bursts in flight, their beats. As in test_rtl_dma.py, built once."""


def drawn(seed: int, bits: int) -> dict:
    """Runs of all clients on a memory of any rate; some reach beyond its end."""
    beat, (readers, writers, *_) = bits // 8, SHAPES[bits]
    rng = random.Random(f"compiled memory {seed} {beat}")
    high = SIZE + (0, 512)[seed % 2]

    def runs(low: int, high: int) -> list[list[int]]:
        sizes = [
            rng.choice((1, beat, rng.randint(1, 4 * beat), rng.randint(1, 600))) for _ in range(rng.randint(1, 10))
        ]
        return [[rng.randint(low, high - size), size] for size in sizes]

    half = SIZE // 2
    return {
        "readers": {name: runs(0, high) for name in readers},
        "writers": {name: runs(half + k * half // 2, high) for k, name in enumerate(writers)},
        "size": SIZE, "allowed": [0, high], "seed": seed, "pause": rng.choice((0.0, 0.4)),
        "timing": {
            "beat_bytes": beat, "latency_cycles": rng.choice((1, 7, 40)), "clock_mhz": 200,
            "dram_mb_s": beat * rng.choice((37, 150, 200, 399, 1000)),
        },
    }  # fmt: skip


@pytest.mark.parametrize("bits", SHAPES)
def test_both_memories_give_the_same_bits_in_the_same_cycles(bits):
    cases, (readers, writers, outstanding, beats) = [drawn(seed, bits) for seed in range(30)], SHAPES[bits]
    found = []
    for compiled in (False, True):
        dma = Dma(readers=readers, writers=writers, data_bits=bits, outstanding=outstanding, burst_beats=beats)
        arguments = {"cases": [case | {"compiled": compiled} for case in cases]}
        found.append(run_bench(dma, "dma", dma_cases, arguments, "cxxrtl"))
    for ours, theirs in zip(*found, strict=True):
        assert ours | {"log": []} == theirs
        assert ours["finished"]
    errors = {error for case in found[0] for client in case["clients"].values() for error in client["errors"]}
    assert errors == {0, 3}


class Wires(wiring.Component):
    """A master that is its inputs."""

    def __init__(self) -> None:
        super().__init__({"axi": Out(Axi4(64)), "asked": In(Axi4(64).flip().flip())})

    def elaborate(self, platform):
        m = Module()
        for name, member in self.axi.signature.members.items():
            if member.flow == Out:
                m.d.comb += getattr(self.axi, name).eq(getattr(self.asked, name))
            else:
                m.d.comb += getattr(self.asked, name).eq(getattr(self.axi, name))
        return m


GOOD = {"valid": 1, "addr": 0x100, "len": 1, "size": 3, "burst": 1}


async def asks(bench, cases):
    """What each memory says to each (fields of an address, last bits of two beats)."""
    found = []
    for make in (AxiMemory, CompiledMemory):
        for channel, fields, last in cases:
            memory = make(bench, "axi", MemoryTiming(8, 2, 3200, 200), bytearray(8192), base=0)
            for name in ("ar", "aw", "w"):
                bench.set(f"asked__{name}valid", 0)
            for name, value in (GOOD | fields).items():
                bench.set(f"asked__{channel}{name}", value)
            said = ""
            try:
                for beat in (None, *last):
                    if beat is not None:
                        bench.set(f"asked__{channel}valid", 0)
                        bench.set("asked__wvalid", 1)
                        bench.set("asked__wlast", beat)
                    memory.drive(bench)
                    await bench.settle()
                    memory.sample(bench)
                    await bench.tick()
            except ProtocolError as error:
                said = str(error)
            found.append(said)
    return found


def test_both_memories_hold_the_master_to_the_rules():
    rules = [
        ("ar", {}, [], ""), ("aw", {}, [0, 1], ""), ("ar", {"size": 2}, [], "size"), ("aw", {"burst": 0}, [], "burst"),
        ("ar", {"addr": 0x104}, [], "addr"), ("aw", {"addr": 0xFF8}, [], "4 KB"), ("aw", {}, [1], "wlast"),
        ("aw", {}, [0, 0], "wlast"),
    ]  # fmt: skip
    found = run_bench(Wires(), "wires", asks, {"cases": [rule[:3] for rule in rules]}, "cxxrtl")
    for place, said in enumerate(found):
        what = rules[place % len(rules)][3]
        assert what in said
        assert bool(what) == bool(said)


@pytest.mark.parametrize("name", ["faults", "writable", "late", "strict", "log"])
def test_what_it_does_not_do_cannot_be_asked_of_it(name):
    """A test that sets faults on the wrong memory would pass without one."""
    with pytest.raises(AttributeError):
        setattr(object.__new__(CompiledMemory), name, [])
