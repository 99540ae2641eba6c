"""The register map, the register file made from it, and the state of a run behind it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from nmsat.models.errors import InputFileError
from nmsat.rtl.control import EVENTS, WINDOW, Control
from nmsat.rtl.memory_port import MemoryFault
from nmsat.rtl.register_file import RegisterFile
from nmsat.rtl.register_page import page
from nmsat.rtl.registers import MAP_FILE, Code, RegisterMap, memory_code, register_map
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.bus import AxiLiteMaster, HangError, Loop

MAP = register_map()
OFFSET = {register.name: register.offset for register in MAP.registers}
DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_page_is_current():
    assert (DOCS / "registers.md").read_text() == page(MAP)


def test_vitis_rules():
    assert [OFFSET[name] for name in ("control", "gier", "ier", "isr")] == [0, 4, 8, 12]
    bits = {field.name: field.bit for field in MAP.register("control").fields}
    assert bits == {"ap_start": 0, "ap_done": 1, "ap_idle": 2, "ap_ready": 3}
    assert next(register.offset for register in MAP.arguments) == 0x10
    assert all(register.writable for register in MAP.arguments)


def test_memory_faults_have_their_codes():
    for fault in list(MemoryFault)[1:]:
        assert memory_code(fault) == Code[f"READ_{fault.name}"]
        assert memory_code(fault, write=True) == Code[f"WRITE_{fault.name}"]
        assert memory_code(fault, fetch=True) == Code[f"FETCH_{fault.name}"]


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda d: d.update(extra=1), "extra: must be a known key"),
        (lambda d: d["registers"][0].update(offset=2), "offset: must be a multiple of 4, not 0x2"),
        (lambda d: d["registers"][1].update(offset=0), "registers.gier: must not overlap control at 0x0"),
        (lambda d: d["registers"][1].update(offset=0x1000), "registers.gier: must lie below 0x1000"),
        (lambda d: d["registers"][4].update(offset=0x1C), "must not overlap program at 0x1c"),
        (lambda d: d["registers"][1].update(name="control"), "control_enable|different names"),
        (lambda d: d["registers"][0]["fields"][1].update(bit=0), "fields.ap_done: must not overlap another field"),
        (lambda d: d["registers"][0]["fields"][1].update(bit=32), "fields.ap_done: must end below bit 32"),
        (lambda d: d["registers"][0]["fields"][1].update(access="rx"), "access: must be"),
        (lambda d: d["registers"][0].update(access="rw"), "access: must be given for the register or for each"),
        (lambda d: d["registers"][4].pop("access"), "access: must be given for the register or for each"),
        (lambda d: d["codes"][1].update(code=0), "codes: must have different names and numbers; 0x0 is given twice"),
        (lambda d: d["codes"][1].update(name="ok"), "ok is given twice"),
        (lambda d: d["codes"][1].update(code="1"), "code: must be integer"),
    ],
)
def test_a_bad_map_is_refused_in_one_line(tmp_path, change, complaint):
    data = yaml.safe_load(MAP_FILE.read_text())
    change(data)
    file = tmp_path / "registers.yaml"
    file.write_text(yaml.safe_dump(data))
    if complaint.startswith("control_enable|"):
        data["registers"][1]["offset"] = 0x200  # same name elsewhere: field names meet only if they are equal
        data["registers"][1]["fields"][0]["name"] = "ap_start"
        file.write_text(yaml.safe_dump(data))
        complaint = "control_ap_start is given twice"
    with pytest.raises(InputFileError, match=complaint) as caught:
        RegisterMap.load(file)
    assert "\n" not in str(caught.value)


class Reference:
    """What software and hardware see of a register file, a cycle at a time: written from the map's comments."""

    def __init__(self, map_: RegisterMap) -> None:
        self.map = map_
        self.stored = {name: 0 for register in map_.registers for name, _ in register.parts}
        self.words = {offset: register for register in map_.registers for offset in register.offsets}

    def read(self, offset, inputs):
        register = self.words.get(offset & ~3)
        if register is None:
            return 0
        value = 0
        for name, field in register.parts:
            value |= (inputs[name] if field.access in ("ro", "set") else self.stored[name]) << field.bit
        return value >> 8 * (offset - register.offset & ~3) & 0xFFFFFFFF

    def write(self, offset, value, strobe):
        register = self.words.get(offset & ~3)
        if register is None:
            return
        mask = sum(0xFF << 8 * k for k in range(4) if strobe >> k & 1)
        shift = 8 * (offset - register.offset & ~3)
        for name, field in register.parts:
            here, ones = (mask << shift & field.mask) >> field.bit, ((value & mask) << shift & field.mask) >> field.bit
            if field.access == "rw":
                self.stored[name] = self.stored[name] & ~here | ones
            elif field.access == "w1c":
                self.stored[name] &= ~ones

    def clear_read(self, offset):
        register = self.words.get(offset & ~3)
        for name, field in register.parts if register else ():
            if field.access == "cor":
                self.stored[name] = 0


async def random_accesses(bench, count, seed, pause):
    """Random reads and writes; hardware inputs change between accesses only. Returns the first difference."""
    rng, reference = random.Random(seed), Reference(MAP)
    bus = AxiLiteMaster(bench, "bus", pause, seed)
    loop = Loop(bench, [bus])
    inputs = {name: 0 for register in MAP.registers for name, field in register.parts if field.access != "rw"}
    sticky = {n for register in MAP.registers for n, field in register.parts if field.access in ("cor", "w1c")}
    await bench.reset()
    offsets = [*reference.words, 0x800, 0xFFC, 0x6C]
    for _ in range(count):
        for name in inputs:
            value = rng.getrandbits(bench.widths[name]) if rng.random() < 0.3 else inputs[name]
            if name in sticky:  # a pulse of one cycle
                value = rng.getrandbits(bench.widths[name]) if rng.random() < 0.2 else 0
                reference.stored[name] |= value
            inputs[name] = value
            bench.set(name, value)
        await loop.step()
        for name in sticky:
            bench.set(name, 0)
        offset = rng.choice(offsets)
        if rng.random() < 0.5:
            value, strobe = rng.getrandbits(32), rng.choice((15, 15, rng.getrandbits(4)))
            access = bus.write(offset + rng.choice((0, 0, rng.randrange(4))), value, strobe)
            await loop.finish(access)
            reference.write(offset, value, strobe)
        else:
            expected = reference.read(offset, inputs)
            access = bus.read(offset)
            await loop.finish(access)
            reference.clear_read(offset)
            if access.value != expected:
                return [offset, access.value, expected]
        if access.response:
            return [offset, "response", access.response]
        for register in MAP.registers:
            for name, field in register.parts:
                port = {"rw": name, "w1c": f"{name}_pending"}.get(field.access)
                if port is not None and bench.get(port) != reference.stored[name]:
                    return [name, bench.get(port), reference.stored[name]]
    return None


@pytest.mark.parametrize("sim, count, pause", [("cxxrtl", 3000, 0.3), ("cxxrtl", 1000, 0.0), ("icarus", 150, 0.3)])
def test_register_file_equals_its_description(sim, count, pause):
    arguments = {"count": count, "seed": 1, "pause": pause}
    assert run_bench(RegisterFile(MAP), "register_file", random_accesses, arguments, sim) is None


class Desk:
    """Software's and the machine's side of Control."""

    def __init__(self, bench, pause=0.0):
        self.bench, self.bus = bench, AxiLiteMaster(bench, "bus", pause)
        self.loop = Loop(bench, [self.bus])

    async def write(self, name, value):
        register = MAP.register(name)
        for k, offset in enumerate(register.offsets):
            await self.loop.finish(self.bus.write(offset, value >> 32 * k & 0xFFFFFFFF))

    async def read(self, name):
        value = 0
        for k, offset in enumerate(MAP.register(name).offsets):
            value |= await self.loop.finish(self.bus.read(offset)) << 32 * k
        return value

    async def pulse(self, **ports):
        for name, value in ports.items():
            self.bench.set(f"machine__{name}", value)
        await self.loop.step()
        for name in ports:
            self.bench.set(f"machine__{name}", 0)

    async def start(self):
        """Write ap_start; the cycles after which ``machine.start`` was seen, None if never."""
        access = self.bus.write(0, 1)
        seen = None
        for k in range(10):
            self.bus.drive(self.bench)
            await self.bench.settle()
            self.bus.sample(self.bench)
            if self.bench.get("machine__start"):
                assert seen is None
                seen = k
            await self.bench.tick()
        assert access.done
        return seen


async def whole_run(bench):
    """A run with a host stop, refused starts, an abort, a watchdog; returns what software saw."""
    desk = Desk(bench)
    await bench.reset()
    seen = {"reset": [await desk.read(name) for name in ("control", "status", "identity", "version", "geometry")]}
    for place, register in enumerate(MAP.arguments):
        await desk.write(register.name, (0x0123456789ABCD00 + place) & (1 << register.width) - 1)
    await desk.write("watchdog", 0)
    await desk.write("gier", 1)
    await desk.write("ier", 0b0101)
    seen["start"] = await desk.start()
    seen["arguments"] = hex(bench.get("machine__arguments"))
    await desk.write("program", 0)  # for the next run
    seen["kept"] = hex(bench.get("machine__arguments")) == seen["arguments"]
    seen["second start"] = await desk.start()
    seen["busy"] = [await desk.read("control"), await desk.read("status")]
    await desk.pulse(retired=1, retired_descriptor=0, retired_cycles=77)
    await desk.pulse(retired=1, retired_descriptor=WINDOW + 5, retired_cycles=123456)
    await desk.pulse(host=1, host_step=2)
    await desk.loop.step()
    seen["host"] = [await desk.read(name) for name in ("status", "isr", "host_step", "descriptors_done")]
    seen["line"] = [bench.get("interrupt")]
    await desk.write("isr", 0b0100)
    await desk.loop.step()
    seen["line"].append(bench.get("interrupt"))
    stopped = await desk.read("cycles")
    for _ in range(20):
        await desk.loop.step()
    seen["cycles stand"] = stopped == await desk.read("cycles")
    await desk.write("command", 1)
    seen["resumed"] = await desk.read("status")
    await desk.pulse(events=sum(1 << EVENTS[n].offset for n in ("compute", "fetch")) | 5 << EVENTS["read_beats"].offset)
    await desk.pulse(ended=1, code=0, descriptor=6, retired=1, retired_descriptor=6, retired_cycles=9)
    await desk.loop.step()
    names = ("control", "control", "status", "isr", "error_code", "error_descriptor", "descriptors_done")
    seen["end"] = [await desk.read(name) for name in names]
    counters = ("compute_cycles", "fetch_cycles", "load_stall_cycles", "read_beats", "write_beats")
    seen["counters"] = [await desk.read(name) for name in counters]
    seen["window"] = []
    for index in (0, 5, 6):
        await desk.write("window_index", index)
        seen["window"].append(await desk.read("window_cycles"))
    await desk.write("status", 1 << 5)
    seen["cleared"] = await desk.read("status")
    await desk.start()
    await desk.pulse(ended=1, code=int(Code.BAD_KIND), descriptor=3)
    seen["error"] = [await desk.read(name) for name in ("status", "error_code", "error_descriptor", "isr")]
    await desk.start()
    seen["restarted"] = [await desk.read(name) for name in ("status", "error_code", "cycles")][:2]
    await desk.pulse(host=1, host_step=4)
    resumes = 0
    access = desk.bus.write(OFFSET["command"], 2)
    for _ in range(12):
        await desk.loop.step()
        resumes += bench.get("machine__resume")
    assert access.done
    seen["abort"] = [resumes, bench.get("machine__abort"), await desk.read("status")]
    await desk.pulse(ended=1, code=int(Code.FETCH_RANGE), descriptor=4)
    seen["aborted"] = [await desk.read("error_code"), bench.get("machine__abort"), await desk.read("status")]
    await desk.write("watchdog", 40)
    await desk.write("isr", 15)
    await desk.start()
    waits = 0
    while not await desk.read("isr") and waits < 100:
        waits += 1
    seen["watchdog"] = [0 < waits < 20, await desk.read("isr"), await desk.read("status")]
    await desk.pulse(ended=1, code=0, descriptor=0)
    seen["after"] = await desk.read("status")
    await desk.read("control")
    await bench.reset()
    desk.bus.reset(bench)
    seen["reset again"] = [await desk.read(name) for name in ("control", "status", "isr", "program", "cycles")]
    access = desk.bus.read(0x700)
    await desk.loop.finish(access)
    seen["unmapped"] = [access.value, access.response, await desk.read("status")]
    return seen


@pytest.mark.parametrize("sim", ["amaranth", "icarus", "cxxrtl"])
def test_a_whole_run(sim):
    seen = run_bench(Control(rows=4, cols=8, data_bits=256), "control", whole_run, {}, sim)
    words = [(0x0123456789ABCD00 + k) & (1 << r.width) - 1 for k, r in enumerate(MAP.arguments)]
    assert seen == {
        "reset": [0b0100, 0, 0x4E4D5341, 1, 4 | 8 << 11 | 32 << 22],
        "start": 1,
        "arguments": hex(sum(word << 64 * k for k, word in enumerate(words[:5]))),
        "kept": True,
        "second start": None,
        "busy": [1, 0b0100001],
        "host": [0b0100011, 0b0100, 2, 2],
        "line": [1, 0],
        "cycles stand": True,
        "resumed": 0b0100001,
        "end": [0b1110, 0b0100, 0b0100000, 0b0011, 0, 6, 3],
        "counters": [1, 1, 0, 5, 0],
        "window": [77, 123456, 9],
        "cleared": 0,
        "error": [0b100, int(Code.BAD_KIND), 3, 0b1011],
        "restarted": [1, 0],
        "abort": [1, 1, 0b1001],
        "aborted": [int(Code.ABORTED), 0, 0b100],
        "watchdog": [True, 0b1000, 0b10001],
        "after": 0b10000,
        "reset again": [0b0100, 0, 0, 0, 0],
        "unmapped": [0, 0, 1 << 6],
    }


async def counted_run(bench, length, host_at, host_length):
    """Register ``cycles`` and ``host_cycles`` of a run whose end and stop are pulsed in known cycles."""
    desk = Desk(bench)
    await bench.reset()
    desk.bus.write(0, 1)
    await desk.loop.step()
    for _ in range(20):  # up to the cycle of start
        desk.bus.drive(bench)
        await bench.settle()
        desk.bus.sample(bench)
        started = bench.get("machine__start")
        await bench.tick()
        if started:
            break
    resume = None
    for cycle in range(1, length + 1):
        bench.set("machine__ended", int(cycle == length))
        bench.set("machine__host", int(cycle == host_at))
        if cycle == host_at + host_length:
            desk.bus.write(OFFSET["command"], 1)
        desk.bus.drive(bench)
        await bench.settle()
        desk.bus.sample(bench)
        if bench.get("machine__resume"):
            resume = cycle
        await bench.tick()
    bench.set("machine__ended", 0)
    return [await desk.read("cycles"), await desk.read("host_cycles"), resume]


def test_cycles_are_those_between_start_and_end():
    arguments = {"length": 60, "host_at": 10, "host_length": 25}
    cycles, host, resume = run_bench(Control(rows=1, cols=1, data_bits=32), "control", counted_run, arguments, "cxxrtl")
    assert resume == 10 + 25 + 1
    assert host == resume - 10
    assert cycles == 60 - host


async def nobody_answers(bench):
    bus = AxiLiteMaster(bench, "bus")
    loop = Loop(bench, [bus])
    access = bus.read(0)
    bench.set("rst", 1)
    try:
        await loop.finish(access, 30)
    except HangError as error:
        return str(error)
    return None


def test_waiting_is_bounded():
    found = run_bench(Control(rows=1, cols=1, data_bits=32), "control", nobody_answers, {}, "cxxrtl")
    assert found == "read of 0x0: must come within 30 cycles"
