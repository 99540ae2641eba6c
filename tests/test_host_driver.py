"""The host driver on backends that block and on ones that suspend."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.dataflow.program import Descriptor, Kind, Program, Tensor, field_names
from nmsat.fpga.host import BlockingDriver, DeviceError, Driver, blocking
from nmsat.fpga.host.simulation import SimulationBackend
from nmsat.models.errors import NmsatError
from nmsat.models.memory_timing import MemoryTiming
from nmsat.rtl.registers import register_map
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.copier import Copier
from nmsat.rtl.testbench.memory import StallingTiming


class Suspends:
    def __await__(self):
        yield None


async def value(inner=None):
    if inner is not None:
        await inner
    return 7


def test_blocking_runs_what_never_suspends():
    assert blocking(value()) == 7
    assert blocking(value(value())) == 7


def test_blocking_refuses_what_suspends():
    with pytest.raises(RuntimeError, match="suspends"):
        blocking(value(Suspends()))


def copies(*items, host_at=()):
    """A program of copies (source, target, bytes); steps in ``host_at`` are HOST steps on these addresses instead."""
    descriptors = []
    for place, (source, target, size) in enumerate(items):
        kind = Kind.HOST if place in host_at else Kind.VECTOR
        fields = dict.fromkeys(field_names(kind), 0) | {
            "kind": int(kind), "source_address": source, "target_address": target, "elements": size,
        }  # fmt: skip
        descriptors.append(Descriptor(kind, fields))
    tensors = tuple(Tensor(f"t{k}", 4096 * k, 4096, "uint8", (64, 64)) for k in range(4))
    return Program(tuple(descriptors), ("layer",), tensors, {})


def double_by_host(item, image):
    """Host step: target = 2 * source."""
    source, target, size = (item[name] for name in ("source_address", "target_address", "elements"))
    image[target : target + size] = 2 * image[source : source + size]


PROGRAM = copies((0, 4096, 4096), (4096 + 3, 8192 + 5, 1000), (8192, 12288, 4096), (12288, 0, 77), host_at=(2,))


def reference(first):
    """The image after PROGRAM."""
    image = np.zeros(16384, np.uint8)
    image[:4096] = first
    image[4096:8192] = image[:4096]
    image[8197:9197] = image[4099:5099]
    image[12288:16384] = 2 * image[8192:12288]
    image[:77] = image[12288 : 12288 + 77]
    return image.reshape(4, 64, 64)


async def simulated(bench, stall, runs, log=True):
    """The driver on the simulated copier; what each run gave. Without a log the memory is machine code, if it can be."""
    timing = StallingTiming(stall, 30, 5) if stall else MemoryTiming(8, 20, 1600, 200)
    backend = SimulationBackend(
        bench, 1 << 16, timing, 200, register_pause=stall, **({"keep_log": True} if log else {})
    )
    await backend.reset()
    driver = Driver(backend)
    geometry = await driver.open()
    seen = [geometry]
    for number in range(runs):
        first = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
        await driver.load(PROGRAM)
        await driver.clear()
        await driver.upload({"t0": first})
        counters = await driver.run(double_by_host, timeout_s=1e-3)
        found = await driver.download()
        same = all((found[f"t{k}"] == part).all() for k, part in enumerate(reference(first.reshape(-1))))
        seen.append([same, counters.totals, counters.descriptor_cycles])
    return seen


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_the_driver_runs_a_program_with_a_host_step(stall):
    geometry, *runs = run_bench(Copier(), "copier", simulated, {"stall": stall, "runs": 2}, "cxxrtl")
    assert geometry == {"rows": 1, "cols": 1, "bus_bytes": 8}
    for same, totals, cycles in runs:
        assert same
        assert len(cycles) == len(PROGRAM.descriptors) + 1
        assert all(cycle > 0 for cycle in cycles)
        assert totals["read_beats"] == 5 * 32 + 512 + 126 + 10
        assert totals["write_beats"] == 512 + 126 + 10
        assert totals["host_cycles"] > 0
        assert totals["cycles"] >= sum(cycles) - totals["host_cycles"]
    if not stall:
        assert runs[0][2] == runs[1][2]  # cycles repeat


def test_a_memory_that_runs_to_the_interrupt_by_itself_changes_nothing():
    ours, theirs = (
        run_bench(Copier(), "copier", simulated, {"stall": 0.0, "runs": 2, "log": log}, "cxxrtl")
        for log in (True, False)
    )
    assert ours == theirs


def test_the_same_under_verilog():
    arguments = {"stall": 0.0, "runs": 1}
    ours, theirs = (run_bench(Copier(), "copier", simulated, arguments, sim) for sim in ("cxxrtl", "icarus"))
    assert ours == theirs


async def mishaps(bench):
    """Runs that must fail with their message, each followed by one that must be right."""
    backend = SimulationBackend(bench, 1 << 16, MemoryTiming(8, 20, 1600, 200), 200)
    await backend.reset()
    driver, said = Driver(backend), []
    await driver.open()
    bad_kind = copies((0, 4096, 8))
    bad_kind.descriptors[0].fields["kind"] = 1
    outside = copies((0, 4096, 64), (0, 16384, 8), (0, 4096, 64))
    cases = [
        (bad_kind, {}), (outside, {}), (copies((1 << 40, 0, 8)), {}), (copies((0, 4096, 1 << 12)), {"timeout_s": 5e-7}),
        (copies((0, 4096, 1 << 12)), {"watchdog_cycles": 100}),
    ]  # fmt: skip
    good = copies((0, 4096, 4096))
    for program, options in cases:
        await driver.load(program)
        try:
            await driver.run(**({"timeout_s": 1e-3} | options))
        except DeviceError as error:
            said.append(str(error))
        await driver.load(good)
        await driver.upload({"t0": np.full((64, 64), len(said), np.uint8)})
        await driver.run(timeout_s=1e-3)
        assert (await driver.download("t1"))["t1"].min() == len(said)
    return said


def test_a_run_that_fails_says_why_and_the_next_is_right():
    assert run_bench(Copier(), "copier", mishaps, {}, "cxxrtl") == [
        "device: descriptor 0 (layer): ended with 0x10 bad_kind: no such kind of descriptor, or one this configuration has no unit for",
        "device: descriptor 1 (layer): ended with 0x25 write_range: a write outside the allowed range; nothing was put on the bus",
        "device: descriptor 0 (layer): ended with 0x21 read_range: a read outside the allowed range; nothing was put on the bus",
        "device: descriptor 0 (layer): no interrupt within 5e-07 s; aborted",
        "device: descriptor 0 (layer): the watchdog barked; aborted",
    ]


class Card:
    """A blocking backend made of a dictionary: registers answer as those of an idle device, or as told."""

    memory = (0x1000, 1 << 15)

    def __init__(self, **registers):
        self.registers = {MAP.register(k).offset: v for k, v in registers.items()}
        self.content = bytearray(1 << 15)
        self.raised = True

    async def read32(self, offset):
        return self.registers.get(offset, 0)

    async def write32(self, offset, value):
        if offset != MAP.register("isr").offset:
            self.registers[offset] = value

    async def read(self, address, size):
        return bytes(self.content[address - 0x1000 : address - 0x1000 + size])

    async def write(self, address, data):
        self.content[address - 0x1000 : address - 0x1000 + len(data)] = data

    async def wait_interrupt(self, timeout_s):
        return self.raised

    async def close(self):
        self.registers = {}


MAP = register_map()
OURS = {"identity": MAP.identity, "version": MAP.version, "isr": 1}


def test_blocking_driver_on_a_card():
    card = Card(**OURS, geometry=4 | 4 << 11 | 32 << 22)
    driver = BlockingDriver(card)
    assert driver.open() == {"rows": 4, "cols": 4, "bus_bytes": 32}
    driver.load(PROGRAM)
    assert card.content[: 5 * 256] == PROGRAM.encode()[-5 * 256 :]
    driver.upload({"t1": np.arange(4096, dtype=np.uint8).reshape(64, 64)})
    assert (driver.download("t1")["t1"].reshape(-1) == np.arange(4096, dtype=np.uint8)).all()
    assert driver.run(double_by_host).totals["cycles"] == 0
    low = MAP.register("program").offset
    assert card.registers[low] == 0x1000
    assert card.registers[MAP.register("image_base").offset] == 0x2000
    assert card.registers[MAP.register("range_high").offset] == 0x2000 + PROGRAM.dram_bytes
    assert card.registers[MAP.register("descriptor_limit").offset] == 5
    driver.close()


@pytest.mark.parametrize("change, act, complaint", [
    ({"identity": 1}, lambda d: None, r"device: identity: must be 0x4e4d5341, not '0x1'; is the right bitstream loaded\?"),
    ({"version": 9}, lambda d: None, "device: version: must be 0x1"),
    ({"status": 1}, lambda d: None, "device: must end a run when it is aborted; it does not, reset it"),
    ({}, lambda d: d.run(), "device: must have a program loaded"),
    ({}, lambda d: (d.load(PROGRAM), d.run()), "device: host: must be given, the program has HOST descriptors"),
    ({}, lambda d: (d.load(PROGRAM), d.upload({"x": np.zeros(1)})), "program: tensor: must be one of the program's tensors, not 'x'"),
    ({}, lambda d: (d.load(PROGRAM), d.upload({"t0": np.zeros((64, 64))})), "program: t0.dtype: must be uint8, not 'float64'"),
    ({}, lambda d: (d.load(PROGRAM), d.upload({"t0": np.zeros((64, 65), np.uint8)})), r"program: t0.shape: must be \(64, 64\)"),
    ({}, lambda d: d.driver.allocate(1 << 16), "device: memory: must be at least 65536 bytes, not 32768"),
    ({"error_code": 0x22, "error_descriptor": 1}, lambda d: (d.load(PROGRAM), d.run(double_by_host)), r"descriptor 1 \(layer\): ended with 0x22 read_slverr"),
    ({"error_code": 0x99}, lambda d: (d.load(PROGRAM), d.run(double_by_host)), "ended with 0x99 unknown: no code of this register map"),
    ({"isr": 4, "host_step": 0}, lambda d: (d.load(PROGRAM), d.run(double_by_host)), "device: host_step: must be the index of a HOST descriptor, not 0"),
])  # fmt: skip
def test_what_goes_wrong_is_said(change, act, complaint):
    driver = BlockingDriver(Card(**(OURS | change)))
    with pytest.raises(NmsatError, match=complaint) as caught:
        (driver.open(), act(driver))
    assert "\n" not in str(caught.value)


def test_no_interrupt_on_a_card_ends_the_wait():
    card = Card(**OURS)
    driver = BlockingDriver(card)
    driver.open()
    driver.load(PROGRAM)
    card.raised = False
    with pytest.raises(DeviceError, match=r"no interrupt within 0\.5 s; aborted"):
        driver.run(double_by_host, timeout_s=0.5)
    assert card.registers[MAP.register("command").offset] == 2


def test_memory_must_be_opened_first():
    with pytest.raises(DeviceError, match="must be opened"):
        Driver(Card(**OURS)).allocate(1)
