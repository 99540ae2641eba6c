"""Faults of the whole accelerator: a code in bounded time, no byte where none belongs, the next program right.

Every case runs a program of one or two descriptors with something wrong, then another that must be right, without a
reset in between (but where the reset is the fault).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np

from nmsat.dataflow import compile_program
from nmsat.dataflow import program as fmt
from nmsat.dataflow.program import DESCRIPTOR_BYTES, DTYPES, Descriptor, Kind, Program, Stage, Tensor, descriptor
from nmsat.fpga.host import DeviceError, Driver
from nmsat.fpga.host.simulation import MEMORY_BASE, SimulationBackend
from nmsat.models import Accelerator, Layer, Workload
from nmsat.models.memory_timing import MemoryTiming
from nmsat.rtl.blocks import emitted_block
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators.verilated import run_verilated
from nmsat.rtl.testbench.memory import Fault, StallingTiming
from nmsat.simulator import execute
from nmsat.simulator.executor.image import Memory
from nmsat.simulator.executor.vector import run_vector

# As in test_cosim.py, so that its simulator is built once.
SMALL = Accelerator.load("sat_4x4").replace(name="sat_4x4_n2m8", max_keep=2, max_group=8, overlap_units=True)
GUARD, PAGE, SLACK = 0xA5, 4096, 1 << 14
RANGES = {int(Code.READ_RANGE), int(Code.WRITE_RANGE)}
ANY = {int(code) for code in Code} | {0}

# the programs


def _networks() -> tuple[Workload, ...]:
    layers = (
        Layer(name="fc1", op="linear", ic=8, oc=16),
        Layer(name="relu", op="elementwise", function="relu", oc=16),
        Layer(name="fc2", op="linear", ic=16, oc=8),
        Layer(name="loss", op="elementwise", function="cross_entropy", oc=8),
    )
    return (Workload(name="two", layers=layers),)


def _passes(accelerator: Accelerator) -> Program:
    """An addition with ReLU, forward, and a pool, backward."""
    shape = {"images": 1, "h": 4, "w": 4, "c": 3}
    at = {name: 512 * place for place, name in enumerate(("x", "y", "z", "p", "dp", "dx"), 1)}
    tensors = tuple(Tensor(f"v.{name}", address, 96, "float16", (48,)) for name, address in at.items())
    added = {"steps": fmt.steps_number(["add", "relu"]), "source_address": at["x"], "second_address": at["y"]}
    pooled = {"steps": fmt.steps_number(["relu", "maxpool"]), "source_address": at["x"], "stride": 2}
    pooled |= {"window_y": 2, "window_x": 2, "gradients": 1, "gradient_address": at["dp"]}
    items = (
        descriptor(Kind.VECTOR, stage=Stage.FF, target_address=at["z"], **added, **shape),
        descriptor(Kind.VECTOR, stage=Stage.BP, target_address=at["dx"], **pooled, **shape),
    )
    return Program(items, ("layer",), tensors, {})


def programs(accelerator: Accelerator) -> dict[str, Program]:
    """Programs of one descriptor each, by name: every unit, every memory client."""
    pattern = f"{min(2, accelerator.max_keep)}:{min(4, accelerator.max_group)}"
    found = {}
    for method in ("bdwp", "sdgp"):
        whole = compile_program(_networks()[0], accelerator, method=method, sparsity=pattern, batch=2)
        for item in whole.descriptors:
            name = (
                f"{item.kind.name.lower()} {Stage(item['stage']).name.lower()} {whole.layers[item['layer']]} {method}"
            )
            found[name] = replace(whole, descriptors=(item,))
    passes = _passes(accelerator)
    for item in passes.descriptors:
        found[f"vector {Stage(item['stage']).name.lower()}"] = replace(passes, descriptors=(item,))
    names = (
        "product ff fc1 bdwp", "product bp fc2 bdwp", "product wu fc2 bdwp", "update wu fc2 bdwp", "update wu fc2 sdgp",
        "prune bp fc2 sdgp", "product bp fc2 sdgp", "host ff loss bdwp", "vector ff", "vector bp",
    )  # fmt: skip
    return {name: found[name] for name in names}


def filled(program: Program, seed: int) -> np.ndarray:
    """Memory with numbers in every tensor and the guard's byte between them."""
    numbers, image = np.random.default_rng(seed), np.full(program.dram_bytes, GUARD, np.uint8)
    for item in program.tensors:
        part = image[item.address : item.address + item.bytes]
        if item.name == "rule":
            part[:] = np.array([0.05, 0.9, 0.0, 0.0, 1024.0], np.float32).view(np.uint8)
        elif item.dtype in ("float16", "float32"):
            count = item.bytes // np.dtype(item.dtype).itemsize
            part[:] = (numbers.normal(size=count) / 8).astype(item.dtype).view(np.uint8)
        elif item.name.endswith("mask"):
            part[:] = numbers.integers(0, 256, item.bytes)
        elif item.dtype == "int32":
            part[:] = 0
        else:  # indices, a byte a group of 2:4: the first two elements are kept
            part[:] = 0b0100
    return image


# what runs inside the simulator


class Scene:
    """The machine, a memory with one program, and what must come of it."""

    def __init__(self, bench: Any, accelerator: Accelerator, case: dict[str, Any]) -> None:
        stall = case.get("stall", 0.0)
        timing = StallingTiming(stall, 25, case["seed"]) if stall else MemoryTiming.of(accelerator)
        self.clock_mhz = accelerator.clock_mhz
        self.backend = SimulationBackend(
            bench, SLACK + max(case["sizes"]), timing, self.clock_mhz, register_pause=stall / 2, seed=case["seed"],
            late=case.get("late", False), keep_log=True,
        )  # fmt: skip
        self.axi, self.driver = self.backend.axi, Driver(self.backend)

    async def place(self, program: Program, before: bytes, fields: dict[str, int] | None = None) -> None:
        """Program, with changed fields, and image into memory, the guard's byte everywhere else."""
        self.axi.faults = []
        await self.driver.load(program)
        change(self.axi.image, program.descriptors[0].kind, fields or {})
        self.base = self.driver.arguments()["image_base"]
        at, end = self.base - MEMORY_BASE, self.base - MEMORY_BASE + len(before)
        self.axi.image[at:end] = before
        self.axi.image[end:] = bytes([GUARD]) * (len(self.axi.image) - end)
        self.axi.writable = [(self.base, self.base + len(before))]
        self.head, self.at, self.end = bytes(self.axi.image[:at]), at, end

    def untouched(self) -> str | None:
        """What was written that is neither image nor allowed."""
        if bytes(self.axi.image[: self.at]) != self.head:
            return "the program was overwritten"
        if bytes(self.axi.image[self.end :]).strip(bytes([GUARD])):
            return "bytes behind the image were overwritten"
        return None

    def seconds(self, cycles: int) -> float:
        return cycles / (self.clock_mhz * 1e6)

    async def good(self, source: dict[str, str], limit: int) -> str | None:
        """Run a program that must be right; what is wrong."""
        program = Program.decode(bytes.fromhex(source["program"]))
        await self.place(program, bytes.fromhex(source["before"]))
        await self.driver.run(lambda item, data: run_vector(item, Memory(program, data)), timeout_s=self.seconds(limit))
        found = bytes(self.axi.image[self.at : self.end])
        return self.untouched() or (None if found == bytes.fromhex(source["after"]) else "the next program was wrong")


async def trace(bench: Any, *, accelerator: dict[str, Any], sources: dict[str, Any]) -> dict[str, Any]:
    """Cycles and bursts of every program: ``cycles`` and ``log`` of [channel, address from MEMORY_BASE, bytes]."""
    described = Accelerator.model_validate(accelerator)
    found = {}
    for name, source in sources.items():
        scene = Scene(bench, described, {"seed": 0, "sizes": [len(source["program"]) + len(source["before"]) // 2]})
        await scene.backend.reset()
        await scene.driver.open()
        wrong = await scene.good(source, 1_000_000)
        assert wrong is None, (name, wrong)
        size = described.axi_data_bits // 8
        log = [[channel, address - MEMORY_BASE, beats * size] for _, channel, address, beats in scene.axi.log or ()]
        cycles = (await scene.driver.counters()).totals["cycles"]
        found[name] = {"cycles": cycles, "log": log, "image": scene.at}
    return found


async def carry_out(
    bench: Any, *, accelerator: dict[str, Any], sources: dict[str, Any], cases: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every case: ``wrong`` (text or None), ``code``, ``descriptor``, ``cycles`` from start to end."""
    described = Accelerator.model_validate(accelerator)
    found = []
    for case in cases:
        source, after = sources[case["program"]], sources[case["next"]]
        sizes = [len(x["program"]) + len(x["before"]) // 2 for x in (source, after)]
        scene = Scene(bench, described, case | {"sizes": sizes})
        result: dict[str, Any] = {"wrong": None, "code": None, "descriptor": None, "cycles": 0}
        try:
            await scene.backend.reset()
            await scene.driver.open()
            before = bytes.fromhex(source["before"])
            await scene.place(Program.decode(bytes.fromhex(source["program"])), before, case.get("change", {}))
            await act(scene, case, result)
            result["wrong"] = result["wrong"] or scene.untouched() or strays(scene, source, before, case)
            if result["wrong"] is None:
                result["wrong"] = await scene.good(after, case["limit"])
        except (DeviceError, AssertionError) as error:
            result["wrong"] = f"{type(error).__name__}: {error}"
        found.append(result)
    return found


def change(code: bytearray, kind: Kind, fields: dict[str, int]) -> None:
    """Write fields of the first descriptor of a program's bytes, whatever they then mean."""
    for name, value in fields.items():
        info = DTYPES[kind].fields[name]  # type: ignore[index]
        place, size = info[1], info[0].itemsize
        code[place : place + size] = value.to_bytes(size, "little", signed=value < 0)


def strays(scene: Scene, source: dict[str, str], before: bytes, case: dict[str, Any]) -> str | None:
    """Bytes that changed though the right program leaves them, unless addresses or sizes were changed."""
    if "change" in case:
        return None
    program = Program.decode(bytes.fromhex(source["program"]))
    found, right = bytes(scene.axi.image[scene.at : scene.end]), bytes.fromhex(source["after"])
    mine = bytearray(len(before))
    for item in program.tensors:
        part = slice(item.address, item.address + item.bytes)
        if right[part] != before[part]:
            mine[part] = bytes([1]) * item.bytes
    stray = [at for at, (a, b, c) in enumerate(zip(found, before, mine, strict=True)) if a != b and not c]
    return f"bytes {stray[:4]} changed" if stray else None


async def act(scene: Scene, case: dict[str, Any], result: dict[str, Any]) -> None:
    """The run with its fault."""
    driver, backend, kind = scene.driver, scene.backend, case["kind"]
    if "fault" in case:
        channel, low, high, response = case["fault"]
        scene.axi.faults = [Fault(channel, MEMORY_BASE + low, MEMORY_BASE + high, response)]
    arguments = driver.arguments()
    for name, value in case.get("arguments", {}).items():
        arguments[name] += value
    await driver.start(arguments)
    begun = backend.loop.cycle
    for _ in range(case.get("after", 0)):
        await backend.loop.step()
    if kind == "reset":
        await backend.reset()
        await backend.bench.settle()
        if any(backend.bench.get(f"m_axi__{name}") for name in ("arvalid", "awvalid", "wvalid")):
            result["wrong"] = "the bus must be silent after a reset"
        if await driver.read("status") or await driver.read("error_code"):
            result["wrong"] = "status must be 0 after a reset"
        return
    if kind == "busy":
        await driver.write("program", 12345)  # for the next run, not for this one
        await driver.write("control", 1)
        if not await driver.read("status") >> 5 & 1:  # it was over: this is another run, of a program that is nowhere
            result["codes"] = [int(Code.BAD_ALIGNMENT)]
    if kind == "abort":
        await driver.abort()
    else:
        await until_over(scene, case, result)
    await driver.write("gier", 0)
    result["code"], result["descriptor"] = await driver.read("error_code"), await driver.read("error_descriptor")
    result["cycles"] = backend.loop.cycle - begun


async def until_over(scene: Scene, case: dict[str, Any], result: dict[str, Any]) -> None:
    """Serve the run; one that does not end in time, or whose watchdog barks, is aborted."""
    driver = scene.driver
    program = driver.program

    def host(item: Descriptor, image: np.ndarray) -> None:
        if "change" not in case:
            run_vector(item, Memory(program, image))

    try:
        await driver.serve(host, scene.seconds(case["limit"]))
    except DeviceError as error:
        if not str(error).endswith("aborted") or not case.get("may_abort"):
            result["wrong"] = str(error)


# the cases


def cases_of(sources: dict[str, Any], traces: dict[str, Any], malformed: int) -> list[dict[str, Any]]:
    """All cases: what is done, to which program, and the codes that may come of it."""
    rng, names = random.Random("faults of the top"), list(sources)
    found = [*_responses(rng, sources, traces), *_ranges(rng, sources, traces), *_arguments(names)]
    found += [_malformed(rng, sources, rng.choice(names)) for _ in range(malformed)]
    endless = {"count": (1 << 24) - 1} | {f"{side}_{name}": 0 for side in "abc" for name in ("repeat", "outer")}
    found += [
        {"kind": "endless", "program": name, "change": endless, "codes": [int(Code.ABORTED)], "may_abort": True}
        for name in names if name.startswith("product")
    ]  # fmt: skip
    for name in names:
        cycles = traces[name]["cycles"]
        found += [
            {"kind": kind, "program": name, "after": rng.randrange(1, cycles + 20), "codes": codes}
            for kind, codes, count in (("reset", [None], 6), ("busy", [0], 1), ("abort", [0, int(Code.ABORTED)], 4))
            for _ in range(count)
        ]
        found.append({
            "kind": "watchdog", "program": name, "arguments": {"watchdog": rng.randrange(5, cycles)}, "may_abort": True,
            "codes": [0, int(Code.ABORTED)],
        })  # fmt: skip
    for seed, case in enumerate(found):
        stall = rng.choice((0.0, 0.0, 0.3, 0.6))
        cycles = traces[case["program"]]["cycles"]
        case |= {
            "seed": seed,
            "stall": stall,
            "late": rng.random() < 0.5,
            "next": rng.choice((case["program"], *names)),
        }
        case["limit"] = (3000 + 6 * cycles) * (8 if stall else 1)
    return found


def _touched(program: Program, trace: dict[str, Any]) -> dict[tuple[str, str], list[int]]:
    """Addresses of the beats of every (channel, tensor); the program's own are ``fetch``."""
    found: dict[tuple[str, str], list[int]] = {}
    for channel, address, size in trace["log"]:
        at = address - trace["image"]
        tensor = next((x.name for x in program.tensors if x.address - 64 < at < x.address + x.bytes), "fetch")
        found.setdefault((channel, tensor), []).extend(range(address, address + size, 8))
    return found


def _responses(rng: random.Random, sources: dict[str, Any], traces: dict[str, Any]) -> list[dict[str, Any]]:
    """SLVERR and DECERR from every tensor that is read or written, and from the program."""
    found = []
    for name in sources:
        program = Program.decode(bytes.fromhex(sources[name]["program"]))
        for (channel, tensor), addresses in _touched(program, traces[name]).items():
            for response in (2, 3):
                at = rng.choice(addresses)
                first = 0x28 if tensor == "fetch" else 0x20 if channel == "ar" else 0x24
                found.append({
                    "kind": "response", "program": name, "what": f"{channel} {tensor}", "codes": [first + response],
                    "fault": ["read" if channel == "ar" else "write", at, at + 1, response],
                    "descriptor": at // DESCRIPTOR_BYTES if tensor == "fetch" else 0,
                })  # fmt: skip
    return found


def _ranges(rng: random.Random, sources: dict[str, Any], traces: dict[str, Any]) -> list[dict[str, Any]]:
    """Every address that is used, moved out of the image: behind it, across its end, far away, onto the program."""
    found = []
    for name in sources:
        program = Program.decode(bytes.fromhex(sources[name]["program"]))
        used = {tensor for _, tensor in _touched(program, traces[name])}
        item, end = program.descriptors[0], program.dram_bytes
        for field in (x for x in item.fields if x.endswith("_address")):
            hit = [x for x in program.tensors if x.address <= item[field] < x.address + x.bytes and x.name in used]
            if not hit or item.kind is Kind.HOST:
                continue
            places = [-(-end // 4) * 4, 1 << 40, 2**64 - PAGE, 2**64 - 4]
            places += [end // 4 * 4 - 4] if hit[0].bytes > 32 else []
            found.append({
                "kind": "range", "program": name, "what": field, "codes": sorted(RANGES), "descriptor": 0,
                "change": {field: rng.choice(places)},
            })  # fmt: skip
    return found


def _arguments(names: list[str]) -> list[dict[str, Any]]:
    """Programs cut short, not where programs may be, in ranges that do not hold them."""
    table = [
        ({"descriptor_limit": -1}, Code.NO_END, 1),
        ({"descriptor_limit": -2}, Code.NO_END, 0),
        ({"program": 4}, Code.BAD_ALIGNMENT, 0),
        ({"program": 1 << 40}, Code.FETCH_RANGE, 0),
        ({"range_low": PAGE}, Code.FETCH_RANGE, 0),
        ({"range_low": 300}, Code.FETCH_RANGE, 0),
        ({"range_high": -(1 << 32)}, Code.FETCH_RANGE, 0),
    ]
    return [
        {"kind": "arguments", "program": names[place % len(names)], "what": str(arguments), "arguments": arguments,
         "codes": [int(code)], "descriptor": index}
        for place, (arguments, code, index) in enumerate(table)
    ]  # fmt: skip


def _malformed(rng: random.Random, sources: dict[str, Any], name: str) -> dict[str, Any]:
    """One or two fields with values that mean nothing, or something else."""
    item = Program.decode(bytes.fromhex(sources[name]["program"])).descriptors[0]
    types, fields = DTYPES[item.kind], {}
    for field in rng.sample(list(item.fields), rng.choice((1, 1, 2))):
        info = types.fields[field][0].base  # type: ignore[index]
        low, high = (-(1 << 8 * info.itemsize - 1), (1 << 8 * info.itemsize - 1) - 1) if info.kind == "i" else (
            0, (1 << 8 * info.itemsize) - 1
        )  # fmt: skip
        near = min(high, max(low, item[field] + rng.choice((-1, 1, 2))))
        value = rng.choice((0, 1, near, near, high, rng.randint(low, high), 1 << rng.randrange(8 * info.itemsize - 1)))
        if field == "layer" or (field == "kind" and value == Kind.HOST):
            value = 0
        fields[field] = value
    return {
        "kind": "malformed", "program": name, "what": str(fields), "change": fields, "codes": sorted(ANY),
        "may_abort": True,
    }  # fmt: skip


def wrong(case: dict[str, Any], result: dict[str, Any]) -> str | None:
    """What is wrong with the outcome of a case."""
    if result["wrong"] is not None:
        return result["wrong"]
    if result["code"] not in (codes := result.get("codes", case["codes"])):
        return f"code {result['code']}, not of {codes}"
    if "descriptor" in case and result["descriptor"] != case["descriptor"]:
        return f"descriptor {result['descriptor']}, not {case['descriptor']}"
    return None


def test_every_fault_ends_with_a_code_and_the_next_program_is_right():
    """More than 300 cases: SLVERR and DECERR from every tensor of every unit and from the program; every address outside
    its range; fields with any value; programs cut short or misplaced; products that would take days; resets, aborts,
    starts and watchdogs at any cycle; on steady and on stalling memories, with reads early and late."""
    sources = {}
    for number, (name, program) in enumerate(programs(SMALL).items()):
        before = filled(program, number)
        texts = {"program": program.encode(), "before": before.tobytes(), "after": execute(program, before).tobytes()}
        sources[name] = {key: text.hex() for key, text in texts.items()}
    emitted = emitted_block("top", SMALL)
    common = {"accelerator": SMALL.model_dump(), "sources": sources}
    cases = cases_of(sources, run_verilated(emitted, trace, common), malformed=60)
    found = run_verilated(emitted, carry_out, common | {"cases": cases})
    failed = [(case, text) for case, result in zip(cases, found, strict=True) if (text := wrong(case, result))]
    assert failed == []
    kinds = [case["kind"] for case in cases]
    assert len(cases) > 300
    assert {"response", "range", "malformed", "arguments", "endless", "reset", "abort", "busy", "watchdog"} == set(
        kinds
    )
    codes = {result["code"] for result in found}
    met = (
        "OK", "BAD_FIELD", "BAD_SIZE", "BAD_ALIGNMENT", "NO_END", "READ_RANGE", "READ_SLVERR", "READ_DECERR",
        "WRITE_RANGE", "WRITE_SLVERR", "WRITE_DECERR", "FETCH_RANGE", "FETCH_SLVERR", "FETCH_DECERR", "ABORTED",
    )  # fmt: skip
    assert codes >= {int(Code[name]) for name in met}


async def beside(bench: Any, *, accelerator: dict[str, Any], program: str, image: str, fault: list[int]) -> list[int]:
    """Code and descriptor of a run in which reads between two addresses of the image fail."""
    described, decoded = Accelerator.model_validate(accelerator), Program.decode(bytes.fromhex(program))
    backend = SimulationBackend.of(bench, described, decoded.dram_bytes + SLACK, keep_log=True)
    driver = Driver(backend)
    await backend.reset()
    await driver.open()
    await driver.load(decoded)
    base = driver.arguments()["image_base"]
    at = base - MEMORY_BASE
    backend.axi.image[at : at + decoded.dram_bytes] = bytes.fromhex(image)
    backend.axi.faults = [Fault("read", base + fault[0], base + fault[1], 2)]
    await driver.start(driver.arguments())
    await driver.serve(timeout_s=1e-3)
    return [await driver.read("error_code"), await driver.read("error_descriptor")]


def test_an_error_beside_other_work_names_the_first_descriptor_at_work():
    """A product's operand fails: behind another product the index is its own, beside an update it is the update's."""
    whole = compile_program(_networks()[0], SMALL, method="bdwp", sparsity="2:4", batch=2)
    first, update, product = whole.descriptors[5:8]  # dW of fc2 and its update; dW of fc1 may start beside that
    assert [item.kind for item in (first, update, product)] == [Kind.PRODUCT, Kind.UPDATE, Kind.PRODUCT]
    assert product["beside"] >> Kind.UPDATE & 1
    tensor = next(x for x in whole.tensors if x.address <= product["b_address"] < x.address + x.bytes)
    emitted, image = emitted_block("top", SMALL), filled(whole, 0).tobytes().hex()
    for before, index in ((first, 1), (update, 0)):
        arguments = {
            "accelerator": SMALL.model_dump(), "image": image, "fault": [tensor.address, tensor.address + tensor.bytes],
            "program": replace(whole, descriptors=(before, product)).encode().hex(),
        }  # fmt: skip
        assert run_verilated(emitted, beside, arguments) == [int(Code.READ_SLVERR), index]
