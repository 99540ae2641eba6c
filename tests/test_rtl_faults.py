"""Faults of a whole machine behind control and DMA: a code in bounded time, no byte outside, the next program right.

The machine is the copier, whose program has descriptors, host stops, reads and writes as the accelerator's.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from nmsat.dataflow.program import Descriptor, Kind, Program, Tensor, field_names
from nmsat.fpga.host import DeviceError, Driver, RunError
from nmsat.fpga.host.simulation import MEMORY_BASE, SimulationBackend
from nmsat.models.memory_timing import MemoryTiming
from nmsat.rtl.registers import Code, register_map
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.copier import Copier
from nmsat.rtl.testbench.memory import Fault, StallingTiming

PAGE, MEMORY = 4096, 1 << 16
IMAGE = MEMORY_BASE + PAGE  # the driver puts the program on the first page
GUARD = 0xA5
MAP = register_map()


def copies(*items, hosts=(), kinds=None):
    """A program of copies (source, target, bytes)."""
    descriptors = []
    for place, (source, target, size) in enumerate(items):
        kind = int(Kind.HOST if place in hosts else Kind.VECTOR)
        fields = dict.fromkeys(field_names(Kind.VECTOR), 0) | {
            "kind": (kinds or {}).get(place, kind), "source_address": source, "target_address": target, "elements": size,
        }  # fmt: skip
        descriptors.append(Descriptor(Kind.VECTOR, fields))
    tensors = tuple(Tensor(f"t{k}", PAGE * k, PAGE, "uint8", (PAGE,)) for k in range(4))
    return Program(tuple(descriptors), ("layer",), tensors, {})


GOOD = copies((0, PAGE, PAGE), (PAGE + 1, 2 * PAGE + 7, 1001), (2 * PAGE, 3 * PAGE, 50))


def after_good(first):
    image = np.zeros(4 * PAGE, np.uint8)
    image[:PAGE] = first
    image[PAGE : 2 * PAGE] = image[:PAGE]
    image[2 * PAGE + 7 : 2 * PAGE + 1008] = image[PAGE + 1 : PAGE + 1002]
    image[3 * PAGE : 3 * PAGE + 50] = image[2 * PAGE : 2 * PAGE + 50]
    return image


def drawn(seed):
    """One fault: what is done, and the codes that may come of it (0: the run may end well)."""
    rng = random.Random(seed)
    kind = ("slverr", "decerr", "range", "malformed", "truncated", "reset", "busy", "abort", "watchdog", "unmapped")[
        seed % 10
    ]
    stall = rng.choice((0.0, 0.0, 0.3, 0.6))
    case = {
        "kind": kind,
        "seed": seed,
        "stall": stall,
        "late": bool(rng.getrandbits(1)),
        "items": [list(x) for x in GOOD_ITEMS],
    }
    items, code = case["items"], 2 if kind == "slverr" else 3
    if kind in ("slverr", "decerr"):
        where, place = rng.choice(("fetch", "read", "write")), rng.randrange(3)
        if where == "fetch":
            at = 256 * rng.randrange(4) + 8 * rng.randrange(32) - PAGE
            case["codes"] = [0x28 + code]
        else:
            start = items[place][0 if where == "read" else 1]
            at = start + rng.randrange(items[place][2])
            # a byte that other descriptors read or write, too, may fail there first
            case["codes"] = [0x20 + code] if where == "read" else [0x24 + code]
        case["fault"] = ["write" if where == "write" else "read", at, at + 1, code]
    elif kind == "range":
        place, side = rng.randrange(3), rng.randrange(2)
        items[place][side] = rng.choice(
            (4 * PAGE, 4 * PAGE - items[place][2] + 1, -PAGE - 1, 1 << 40, 2**64 - PAGE - 100)
        )
        items[place][side] %= 1 << 64
        case["codes"] = [int(Code.WRITE_RANGE if side else Code.READ_RANGE)]
    elif kind == "malformed":
        case["kinds"] = {str(rng.randrange(3)): rng.choice((1, 3, 4, 6, 77, 255))}
        case["codes"] = [int(Code.BAD_KIND)]
    elif kind == "truncated":
        case["limit"] = rng.randrange(1, 4)
        case["codes"] = [int(Code.NO_END)]
    elif kind in ("reset", "busy", "abort"):
        case["after"] = rng.randrange(1, 1800)
        case["codes"] = {"reset": [], "busy": [0], "abort": [0, int(Code.ABORTED)]}[kind]
    elif kind == "watchdog":
        items[0][2], case["watchdog"], case["codes"] = PAGE, rng.randrange(10, 400), [0, int(Code.ABORTED)]
    else:
        case["offsets"] = [rng.choice((0x68, 0x7C, 0x100, 0xFFC, 0x400 + 4 * rng.randrange(64))) for _ in range(4)]
        case["codes"] = [0]
    return case


GOOD_ITEMS = [(0, PAGE, PAGE), (PAGE + 1, 2 * PAGE + 7, 1001), (2 * PAGE, 3 * PAGE, 50)]


async def one(bench, case):
    """Carry out a case, then the good program. Returns what was wrong, and the code."""
    stall = case["stall"]
    timing = StallingTiming(stall, 25, case["seed"]) if stall else MemoryTiming(8, 12, 1600, 200)
    backend = SimulationBackend(bench, MEMORY, timing, 200, register_pause=stall, seed=case["seed"], late=case["late"])
    image = backend.axi.image
    await backend.reset()
    driver = Driver(backend)
    await driver.open()
    kinds = {int(k): v for k, v in case.get("kinds", {}).items()}
    program = copies(*case["items"], kinds=kinds)
    await driver.load(program)
    end = PAGE + program.dram_bytes
    image[end:] = bytes([GUARD]) * (MEMORY - end)
    await driver.clear()
    first = np.random.default_rng(case["seed"]).integers(0, 256, PAGE, np.uint8)
    await driver.upload({"t0": first})
    before = bytes(image[:PAGE])
    backend.axi.writable = [(MEMORY_BASE, MEMORY_BASE + end)]
    if "fault" in case:
        kind, low, high, response = case["fault"]
        backend.axi.faults = [Fault(kind, IMAGE + low, IMAGE + high, response)]
    code = None
    try:
        code = await act(driver, backend, case)
    except RunError as error:
        code = error.code
    except DeviceError as error:
        return [f"{error}", None]
    wrong = []
    if bytes(image[:PAGE]) != before:
        wrong.append("the program was overwritten")
    if bytes(image[end:]).strip(bytes([GUARD])):
        wrong.append("guard bytes were overwritten")
    backend.axi.faults = []
    good = copies(*GOOD_ITEMS)
    await driver.load(good)
    await driver.clear()
    await driver.upload({"t0": first})
    await driver.run(timeout_s=1e-3)
    found = await driver.download()
    if (np.concatenate([found[f"t{k}"] for k in range(4)]) != after_good(first)).any():
        wrong.append("the next program was wrong")
    return [*wrong, code] if wrong else [None, code]


async def act(driver, backend, case):
    """The run with its fault; the code it ended with."""
    kind = case["kind"]
    if kind in ("reset", "busy", "abort", "truncated"):
        for name, value in (
            ("program", MEMORY_BASE), ("image_base", IMAGE), ("range_low", MEMORY_BASE), ("range_high", IMAGE + 4 * PAGE),
            ("descriptor_limit", case.get("limit", 4)), ("control", 1),
        ):  # fmt: skip
            await driver.write(name, value)
        for _ in range(case.get("after", 0)):
            await backend.loop.step()
        if kind == "reset":
            await backend.reset()
            return None
        if kind == "busy":
            await driver.write("program", 12345)  # for the next run, not for this one
            await driver.write("control", 1)
            status = await driver.read("status")
            if await driver.read("isr") & 1 and not status >> 5 & 1:  # it was over: this is another run
                await driver.abort()
                return 0
            if not status >> 5 & 1:
                return "start while busy was not noted"
        elif kind == "abort":
            await driver.abort()
            return await driver.read("error_code")
        for _ in range(2000):
            if not await driver.read("status") & 1:
                return await driver.read("error_code")
        return "no end"
    if kind == "unmapped":
        for offset in case["offsets"]:
            await backend.write32(offset, 0xFFFFFFFF)
            if await backend.read32(offset):
                return "an offset without a register has a value"
        if not await driver.read("status") >> 6 & 1:
            return "a bad access was not noted"
    try:
        await driver.run(timeout_s=2e-4, watchdog_cycles=case.get("watchdog", 0))
    except RunError:
        raise
    except DeviceError:
        if kind != "watchdog":
            raise
        return await driver.read("error_code")
    return 0


async def all_of(bench, cases):
    return [await one(bench, case) for case in cases]


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2))])
def test_faults(part):
    """210 cases, 70 a part: SLVERR and DECERR everywhere, runs outside the range, bad and truncated programs, resets, starts during
    a run, aborts, the watchdog, bad register accesses; on steady and on stalling memories."""
    cases = [drawn(seed) for seed in range(70 * part, 70 * part + 70)]
    found = run_bench(Copier(), "copier", all_of, {"cases": cases}, "cxxrtl")
    for case, (wrong, code) in zip(cases, found, strict=True):
        assert wrong is None, (case, wrong)
        assert not case["codes"] or code in case["codes"], (case, code)


def test_every_kind_of_fault_is_met():
    kinds = {drawn(seed)["kind"] for seed in range(210)}
    assert len(kinds) == 10
    assert {c for seed in range(210) for c in drawn(seed)["codes"]} >= {
        int(Code[name]) for name in (
            "OK", "BAD_KIND", "NO_END", "READ_RANGE", "READ_SLVERR", "READ_DECERR", "WRITE_RANGE", "WRITE_SLVERR",
            "WRITE_DECERR", "FETCH_SLVERR", "FETCH_DECERR", "ABORTED",
        )
    }  # fmt: skip
