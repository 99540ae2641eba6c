"""The update unit against the golden executor, every byte of memory, and against its cycle model, every handshake."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from nmsat.dataflow import program as fmt
from nmsat.dataflow.program import Kind, Program, Tensor, descriptor
from nmsat.models import Accelerator, golden
from nmsat.models.errors import NmsatError
from nmsat.models.sparsity import Sparsity
from nmsat.rtl.emit import Emission
from nmsat.rtl.memory_port import MemoryFault
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators.bench import finish
from nmsat.rtl.simulators.cxxrtl import CxxrtlBench
from nmsat.rtl.testbench.unit_ports import RandomMemory, UnitMemory, first_difference, run_descriptors, run_model
from nmsat.rtl.update_parameters import UpdateParameters
from nmsat.rtl.update_unit import UpdateUnit
from nmsat.simulator.executor import execute
from nmsat.simulator.executor.update import compressed_copy
from nmsat.simulator.machine.memory import DmaModel
from nmsat.simulator.machine.update import UpdateModel, UpdateSizes

PARAMETERS = UpdateParameters(32, 4, 4, 4, 8)
REMOTE = replace(PARAMETERS, hop=2)
RULE = (0.1, 0.9, 5e-4, 2e-4, 1024.0)


class Case:
    """One descriptor, the program around it, and memory before it."""

    def __init__(self, rng, *, shape, groups=1, ff=None, bp=None, mask=None, dense=False, kind=Kind.UPDATE, rule=RULE):
        self.tensors, self.arrays, self.top = [], [], 0
        out, taps, inner = shape
        count = out * taps * inner
        fields = {"out_channels": out, "taps": taps, "in_channels": inner, "groups": groups}
        w16 = weights(rng, (out, taps, inner))
        for stage, pattern in (("ff", ff), ("bp", bp), ("mask", mask)):
            if pattern is not None:
                fields |= {f"{stage}_keep": pattern.keep, f"{stage}_group": pattern.group}
        if kind is Kind.UPDATE:
            fields["flags"] = fmt.KEEP_ON_CHIP | fmt.OUT_FP32 * dense
            fields["w32_address"] = self.place("w32", golden.widen(w16.reshape(-1)))
            fields["v32_address"] = self.place("v32", floats(rng, count))
            fields["gradient_address"] = self.place("g", floats(rng, count))
            fields["rule_address"] = self.place("rule", np.array(rule, np.float32))
            if dense or (mask is not None and ff is None):
                fields["w16_address"] = self.place("w16", w16)
        else:
            fields["flags"] = fmt.SWAPPED
            fields["w16_address"] = self.place("w16", w16)
        for stage, pattern in (("ff", ff), ("bp", bp)):
            if pattern is None:
                continue
            if kind is Kind.PRUNE:
                kept = golden.compress(w16.reshape(-1, pattern.group), pattern, -1)
            else:
                kept = compressed_copy(w16, pattern, stage, groups)
            values, indices = golden.pack(kept)
            fields[f"{stage}_address"] = self.place(f"{stage}.values", values.view(np.float16))
            fields[f"{stage}_index_address"] = self.place(
                f"{stage}.indices", indices if indices.size else np.zeros(1, np.uint8)
            )
        self.fields = fields
        self.item = descriptor(kind, **fields)
        self.program = Program((self.item,), ("layer",), tuple(self.tensors), {})
        image = np.zeros(self.program.dram_bytes, np.uint8)
        for tensor, array in zip(self.tensors, self.arrays, strict=True):
            image[tensor.address : tensor.address + tensor.bytes] = np.frombuffer(array.tobytes(), np.uint8)
        self.image = image

    def place(self, name, array):
        array = np.ascontiguousarray(array)
        address = self.top
        self.tensors.append(Tensor(name, address, array.nbytes, array.dtype.name, array.shape))
        self.arrays.append(array)
        self.top += -(-array.nbytes // 64) * 64 + 64
        return address

    @property
    def word(self):
        return int.from_bytes(self.program.encode()[-2 * fmt.DESCRIPTOR_BYTES : -fmt.DESCRIPTOR_BYTES], "little")

    def expected(self):
        return execute(self.program, self.image)


def weights(rng, shape):
    """binary16 of every size, with ties and zeros of both signs, no NaN."""
    ordinary = rng.normal(size=shape).astype(np.float16)
    few = rng.choice(np.array([0.0, -0.0, 0.5, -0.5, 6e-8, 65504], np.float16), shape)
    return np.where(rng.random(shape) < 0.8, ordinary, few)


def floats(rng, count):
    """binary32, some tiny."""
    return (rng.normal(size=count) * 10.0 ** rng.integers(-40, 3, count)).astype(np.float32)


def random_memory(**options):
    return RandomMemory(["read"], ["write"], PARAMETERS.bus_bytes, **options)


def run(bench, case, *, word=None, faults=(), limit=20_000, memory=random_memory, **options):
    image = bytearray(case.image.tobytes())
    memory = UnitMemory(bench, memory(**options), image, faults)
    (result,) = finish(run_descriptors(bench, [case.word if word is None else word], memory, limit=limit))
    return result, np.frombuffer(bytes(image), np.uint8), memory.events


@pytest.fixture(scope="module")
def bench():
    return CxxrtlBench(Emission().emit(UpdateUnit(PARAMETERS), "update_unit"), "-O0")


S = Sparsity
SHAPES = [
    {"shape": (1, 1, 1)},
    {"shape": (10, 1, 64), "dense": True},
    {"shape": (5, 9, 1), "dense": True},
    {"shape": (8, 1, 8), "ff": S(2, 8), "bp": S(2, 8), "mask": S(2, 8)},
    {"shape": (40, 1, 40), "ff": S(2, 8), "bp": S(2, 8), "mask": S(2, 8)},
    {"shape": (8, 5, 16), "ff": S(2, 8), "bp": S(1, 4), "mask": S(2, 8), "dense": True},
    {"shape": (24, 4, 8), "groups": 3, "ff": S(1, 8), "bp": S(3, 8)},
    {"shape": (96, 1, 4), "groups": 2, "ff": S(2, 4), "bp": S(4, 8), "mask": S(2, 4)},
    {"shape": (36, 1, 34), "ff": S(1, 2), "bp": S(1, 2), "mask": S(1, 2)},
    {"shape": (6, 2, 24), "ff": S(3, 4), "mask": S(3, 4)},
    {"shape": (4, 2, 24), "mask": S(2, 8), "dense": True},
    {"shape": (7, 3, 10), "bp": S(1, 1), "mask": S(1, 2)},
    {"shape": (8, 1, 40), "ff": S(4, 4), "bp": S(4, 4), "mask": S(4, 4)},
    {"shape": (16, 1, 8), "kind": Kind.PRUNE, "bp": S(2, 8)},
    {"shape": (51, 1, 4), "kind": Kind.PRUNE, "bp": S(1, 2)},
]  # fmt: skip


def check(bench, case, memory=random_memory, parameters=PARAMETERS, **options):
    """Memory is golden's, and the cycle model does what the hardware does in every cycle."""
    (status, cycles), image, events = run(bench, case, limit=60_000, memory=memory, **options)
    assert status == Code.OK, case.fields
    assert np.flatnonzero(image != case.expected()).tolist() == [], case.fields
    p = parameters
    sizes = UpdateSizes(p.bus_bytes, p.wuve_lanes, p.sore_lanes, p.hop)
    found, handshakes = run_model(partial(UpdateModel, sizes), memory(**options), case.item)
    assert first_difference(handshakes, events) is None
    assert found == cycles


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_a_descriptor_in_values_and_in_cycles(bench, number):
    check(bench, Case(np.random.default_rng(number), **SHAPES[number]), latency=5 + number)


@pytest.fixture(scope="module")
def remote_bench():
    return CxxrtlBench(Emission().emit(UpdateUnit(REMOTE), "update_unit"), "-O0")


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_engines_in_another_region_do_the_same_as_their_model(remote_bench, number):
    """Every other case with a memory that pauses at random, so that links run full and empty."""
    case, stall = Case(np.random.default_rng(number), **SHAPES[number]), (0.0, 0.4)[number % 2]
    check(remote_bench, case, parameters=REMOTE, latency=9, stall=stall, seed=number)


@pytest.mark.parametrize("after", [30, 90, 150])
def test_a_reset_at_any_time_empties_the_links(remote_bench, after):
    case = Case(np.random.default_rng(3), **SHAPES[3])
    (status, _), _, _ = run(remote_bench, case, limit=after)
    assert status is None
    check(remote_bench, case, parameters=REMOTE)


@pytest.mark.parametrize("number", [4, 5])
def test_a_descriptor_behind_the_dma_and_its_memory(bench, number):
    """As the DMA's model times the ports: its equality with the DMA is test_machine_memory's."""
    accelerator = Accelerator.load("sat_4x4").replace(max_keep=4, max_group=8)
    assert UpdateParameters.from_accelerator(accelerator) == PARAMETERS
    sizes = UpdateSizes.of(accelerator)
    assert (sizes.bus_bytes, sizes.wuve_lanes, sizes.sore_lanes) == (32, 4, 4)
    case = Case(np.random.default_rng(number), **SHAPES[number])
    check(bench, case, memory=lambda: DmaModel.of(accelerator, ["read"], ["write"]))


def drawn(rng):
    """A random legal descriptor of a few hundred weights."""
    patterns = [S(n, m) for m in (2, 4, 8) for n in range(1, min(m, 4) + 1)]
    if rng.random() < 0.2:
        pattern = patterns[rng.integers(len(patterns))]
        return Case(rng, shape=(int(rng.integers(1, 60)), 1, pattern.group), kind=Kind.PRUNE, bp=pattern)
    ff, bp = (patterns[rng.integers(len(patterns))] if rng.random() < 0.7 else None for _ in range(2))
    mask = rng.choice([None, ff or patterns[rng.integers(len(patterns))]])
    dense, groups = bool(rng.integers(2)), int(rng.integers(1, 4)) if bp else 1
    inner = max(x.group if x else 1 for x in (ff, mask)) * int(rng.integers(1, 6))
    outer = groups * (bp.group if bp else 1) * int(rng.integers(1, 4))
    taps = int(rng.integers(1, max(2, 400 // (inner * outer))))
    rule = (0.1, *(float(rng.choice([0, x])) for x in (0.9, 5e-4, 2e-4)), 2.0 ** int(rng.integers(-20, 20)))
    return Case(rng, shape=(outer, taps, inner), groups=groups, ff=ff, bp=bp, mask=mask, dense=dense, rule=rule)


@pytest.mark.parametrize("seed", range(8))
def test_random_descriptors_under_random_stalls(bench, seed):
    rng = np.random.default_rng(100 + seed)
    case = drawn(rng)
    options = {"stall": float(rng.choice([0.2, 0.6])), "latency": int(rng.integers(1, 40)), "seed": seed}
    check(bench, case, **options)


BASE = {"shape": (16, 1, 16), "ff": S(2, 8), "bp": S(2, 8), "mask": S(2, 8), "dense": True}
REFUSED = [
    (BASE, {"kind": 1}, Code.BAD_KIND),
    (BASE, {"flags": fmt.NO_VALUES}, Code.UNSUPPORTED),
    (BASE, {"ff_keep": 5}, Code.BAD_PATTERN),
    (BASE, {"ff_group": 16}, Code.BAD_PATTERN),
    (BASE, {"bp_group": 3}, Code.BAD_PATTERN),
    (BASE, {"bp_keep": 9}, Code.BAD_PATTERN),
    (BASE, {"mask_keep": 1}, Code.BAD_PATTERN),
    (BASE, {"mask_group": 0}, Code.BAD_PATTERN),
    (BASE, {"out_channels": 0}, Code.BAD_SIZE),
    (BASE, {"taps": 0}, Code.BAD_SIZE),
    (BASE, {"in_channels": 0}, Code.BAD_SIZE),
    (BASE, {"groups": 0}, Code.BAD_SIZE),
    (BASE, {"groups": 3}, Code.BAD_SIZE),
    (BASE, {"groups": 4}, Code.BAD_SIZE),
    (BASE, {"in_channels": 12}, Code.BAD_SIZE),
    (BASE, {"out_channels": 12}, Code.BAD_SIZE),
    (BASE, {"taps": 2**28}, Code.BAD_SIZE),
    (BASE, {"taps": 2**31, "in_channels": 8, "out_channels": 8}, Code.BAD_SIZE),
    (BASE, {"w32_address": 2}, Code.BAD_ALIGNMENT),
    (BASE, {"rule_address": 1}, Code.BAD_ALIGNMENT),
    (BASE, {"w16_address": 1}, Code.BAD_ALIGNMENT),
    (BASE, {"bp_address": 3}, Code.BAD_ALIGNMENT),
    ({"shape": (4, 1, 8), "kind": Kind.PRUNE, "bp": S(2, 8)}, {"bp_keep": 0}, Code.BAD_PATTERN),
    ({"shape": (4, 1, 8), "kind": Kind.PRUNE, "bp": S(2, 8)}, {"in_channels": 7}, Code.BAD_SIZE),
]  # fmt: skip


@pytest.mark.parametrize("base, change, code", REFUSED)
def test_what_cannot_be_executed_is_refused_before_memory_is_touched(bench, base, change, code):
    case = Case(np.random.default_rng(1), **base)
    item = descriptor(case.item.kind, **case.fields | {k: v for k, v in change.items() if k != "kind"})
    program = Program((item,), ("layer",), (), {})
    word = int.from_bytes(program.encode()[-2 * fmt.DESCRIPTOR_BYTES : -fmt.DESCRIPTOR_BYTES], "little")
    if "kind" in change:
        word = word & ~0xFF | change["kind"]
    (status, cycles), image, events = run(bench, case, word=word)
    assert status == code
    assert not events
    assert cycles < 60
    assert (image == case.image).all()


RULES = [
    (-0.1, 0.9, 0, 0, 1), (float("inf"), 0.9, 0, 0, 1), (0.1, float("nan"), 0, 0, 1), (0.1, 0.9, -1e-30, 0, 1),
    (0.1, 0.9, 0, float("inf"), 1), (0.1, 0.9, 0, 0, 3), (0.1, 0.9, 0, 0, 0), (0.1, 0.9, 0, 0, -2),
    (0.1, 0.9, 0, 0, 2.0**127), (0.1, 0.9, 0, 0, 2.0**-127), (0.1, 0.9, 0, 0, float("nan")),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_illegal_coefficients_are_refused_as_golden_refuses_them(bench, rule):
    case = Case(np.random.default_rng(2), shape=(2, 1, 4), rule=rule)
    with pytest.raises(NmsatError):
        case.expected()
    (status, _), image, _ = run(bench, case)
    assert status == Code.BAD_FIELD
    assert (image == case.image).all()


@pytest.mark.parametrize("rule", [(-0.0, 0.0, 0, 0, 2.0**126), (0.1, 1.0, 0, 0, 2.0**-126)])
def test_coefficients_at_the_edge_of_what_is_legal(bench, rule):
    case = Case(np.random.default_rng(2), shape=(2, 1, 4), rule=rule)
    (status, _), image, _ = run(bench, case)
    assert status == Code.OK
    assert (image == case.expected()).all()


@pytest.mark.parametrize(
    "tensor", ["rule", "w32", "v32", "g", "ff.indices", "bp.values", "bp.indices", "ff.values", "w16"]
)
@pytest.mark.parametrize("fault", [MemoryFault.RANGE, MemoryFault.DECERR])
def test_memory_faults_are_reported_and_the_next_descriptor_runs(bench, tensor, fault):
    case = Case(np.random.default_rng(3), **BASE)
    place = {item.name: item for item in case.tensors}[tensor]
    faults = [(place.address + place.bytes // 2, place.address + place.bytes // 2 + 1, fault)]
    (status, _), _, events = run(bench, case, faults=faults, stall=0.2)
    written = tensor not in ("rule", "w32", "v32", "g", "ff.indices")
    # w32 and v32 are read before they are written, so the read's code is the one that is reported
    assert status == Code((Code.WRITE_RANGE if written else Code.READ_RANGE) + fault - MemoryFault.RANGE)
    asked = sum(what != "word" for _, port, what in events if port == "write")
    if tensor == "rule":
        assert not asked
    (status, _), image, _ = run(bench, case)
    assert status == Code.OK
    assert (image == case.expected()).all()


@pytest.mark.parametrize("which", ["update", "prune"])
def test_a_nan_is_an_error_where_weights_are_pruned(bench, which):
    base = BASE if which == "update" else {"shape": (4, 1, 8), "kind": Kind.PRUNE, "bp": S(2, 8)}
    case = Case(np.random.default_rng(4), **base)
    name, kind = ("g", np.float32) if which == "update" else ("w16", np.float16)
    at = {item.name: item for item in case.tensors}[name]
    case.image[at.address : at.address + at.bytes].view(kind)[7] = np.nan
    with pytest.raises(NmsatError):
        case.expected()
    (status, _), _, _ = run(bench, case)
    assert status == Code.NAN


@pytest.mark.parametrize("after", [1, 9, 40, 90, 170, 260])
def test_a_reset_at_any_time_recovers(bench, after):
    case = Case(np.random.default_rng(5), **BASE)
    (status, _), _, _ = run(bench, case, limit=after)
    assert status is None
    (status, _), image, _ = run(bench, case)
    assert status == Code.OK
    assert (image == case.expected()).all()


def test_descriptors_follow_each_other_without_a_reset(bench):
    rng = np.random.default_rng(6)
    for seed in range(2):
        case = drawn(rng)
        image = bytearray(case.image.tobytes())
        memory = UnitMemory(bench, RandomMemory(["read"], ["write"], PARAMETERS.bus_bytes, seed=seed), image)
        idle = Program((descriptor(Kind.PRUNE),), ("layer",), (), {}).encode()[-512:-256]  # a weight's: nothing to do
        found = finish(run_descriptors(bench, [int.from_bytes(idle, "little"), case.word, case.word], memory))
        assert [status for status, _ in found] == [Code.OK] * 3
        assert found[0][1] < 10
        once = Program((case.item, case.item), ("layer",), tuple(case.tensors), {})
        assert (np.frombuffer(bytes(image), np.uint8) == execute(once, case.image)).all()
