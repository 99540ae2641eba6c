"""The controller with a unit that copies: what descriptors cost, fetching ahead, and whose a fetch's fault is."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.dataflow.program import DESCRIPTOR_BYTES, Descriptor, Kind, Program, Tensor, field_names
from nmsat.fpga.host import Driver, RunError
from nmsat.fpga.host.simulation import MEMORY_BASE, SimulationBackend
from nmsat.models.memory_timing import MemoryTiming
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.copier import Copier
from nmsat.rtl.testbench.memory import Fault
from nmsat.simulator.machine.fetch import FetchModel
from nmsat.simulator.machine.memory import DmaModel

PAGE, MEMORY = 4096, 1 << 16
TIMING = {"latency_cycles": 23, "clock_mhz": 200}
COPY, HOST, END = int(Kind.VECTOR), int(Kind.HOST), int(Kind.END)
BAD = 77
SETTLE = 200
"""Cycles of a host step: more than four descriptors need on 32 bits."""


def program(kinds, sizes):
    """Copies of so many bytes from page 0 to page 1, host stops, ends."""
    items = []
    for kind, size in zip(kinds, sizes, strict=True):
        fields = dict.fromkeys(field_names(Kind.VECTOR), 0) | {"kind": kind, "target_address": PAGE, "elements": size}
        items.append(Descriptor(Kind.HOST if kind == HOST else Kind.VECTOR, fields))
    tensors = tuple(Tensor(f"t{k}", PAGE * k, PAGE, "uint8", (PAGE,)) for k in range(2))
    return Program(tuple(items), ("layer",), tensors, {})


async def runs(bench, data_bits, cases):
    """Run programs; of each the cycles of every descriptor and counters, or code and descriptor of its error."""
    found = []
    for case in cases:
        timing = MemoryTiming(data_bits // 8, dram_mb_s=case.get("dram_mb_s", 200 * data_bits // 8), **TIMING)
        backend = SimulationBackend(bench, MEMORY, timing, 200, interrupt_cycles=SETTLE)
        await backend.reset()
        driver = Driver(backend)
        await driver.open()
        given = program(case["kinds"], case["sizes"])
        await driver.load(given)
        backend.axi.faults = [Fault(*fault) for fault in case.get("faults", ())]
        await driver.upload({"t0": np.arange(PAGE).astype(np.uint8)})
        try:
            counters = await driver.run(lambda item, image: None, timeout_s=1e-3)
        except RunError as error:
            found.append([error.code, error.descriptor])
            continue
        done = [*case["kinds"], END].index(END)
        copied = (await driver.download("t1"))["t1"][: max(case["sizes"][:done], default=0)]
        assert (copied == np.arange(len(copied)).astype(np.uint8)).all()
        totals = counters.totals
        found.append([counters.descriptor_cycles, totals["cycles"], totals["fetch_cycles"]])
    return found


def modelled(data_bits, ahead, case):
    """Cycles of every descriptor and those in which one was awaited, from the models of fetcher and DMA."""
    beat = data_bits // 8
    given = program(case["kinds"], case["sizes"])
    size = DESCRIPTOR_BYTES * (len(given.descriptors) + 1)
    dma = DmaModel(
        readers=["fetch", "source"], writers=["target"], absolute=["fetch"], beat_bytes=beat, outstanding=4,
        burst_beats=16, image_base=MEMORY_BASE + -(-size // PAGE) * PAGE,
        timing=MemoryTiming(beat, dram_mb_s=case.get("dram_mb_s", 200 * beat), **TIMING),
    )  # fmt: skip
    source, target = dma.readers["source"], dma.writers["target"]
    fetch = FetchModel(dma.readers["fetch"], MEMORY_BASE, len(given.descriptors) + 1, ahead)

    def step():
        fetch.step()
        dma.step()

    cycles, waits = [], 0
    for item in (*given.descriptors, None):
        count = 0
        while not fetch.full:
            step()
            count, waits = count + 1, waits + 1
        fetch.take = True
        step()  # dispatch
        count += 1
        if item is None:
            while not dma.idle:
                step()
                count += 1
            count += 1
        elif item["kind"] == HOST:
            for _ in range(SETTLE):
                step()
        else:
            count += copied(step, source, target, item)
        cycles.append(count)
    return [cycles, sum(cycles), waits]


def copied(step, source, target, item):
    """Cycles of a copy, after that of its dispatch."""
    count, asked, left, ended, done = 0, False, -(-item["elements"] // source._splitter.beat_bytes), False, False
    while not done:
        if not asked:
            source.ask(item["source_address"], item["elements"])
            target.ask(item["target_address"], item["elements"])
        asked = True
        target.give = left > 0 and (source.word > 0 or ended)
        moves = target.give and target.word_room
        source.take = source.word > 0 and (target.word_room or left == 0)
        done = target.done and ended
        target.take_done = ended
        ended = ended or (source.take and source.word == 2)
        left -= moves
        step()
        count += 1
    step()  # done
    return count + 1


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


@pytest.mark.parametrize("data_bits, ahead", [(64, 1), (64, 4), (256, 2)])
def test_descriptors_take_the_cycles_of_the_model(data_bits, ahead):
    cases = cycle_cases()
    top = Copier(data_bits=data_bits, ahead=ahead)
    found = run_bench(top, "copier", runs, {"data_bits": data_bits, "cases": cases}, "cxxrtl")
    assert found == [modelled(data_bits, ahead, case) for case in cases]


def test_a_descriptor_behind_a_longer_one_is_not_awaited():
    cycles, _, waits = modelled(64, 2, {"kinds": [COPY] * 6, "sizes": [1000] * 6})
    assert waits == 23 + 7 + 32  # the first: latency, its way, its words
    assert max(cycles[1:6]) <= cycles[0] - waits


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
