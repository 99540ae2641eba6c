"""The cycle model of the memory system equals the RTL in every cycle in which a client gives or takes something."""

from __future__ import annotations

import random

import pytest

from nmsat.models import Accelerator
from nmsat.models.memory_timing import MemoryTiming
from nmsat.rtl.dma import Dma, burst_beats_of
from nmsat.rtl.memory_port import QUEUE, WORDS_AHEAD
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.dma import IMAGE_BASE, dma_cases
from nmsat.simulator.machine import memory

SIZE = 1 << 15


class Desk:
    """A client's side of a port of the model, pausing as the RTL's client agents do."""

    def __init__(self, port, name, runs, pause, seed, beat, kind):
        self.port, self.runs, self.pause, self.kind = port, runs, pause, kind
        self.random = random.Random(f"{seed} {kind}_{name}")
        self.requested_at, self.word_at, self.done_at = [], [], []
        self.offered = self.valid = self.ready = False
        self.ended = 0
        self.words = 0
        if kind == "writer":
            for _, size in runs:
                self.words += -(-size // beat)
                for k in range(0, size, beat):
                    self.random.randbytes(max(0, k + beat - size))

    def goes(self):
        return not self.pause or self.random.random() >= self.pause

    @property
    def done(self):
        return self.ended == len(self.runs)

    def act(self, cycle):
        port, place = self.port, len(self.requested_at)
        if place < len(self.runs) and (self.offered or self.goes()):
            self.offered = True
        if self.kind == "reader":
            self.ready = self.goes()
        else:
            self.valid = self.words > 0 and (self.valid or self.goes())
            self.ready = self.goes()
        if self.offered and port.room:
            port.ask(*self.runs[place])
            self.requested_at.append(cycle)
            self.offered = False
        if self.kind == "reader":
            if port.word and self.ready:
                port.take = True
                self.word_at.append(cycle)
                self.ended += port.word == 2
            return
        if self.valid:
            port.give = True
            if port.word_room:
                self.words -= 1
                self.valid = False
                self.word_at.append(cycle)
        if port.done and self.ready:
            port.take_done = True
            self.ended += 1
            self.done_at.append(cycle)


def modelled(shape, arguments):
    """What the RTL's bench reports, from the model."""
    bits, outstanding, burst_beats, _, _, writes = shape
    low, high = arguments.get("allowed") or (0, arguments["size"])
    dma = memory.DmaModel(
        readers=shape[3], writers=shape[4], beat_bytes=bits // 8, outstanding=outstanding, outstanding_writes=writes, burst_beats=burst_beats,
        timing=MemoryTiming(**arguments["timing"]), image_base=IMAGE_BASE, range_low=IMAGE_BASE + low, range_high=IMAGE_BASE + high,
    )  # fmt: skip
    desks = {}
    for kind, ports in (("reader", dma.readers), ("writer", dma.writers)):
        for name, runs in arguments[f"{kind}s"].items():
            desks[name] = Desk(ports[name], name, runs, arguments["pause"], arguments["seed"], bits // 8, kind)
    busy, cycle = [], 0
    for cycle in range(100_000):
        if cycle == arguments.get("refuse_after"):
            dma.refuse(True)
        if not dma.idle:
            busy.append(cycle)
        for desk in desks.values():
            desk.act(cycle)
        dma.step()
        if all(desk.done for desk in desks.values()):
            break
    for _ in range(30):
        dma.step()
    return {
        "clients": {
            name: {key: getattr(desk, key) for key in ("requested_at", "word_at", *(("done_at",) if desk.kind == "writer" else ()))}
            for name, desk in desks.items()
        },
        "cycles": cycle + 1,
        "busy": busy,
        "idle": int(dma.idle),
    }  # fmt: skip


def drawn(shape, seed):
    bits, _, _, readers, writers, _ = shape
    rng, half, beat = random.Random(seed), SIZE // 2, bits // 8

    def runs(low, high):
        found = []
        for _ in range(rng.randint(0, 20)):
            size = rng.choice((1, beat, rng.randint(1, 2 * beat), rng.randint(1, 9 * beat), rng.randint(1, 60 * beat)))
            at = rng.randint(low, high - size)
            at -= at % beat if rng.random() < 0.4 else 0
            found.append([max(at, low), size])
        return found

    part = half // len(writers) if writers else half
    case = {
        "readers": {name: runs(0, half) for name in readers},
        "writers": {name: runs(half + k * part, half + (k + 1) * part) for k, name in enumerate(writers)},
        "size": SIZE, "seed": seed, "pause": rng.choice((0.0, 0.0, 0.1, 0.6)),
        "timing": {"beat_bytes": beat, "latency_cycles": rng.choice((1, 7, 40)), "clock_mhz": 200,
                   "dram_mb_s": beat * rng.choice((37, 150, 200, 200, 311, 1000))},
    }  # fmt: skip
    if rng.random() < 0.3:
        case["allowed"] = [SIZE // 8, SIZE - SIZE // 8]
    if rng.random() < 0.2:
        case["refuse_after"] = rng.randint(0, 300)
    return case


SHAPES = {
    "64 bits": (64, 4, 8, ("a", "b", "c"), ("v", "w"), 7),
    "32 bits": (32, 2, 4, ("a",), ("w",), None),
    "sat_4x4": (256, 16, 16, ("fetch", "a", "b", "s"), ("c", "u"), 64),
}


@pytest.mark.parametrize("name, count", [("64 bits", 60), ("32 bits", 40), ("sat_4x4", 40)])
def test_equals_the_rtl_in_every_cycle(name, count):
    shape = SHAPES[name]
    cases = [drawn(shape, seed) for seed in range(count)]
    dma = Dma(
        readers=shape[3], writers=shape[4], data_bits=shape[0], outstanding=shape[1], burst_beats=shape[2],
        outstanding_writes=shape[5],
    )  # fmt: skip
    for case, found in zip(cases, run_bench(dma, "dma", dma_cases, {"cases": cases}, "cxxrtl"), strict=True):
        model = modelled(shape, case)
        for client, expected in model["clients"].items():
            for key, cycles in expected.items():
                assert found["clients"][client][key] == cycles, (case["seed"], client, key)
        assert found["cycles"] == model["cycles"]
        assert found["busy"] == model["busy"]
        assert found["idle"] == model["idle"] == 1


@pytest.mark.parametrize(
    "size, offset, beats",
    [(1, 0, 1), (4, 0, 1), (32, 0, 1), (8, 28, 2), (64, 0, 2), (64, 4, 3), (1024, 0, 32)],
)
def test_short_runs_are_written_without_a_gap(size, offset, beats):
    latency, runs = 40, 300
    dma = memory.DmaModel(
        readers=[], writers=["w"], beat_bytes=32, outstanding=1, outstanding_writes=64, burst_beats=16,
        timing=MemoryTiming(32, latency, 6400, 200),
    )  # fmt: skip
    desk = Desk(dma.writers["w"], "w", [(2048 * k + offset, size) for k in range(runs)], 0.0, 0, 32, "writer")
    while not desk.done:
        desk.act(dma.cycle)
        dma.step()
    # from the first request: its address (7 cycles, or more beats to wait for), the beats, the response
    assert dma.cycle <= runs * beats + 16 + latency + 10


def test_the_models_sizes_are_the_rtls():
    accelerator = Accelerator.load("sat_4x4")
    model = memory.DmaModel.of(accelerator, ["a"], ["w"])
    made = Dma.from_accelerator(accelerator, ["a"], ["w"])
    made._MustUse__used = True
    read, write = model.readers["a"], model.writers["w"]
    assert (memory.QUEUE, memory.WORDS_AHEAD) == (QUEUE, WORDS_AHEAD)
    assert read._splitter.burst_beats == burst_beats_of(accelerator.axi_data_bits) == made.burst_beats
    assert (read._buffer, read._depth) == (made.read_parameters["buffer_beats"], made.read_parameters["queued_runs"])
    assert (write._room, write._depth) == (made.write_parameters["buffer_beats"], made.write_parameters["queued_runs"])
