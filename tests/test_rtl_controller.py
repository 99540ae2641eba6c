"""The controller with a unit that copies: what descriptors cost, fetching ahead, and whose a fetch's fault is."""

from __future__ import annotations

import random

import numpy as np
import pytest

from nmsat.dataflow.program import DESCRIPTOR_BYTES, Descriptor, Kind, Program, Tensor, field_names
from nmsat.fpga.host import Driver, RunError
from nmsat.fpga.host.simulation import MEMORY_BASE, SimulationBackend
from nmsat.models.memory_timing import MemoryTiming
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.copier import KINDS, Copier
from nmsat.rtl.testbench.memory import Fault
from nmsat.simulator.machine.controller import ControllerModel, UnitSlot
from nmsat.simulator.machine.memory import DmaModel

PAGE, MEMORY = 4096, 1 << 16
TIMING = {"latency_cycles": 23, "clock_mhz": 200}
COPY, HOST, END = int(Kind.VECTOR), int(Kind.HOST), int(Kind.END)
BAD = 77
SETTLE = 200
"""Cycles of a host step: more than four descriptors need on 32 bits."""


def program(case):
    """Copies of so many bytes from page 0 to page 1, host stops, ends."""
    items = []
    beside = case.get("beside", [0] * len(case["kinds"]))
    for kind, size, bits in zip(case["kinds"], case["sizes"], beside, strict=True):
        fields = dict.fromkeys(field_names(Kind.VECTOR), 0)
        fields |= {"kind": kind, "target_address": PAGE, "elements": size, "beside": bits}
        items.append(Descriptor(Kind.HOST if kind == HOST else Kind.VECTOR, fields))
    tensors = tuple(Tensor(f"t{k}", PAGE * k, PAGE, "uint8", (PAGE,)) for k in range(2))
    return Program(tuple(items), ("layer",), tensors, {})


async def runs(bench, data_bits, cases):
    """Run programs; of each the cycles of every descriptor and counters, or code and descriptor of its error."""
    found = []
    for case in cases:
        timing = MemoryTiming(data_bits // 8, dram_mb_s=case.get("dram_mb_s", 200 * data_bits // 8), **TIMING)
        backend = SimulationBackend(bench, MEMORY, timing, 200, interrupt_cycles=SETTLE, faults=[])
        await backend.reset()
        driver = Driver(backend)
        await driver.open()
        given = program(case)
        await driver.load(given)
        backend.axi.faults = [Fault(*fault) for fault in case.get("faults", ())]
        await driver.upload({"t0": np.arange(PAGE).astype(np.uint8)})
        try:
            counters = await driver.run(lambda item, image: None, timeout_s=1e-3)
        except RunError as error:
            found.append([error.code, error.descriptor])
            continue
        ended = [*case["kinds"], END].index(END)
        done = [size for kind, size in zip(case["kinds"][:ended], case["sizes"], strict=False) if kind != HOST]
        copied = (await driver.download("t1"))["t1"][: max(done, default=0)]
        assert (copied == np.arange(len(copied)).astype(np.uint8)).all()
        totals = counters.totals
        found.append([counters.descriptor_cycles, totals["cycles"], totals["fetch_cycles"]])
    return found


class CopyModel:
    """The copy unit in cycles, with the interface of a unit's model."""

    def __init__(self, source, target, beat):
        self.source, self.target, self.beat = source, target, beat
        self.item, self.room, self.done, self.take_done = None, True, False, False
        self.given, self.asked, self.left, self.ended = None, False, 0, False

    def start(self, item):
        self.given = item

    def step(self):
        source, target, item = self.source, self.target, self.item
        if self.done:
            self.done, self.room = not self.take_done, self.take_done
        elif item is not None:
            if not self.asked:
                source.ask(item["source_address"], item["elements"])
                target.ask(item["target_address"], item["elements"])
            self.asked = True
            target.give = self.left > 0 and (source.word > 0 or self.ended)
            source.take = source.word > 0 and (target.word_room or self.left == 0)
            target.take_done = self.ended
            if target.done and self.ended:
                self.item, self.done = None, True
            self.left -= target.give and target.word_room
            self.ended = self.ended or (source.take and source.word == 2)
        elif self.given is not None:
            self.item, self.given, self.asked, self.ended, self.room = self.given, None, False, False, False
            self.left = -(-self.item["elements"] // self.beat)
        self.take_done = False


def modelled(data_bits, ahead, sets, case):
    """Cycles of every descriptor, of the run, and those in which a descriptor was awaited, from the models."""
    beat = data_bits // 8
    items = program(case).descriptors
    size = DESCRIPTOR_BYTES * (len(items) + 1)
    dma = DmaModel(
        readers=["fetch", *(f"s{k}" for k in range(len(sets)))], writers=[f"t{k}" for k in range(len(sets))],
        absolute=["fetch"], beat_bytes=beat, outstanding=4, burst_beats=16,
        image_base=MEMORY_BASE + -(-size // PAGE) * PAGE,
        timing=MemoryTiming(beat, dram_mb_s=case.get("dram_mb_s", 200 * beat), **TIMING),
    )  # fmt: skip
    units = [
        UnitSlot(CopyModel(dma.readers[f"s{k}"], dma.writers[f"t{k}"], beat), (kind,), ports)
        for k, (kind, ports) in enumerate(zip(KINDS, sets, strict=False))
    ]
    controller = ControllerModel(dma, units, ahead)
    given = [Descriptor(Kind(item["kind"]), item.fields) for item in items]
    cycles = controller.run([*given, Descriptor(Kind.END, {})], MEMORY_BASE)
    return [cycles, cycles.total, controller.fetch_cycles]


def cycle_cases():
    short = [COPY] * 7
    cases = [
        {"kinds": [], "sizes": []},
        {"kinds": short, "sizes": [8, 4000, 8, 1, 700, 3, 4096]},  # longer and shorter than a fetch
        {"kinds": short, "sizes": [8] * 7, "dram_mb_s": 300},
        {"kinds": [COPY, HOST, HOST, HOST, COPY, HOST], "sizes": [100, 1, 1, 1, 64, 1]},
        {"kinds": [HOST, COPY, COPY, HOST, COPY], "sizes": [1, 9, 300, 1, 2000], "dram_mb_s": 700},
    ]
    return [case | {"dram_mb_s": case.get("dram_mb_s", 1600)} for case in cases]


@pytest.mark.parametrize("data_bits, ahead", [(64, 1), pytest.param(64, 4, marks=pytest.mark.slow), (256, 2)])
def test_descriptors_take_the_cycles_of_the_model(data_bits, ahead):
    cases = cycle_cases()
    top = Copier(data_bits=data_bits, ahead=ahead)
    found = run_bench(top, "copier", runs, {"data_bits": data_bits, "cases": cases}, "cxxrtl")
    assert found == [modelled(data_bits, ahead, (0,), case) for case in cases]
    assert all(sum(cycles) == total for cycles, total, _ in found)


def test_a_descriptor_behind_a_longer_one_is_not_awaited():
    cycles, _, waits = modelled(64, 2, (0,), {"kinds": [COPY] * 6, "sizes": [1000] * 6})
    assert waits == 23 + 7 + 32  # the first: latency, its way, its words
    assert max(cycles[1:6]) <= cycles[0] - waits


def mixed(seed):
    """Copies of three kinds with any ``beside``, and a host stop now and then."""
    rng = random.Random(seed)
    kinds = [rng.choice((*map(int, KINDS), *map(int, KINDS), HOST)) for _ in range(10)]
    sizes = [rng.choice((1, 8, 100, 700, 2000)) for _ in kinds]
    beside = [rng.getrandbits(6) if kind != HOST else 0 for kind in kinds]
    return {"kinds": kinds, "sizes": sizes, "beside": beside, "dram_mb_s": rng.choice((700, 1600, 3200))}


@pytest.mark.parametrize("sets", [(0, 1, 2), pytest.param((0, 1, 1), marks=pytest.mark.slow)])
def test_units_overlap_as_the_model_says(sets):
    cases = [mixed(seed) for seed in range(10)]
    found = run_bench(Copier(ahead=3, sets=sets), "copier", runs, {"data_bits": 64, "cases": cases}, "cxxrtl")
    assert found == [modelled(64, 3, sets, case) for case in cases]
    assert sum(sum(cycles) > total for cycles, total, _ in found) > 5  # they did overlap


def test_of_two_that_fail_together_the_first_counts():
    image = MEMORY_BASE + PAGE
    every = (1 << 16) - 1
    cases = []
    for sizes in ([2000, 8, 8], [8, 2000, 8]):  # either ends first
        cases.append({
            "kinds": [int(kind) for kind in KINDS], "sizes": sizes, "beside": [every] * 3,
            "faults": [["read", image, image + 8, 2]],
        })  # fmt: skip
    found = run_bench(Copier(sets=(0, 1, 2)), "copier", runs, {"data_bits": 64, "cases": cases}, "cxxrtl")
    assert found == [[int(Code.READ_SLVERR), 0]] * 2


def fault_cases():
    """(case, what must be found): a code with its descriptor, or None where the run must end well."""
    place = [MEMORY_BASE + DESCRIPTOR_BYTES * k for k in range(9)]

    def fault(k, response=2):
        return ["read", place[k], place[k] + 1, response]

    kinds, sizes = [COPY] * 4, [8, 2000, 8, 8]
    image = MEMORY_BASE + PAGE
    return [
        ({"kinds": kinds, "sizes": sizes, "faults": [fault(3, 3)]}, [Code.FETCH_DECERR, 3]),
        ({"kinds": kinds, "sizes": sizes, "faults": [fault(1), fault(3, 3)]}, [Code.FETCH_SLVERR, 1]),
        # asked for, but never its turn: after END, after another descriptor's error
        ({"kinds": [COPY, COPY, END, COPY], "sizes": sizes, "faults": [fault(3)]}, None),
        ({"kinds": [COPY, END, BAD, BAD], "sizes": sizes}, None),
        (
            {"kinds": kinds, "sizes": sizes, "faults": [["read", image + 1500, image + 1501, 2], fault(2, 3)]},
            [Code.READ_SLVERR, 1],
        ),
        ({"kinds": [COPY, COPY, BAD, COPY], "sizes": sizes, "faults": [fault(3)]}, [Code.BAD_KIND, 2]),
        # behind a stop
        ({"kinds": [HOST, HOST, COPY, COPY], "sizes": sizes, "faults": [fault(2, 3)]}, [Code.FETCH_DECERR, 2]),
    ]


@pytest.mark.parametrize("ahead", [1, 4])
def test_a_fetch_fault_is_its_descriptors(ahead):
    cases = fault_cases()
    arguments = {"data_bits": 64, "cases": [case for case, _ in cases]}
    found = run_bench(Copier(ahead=ahead), "copier", runs, arguments, "cxxrtl")
    for (case, wanted), got in zip(cases, found, strict=True):
        if wanted is None:
            assert len(got) == 3, (case, got)
        else:
            assert got == [int(wanted[0]), wanted[1]], case
