"""The vector unit against the golden executor, every byte of memory, and against its cycle model, every handshake."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from nmsat.dataflow import program as fmt
from nmsat.dataflow.program import Kind, Program, Stage, Tensor, descriptor, steps_number
from nmsat.models import Accelerator
from nmsat.rtl.emit import Emission
from nmsat.rtl.memory_port import MemoryFault
from nmsat.rtl.registers import Code
from nmsat.rtl.remote import RemoteUnit
from nmsat.rtl.simulators.bench import finish
from nmsat.rtl.simulators.cxxrtl import CxxrtlBench
from nmsat.rtl.testbench.unit_ports import RandomMemory, UnitMemory, first_difference, run_descriptors, run_model
from nmsat.rtl.vector_unit import VectorParameters, VectorUnit
from nmsat.simulator.executor import execute
from nmsat.simulator.machine.memory import DmaModel
from nmsat.simulator.machine.remote import RemoteModel
from nmsat.simulator.machine.vector import VectorModel, VectorSizes

PARAMETERS = VectorParameters(32, 4, 5)
SIZES = VectorSizes(32, 4, 5)
MODEL = partial(VectorModel, SIZES)
KEYS = ("source", "second", "gradient", "gradient_1", "gradient_2", "target")


def values(rng, count):
    """binary16: ordinary numbers, any pattern (NaN, Inf, subnormal), and zeros of both signs."""
    anything = rng.integers(0, 1 << 16, count).astype(np.uint16).view(np.float16)
    zeros = rng.choice(np.array([0.0, -0.0, 1.0, -1.0], np.float16), count)
    kind = rng.integers(0, 4, count)
    return np.where(kind < 2, rng.normal(size=count).astype(np.float16), np.where(kind == 2, anything, zeros))


class Case:
    """One descriptor, the program around it, and memory before it."""

    def __init__(
        self, rng, *, steps, shape=(1, 1, 1, 100), window=None, backward=False, gradients=0, in_place=False, gap=0
    ):
        count = int(np.prod(shape))
        size = -(-(2 * count) // 64) * 64 + 64
        self.tensors = [Tensor(key, place * size + gap, 2 * count, "float16", shape) for place, key in enumerate(KEYS)]
        self.image = np.zeros(size * len(KEYS) + gap, np.uint8)
        for tensor in self.tensors:
            stored = values(rng, count).tobytes()
            self.image[tensor.address : tensor.address + tensor.bytes] = np.frombuffer(stored, np.uint8)
        addresses = {f"{tensor.name}_address": tensor.address for tensor in self.tensors}
        if in_place:
            addresses["target_address"] = addresses["gradient_address" if backward else "source_address"]
        sizes = dict(zip(("images", "h", "w", "c"), shape, strict=True))
        self.fields = {
            "stage": int(Stage.BP if backward else Stage.FF), "steps": steps_number(steps), "gradients": gradients,
            **sizes, **addresses, **dict(zip(("window_y", "window_x", "stride", "pad"), window or (), strict=False)),
        }  # fmt: skip
        self.item = descriptor(Kind.VECTOR, **self.fields)
        self.image = self.image[: self.program.dram_bytes]

    @property
    def program(self):
        return Program((self.item,), ("layer",), tuple(self.tensors), {})

    def expected(self):
        return execute(self.program, self.image)


def word_of(item):
    program = Program((item,), ("layer",), (), {})
    return int.from_bytes(program.encode()[-2 * fmt.DESCRIPTOR_BYTES : -fmt.DESCRIPTOR_BYTES], "little")


def random_memory(**options):
    return RandomMemory(["read"], ["write"], PARAMETERS.bus_bytes, **options)


def run(bench, case, *, word=None, faults=(), limit=20_000, memory=random_memory, **options):
    image = bytearray(case.image.tobytes())
    agent = UnitMemory(bench, memory(**options), image, faults)
    (result,) = finish(run_descriptors(bench, [word_of(case.item) if word is None else word], agent, limit=limit))
    return result, np.frombuffer(bytes(image), np.uint8), agent.events


def check(bench, case, memory=random_memory, model=MODEL, **options):
    """Memory is golden's, and the cycle model does what the hardware does in every cycle."""
    (status, cycles), image, events = run(bench, case, memory=memory, **options)
    assert status == Code.OK, case.fields
    assert np.flatnonzero(image != case.expected()).tolist() == [], case.fields
    found, handshakes = run_model(model, memory(**options), case.item)
    assert first_difference(handshakes, events) is None
    assert found == cycles


@pytest.fixture(scope="module")
def bench():
    return CxxrtlBench(Emission().emit(VectorUnit(PARAMETERS), "vector_unit"), "-O0")


PASSES = [
    (["relu"], {}),
    (["add"], {}),
    (["add", "relu"], {}),
    (["relu", "add"], {}),
    (["relu", "add", "relu"], {}),
    (["relu", "relu"], {}),
    ([], {}),
    (["relu"], {"backward": True, "gradients": 1}),
    (["add", "relu"], {"backward": True, "gradients": 2}),
    (["relu", "add", "relu"], {"backward": True, "gradients": 3}),
    (["relu", "add"], {"backward": True, "gradients": 3}),
    (["add"], {"backward": True, "gradients": 1}),
    ([], {"backward": True, "gradients": 2}),
    ([], {"backward": True, "gradients": 3}),
]
SHAPES = [(1, 1, 1, 1), (1, 1, 1, 64), (2, 5, 3, 7), (1, 1, 2, 66)]


@pytest.mark.parametrize("steps, options", PASSES)
def test_a_pass_in_values_and_in_cycles(bench, steps, options):
    rng = np.random.default_rng(len(steps) + 7 * len(options))
    for number, shape in enumerate(SHAPES):
        check(bench, Case(rng, steps=steps, shape=shape, **options), latency=3 + 5 * number)


POOLED = [
    (["maxpool"], (2, 4, 4, 16), (2, 2, 2, 0)),
    (["relu", "maxpool"], (1, 4, 5, 70), (3, 3, 2, 1)),
    (["maxpool", "relu"], (1, 5, 4, 3), (3, 2, 1, 0)),
    (["add", "relu", "maxpool"], (1, 5, 5, 9), (2, 3, 2, 1)),
    (["avgpool"], (2, 3, 3, 66), (3, 3, 3, 0)),
    (["add", "relu", "avgpool"], (1, 7, 7, 5), (7, 7, 7, 0)),
    (["avgpool", "relu"], (1, 4, 5, 4), (3, 3, 1, 1)),
    (["relu", "add", "relu", "avgpool", "relu"], (1, 4, 6, 1), (1, 5, 2, 0)),
    (["maxpool"], (1, 1, 1, 1), (1, 1, 1, 0)),
    (["avgpool"], (1, 3, 9, 2), (3, 2, 4, 1)),
]


@pytest.mark.parametrize("steps, shape, window", POOLED)
def test_a_pool_in_values_and_in_cycles(bench, steps, shape, window):
    case = Case(np.random.default_rng(sum(shape)), steps=steps, shape=shape, window=window)
    check(bench, case, latency=3 + shape[1], stall=0.3 * (sum(shape) % 2))


BACKWARD = [
    (["avgpool"], (2, 4, 4, 5), 2, 1),
    (["relu", "avgpool"], (1, 3, 3, 70), 3, 2),
    (["add", "relu", "avgpool"], (1, 2, 4, 9), 2, 3),
    (["avgpool"], (1, 2, 3, 4), 1, 1),
    (["maxpool"], (2, 4, 4, 6), 2, 1),
    (["relu", "maxpool"], (1, 3, 3, 66), 3, 2),
    (["maxpool", "relu"], (1, 4, 6, 9), 2, 3),
    (["add", "relu", "maxpool", "relu"], (1, 4, 4, 3), 2, 1),
    (["add", "maxpool"], (1, 4, 2, 4), 2, 1),
    (["maxpool"], (1, 2, 2, 3), 1, 1),
]


@pytest.mark.parametrize("steps, shape, size, gradients", BACKWARD)
def test_the_backward_pass_of_a_pool_in_values_and_in_cycles(bench, steps, shape, size, gradients):
    options = {"window": (size, size, size, 0), "backward": True, "gradients": gradients}
    case = Case(np.random.default_rng(sum(shape)), steps=steps, shape=shape, **options)
    check(bench, case, latency=3 + shape[1], stall=0.3 * (sum(shape) % 2))


@pytest.mark.parametrize("places", [2, 3, 5, 7, 11, 49])
def test_the_share_of_a_window_is_golden_s(bench, places):
    """binary32 of 1 / places: one of many, so that its last bit shows in some of the results."""
    case = Case(np.random.default_rng(places), steps=["avgpool"], shape=(1, 1, places, 20), window=(1, places, 1, 0))
    check(bench, case)


@pytest.mark.parametrize("seed", range(8))
def test_random_passes_under_random_stalls(bench, seed):
    rng = np.random.default_rng(seed)
    steps, options = PASSES[rng.integers(len(PASSES))]
    shape = tuple(int(x) for x in rng.integers(1, 7, 4))
    case = Case(rng, steps=steps, shape=shape, in_place=bool(rng.integers(2)), gap=2 * int(rng.integers(9)), **options)
    check(bench, case, stall=float(rng.choice([0.2, 0.6])), latency=int(rng.integers(1, 40)), seed=seed)


@pytest.mark.parametrize("steps, options", [PASSES[2], PASSES[9]])
def test_a_pass_behind_the_dma_and_its_memory(bench, steps, options):
    accelerator = Accelerator.load("sat_4x4").replace(adder_latency_cycles=5)
    assert VectorParameters.from_accelerator(accelerator) == PARAMETERS
    assert VectorSizes.of(accelerator) == SIZES
    case = Case(np.random.default_rng(1), steps=steps, shape=(2, 4, 4, 33), gap=6, **options)
    check(bench, case, memory=lambda: DmaModel.of(accelerator, ["read"], ["write"]))


def test_a_long_pass_moves_a_word_of_every_lane_a_cycle(bench):
    """With a memory that keeps up: 4 elements a cycle, and what the pipeline and the memory are long."""
    case = Case(np.random.default_rng(3), steps=["relu"], shape=(1, 4, 16, 16))
    (status, cycles), _, _ = run(bench, case, latency=12)
    assert status == Code.OK
    assert 1024 / 4 <= cycles <= 1024 / 4 + 80


BASE = {"steps": ["add", "relu"], "shape": (1, 2, 3, 11)}
BACK = BASE | {"backward": True, "gradients": 2}
POOL = {"steps": ["avgpool"], "shape": (1, 2, 3, 11), "window": (2, 2, 1, 0)}
POOL_BACK = {"steps": ["maxpool"], "shape": (1, 4, 2, 11), "window": (2, 2, 2, 0), "backward": True, "gradients": 1}
REFUSED = [
    (BASE, {"kind": int(Kind.HOST)}, Code.BAD_KIND),
    (BASE, {"flags": fmt.NO_VALUES}, Code.UNSUPPORTED),
    (POOL_BACK, {"pad": 1}, Code.UNSUPPORTED),
    (POOL_BACK, {"stride": 1}, Code.UNSUPPORTED),
    (POOL_BACK, {"window_x": 3}, Code.UNSUPPORTED),
    (POOL_BACK, {"h": 5}, Code.UNSUPPORTED),
    (POOL_BACK, {"w": 3}, Code.UNSUPPORTED),
    (POOL_BACK, {"steps": steps_number(["avgpool", "relu"])}, Code.UNSUPPORTED),
    (POOL_BACK, {"steps": steps_number(["relu", "add", "maxpool"])}, Code.UNSUPPORTED),
    (BASE, {"steps": steps_number(["avgpool", "add"])}, Code.UNSUPPORTED),
    (BASE, {"steps": steps_number(["avgpool", "maxpool"])}, Code.UNSUPPORTED),
    (POOL, {"window_y": 3}, Code.BAD_SIZE),
    (POOL, {"window_x": 0}, Code.BAD_SIZE),
    (POOL, {"stride": 0}, Code.BAD_SIZE),
    (POOL, {"pad": 2}, Code.BAD_SIZE),
    (POOL, {"h": 4097, "window_y": 4097, "window_x": 1}, Code.BAD_SIZE),
    (BASE, {"steps": steps_number(["cross_entropy"])}, Code.UNSUPPORTED),
    (BASE, {"steps": steps_number(["add", "add"])}, Code.UNSUPPORTED),
    (BASE, {"steps": 0xFF}, Code.UNSUPPORTED),
    (BASE, {"stage": 2}, Code.BAD_FIELD),
    (BACK, {"gradients": 0}, Code.BAD_FIELD),
    (BACK, {"gradients": 4}, Code.BAD_FIELD),
    (BASE, {"images": 0}, Code.BAD_SIZE),
    (BASE, {"c": 0}, Code.BAD_SIZE),
    (BASE, {"h": 2**31, "w": 2}, Code.BAD_SIZE),
    (BASE, {"images": 2**31, "c": 2**31}, Code.BAD_SIZE),
    (BASE, {"source_address": 1}, Code.BAD_ALIGNMENT),
    (BASE, {"target_address": 3}, Code.BAD_ALIGNMENT),
    (BACK, {"gradient_1_address": 1}, Code.BAD_ALIGNMENT),
]


HOP = 2


@pytest.fixture(scope="module")
def remote_bench():
    unit = RemoteUnit(unit=VectorUnit(PARAMETERS), data_bits=8 * PARAMETERS.bus_bytes, hop=HOP)
    return CxxrtlBench(Emission().emit(unit, "vector_unit"), "-O0")


def remote_model(read, write):
    return RemoteModel(MODEL, read, write, HOP)


@pytest.mark.parametrize("seed", range(6))
def test_a_unit_in_another_region_does_the_same_as_its_model(remote_bench, seed):
    """Passes of all kinds; the memory pauses at random, so that links run full and empty."""
    rng = np.random.default_rng(40 + seed)
    for steps, options in (PASSES[seed], PASSES[7 + seed]):
        for shape in SHAPES:
            case = Case(rng, steps=steps, shape=shape, **options)
            check(remote_bench, case, model=remote_model, latency=20, stall=(0.0, 0.5)[seed % 2], seed=seed)
    steps, shape, window = POOLED[seed % len(POOLED)]
    check(remote_bench, Case(rng, steps=steps, shape=shape, window=window), model=remote_model, stall=0.2, seed=seed)


def test_links_move_a_word_a_cycle():
    """A long pass takes what it takes without links, and the ways once: they have places for what is under way."""
    case = Case(np.random.default_rng(6), steps=["relu"], shape=(1, 1, 1, 64 * 100))
    near, far = (run_model(model, random_memory(latency=4), case.item)[0] for model in (MODEL, remote_model))
    ways = HOP + 2 * (HOP + 1) + (HOP + 1) + HOP + HOP + 1  # descriptor; request, word; result; answer; end
    assert far - near == ways


@pytest.mark.parametrize("after", [3, 20, 31])
def test_a_reset_at_any_time_empties_the_links(remote_bench, after):
    case = Case(np.random.default_rng(8), steps=["relu"], shape=(1, 1, 1, 300))
    (status, _), _, _ = run(remote_bench, case, limit=after)
    assert status is None
    check(remote_bench, case, model=remote_model)


def test_an_error_from_another_region_is_heard(remote_bench):
    case = Case(np.random.default_rng(2), steps=["relu"])
    source = case.tensors[0]
    fault = (source.address, source.address + 2, MemoryFault.SLVERR)
    (status, _), _, _ = run(remote_bench, case, faults=[fault])
    assert status == Code.READ_RANGE + MemoryFault.SLVERR - MemoryFault.RANGE
    check(remote_bench, case, model=remote_model)


@pytest.mark.parametrize("base, change, code", REFUSED)
def test_what_cannot_be_executed_is_refused_before_memory_is_touched(bench, base, change, code):
    case = Case(np.random.default_rng(1), **base)
    word = word_of(descriptor(Kind.VECTOR, **case.fields | {k: v for k, v in change.items() if k != "kind"}))
    if "kind" in change:
        word = word & ~0xFF | change["kind"]
    (status, cycles), image, events = run(bench, case, word=word)
    assert status == code
    assert not events
    assert cycles < 80
    assert (image == case.image).all()


@pytest.mark.parametrize("tensor", KEYS)
@pytest.mark.parametrize("fault", [MemoryFault.RANGE, MemoryFault.SLVERR, MemoryFault.DECERR])
def test_memory_faults_are_reported_and_the_next_descriptor_runs(bench, tensor, fault):
    case = Case(np.random.default_rng(3), **(BACK if tensor.startswith("g") else BASE | {"shape": (1, 2, 9, 11)}))
    place = {item.name: item for item in case.tensors}[tensor]
    faults = [(place.address + place.bytes // 2, place.address + place.bytes // 2 + 1, fault)]
    (status, _), image, _ = run(bench, case, faults=faults, stall=0.2)
    if tensor == "gradient_2":
        assert status == Code.OK  # not read
    else:
        first = Code.WRITE_RANGE if tensor == "target" else Code.READ_RANGE
        assert status == first + fault - MemoryFault.RANGE
    target = case.tensors[-1]
    outside = np.delete(image, np.arange(target.address, target.address + target.bytes))
    assert (outside == np.delete(case.image, np.arange(target.address, target.address + target.bytes))).all()
    (status, _), image, _ = run(bench, case)
    assert status == Code.OK
    assert (image == case.expected()).all()


@pytest.mark.parametrize("after", [1, 5, 14, 20, 31, 44])
def test_a_reset_at_any_time_recovers(bench, after):
    case = Case(np.random.default_rng(5), **BACK)
    (status, _), _, _ = run(bench, case, limit=after)
    assert status is None
    (status, _), image, _ = run(bench, case)
    assert status == Code.OK
    assert (image == case.expected()).all()


def test_descriptors_follow_each_other_without_a_reset(bench):
    one, other = Case(np.random.default_rng(6), **BASE), Case(np.random.default_rng(6), **BACK)
    image = bytearray(one.image.tobytes())
    words = [word_of(one.item), word_of(descriptor(Kind.VECTOR)), word_of(other.item)]
    found = finish(run_descriptors(bench, words, UnitMemory(bench, random_memory(), image)))
    assert [status for status, _ in found] == [Code.OK, Code.BAD_SIZE, Code.OK]
    both = Program((one.item, other.item), ("layer",), tuple(one.tensors), {})
    assert (np.frombuffer(bytes(image), np.uint8) == execute(both, one.image)).all()
