"""The product unit between memory ports: random descriptors against golden executor and cycle model, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.dataflow import program as fmt
from nmsat.dataflow.program import Descriptor, Kind, Program
from nmsat.models import Accelerator
from nmsat.rtl.emit import Emission
from nmsat.rtl.product.unit import ProductUnit
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators.bench import finish
from nmsat.rtl.simulators.cxxrtl import CxxrtlBench
from nmsat.rtl.testbench.ports import run_unit
from nmsat.rtl.testbench.products import random_products
from nmsat.rtl.testbench.unit_ports import RandomMemory, UnitMemory, run_descriptors
from nmsat.simulator import execute
from nmsat.simulator.machine.memory import DmaModel
from nmsat.simulator.machine.product import ProductModel
from nmsat.simulator.machine.product_plan import ProductSizes

# The window's elements hold four products, then sums spill; its column halves lie two registers apart. So do those of
# ``halves``; columns cannot be cut evenly.
MACHINES = {
    "fp32": Accelerator.load("sat_4x4"),
    "halves": Accelerator.load("sat_4x4").replace(rows=2, cols=3, max_keep=2, max_group=4, slr_hop_cycles=2),
    "halves, one apart": Accelerator.load("sat_4x4").replace(rows=3, max_keep=3, max_group=4, slr_hop_cycles=1),
    "window": Accelerator.load("sat_4x4").replace(
        accumulator="window", window_bits=52, rows=3, cols=2, max_keep=4, max_group=8, slr_hop_cycles=2
    ),
    "window, one apart": Accelerator.load("sat_4x4").replace(
        accumulator="window", window_bits=52, rows=2, cols=3, max_keep=4, max_group=8, slr_hop_cycles=1
    ),
}
READS, WRITES = ("a", "b", "indices", "masks"), ("c", "bits")
CLIENTS = {"reads": list(READS), "writes": list(WRITES)}


@pytest.fixture(scope="module")
def benches():
    """The unit by accumulator, built when it is asked for."""
    built = {}

    def bench(name):
        if name not in built:
            built[name] = CxxrtlBench(Emission().emit(ProductUnit.from_accelerator(MACHINES[name]), "product"))
        return built[name]

    return bench


def encoded(item: Descriptor) -> bytes:
    return Program((item,), ("layer",), (), {}).encode()[-512:-256]


def run(bench, descriptors, image, **options):
    words = [encoded(item).hex() for item in descriptors]
    found = finish(run_unit(bench, descriptors=words, image=image.tobytes().hex(), **CLIENTS, **options))
    return np.frombuffer(bytes.fromhex(found["image"]), np.uint8), found["status"]


@pytest.mark.parametrize("seed", range(3))
def test_random_products_equal_the_executor(benches, seed):
    program, image = random_products(MACHINES["fp32"], 12, seed)
    after, status = run(benches("fp32"), program.descriptors, image, latency=(1, 10, 80)[seed])
    assert status == [Code.OK] * 12
    wanted = execute(program, image)
    for item in program.tensors:
        part = slice(item.address, item.address + item.bytes)
        assert np.array_equal(after[part], wanted[part]), item.name
    assert np.array_equal(after, wanted)


def dma_of(machine):
    return DmaModel.of(machine, READS, WRITES)


def pausing_memory(machine):
    """Ports that pause in two of five cycles: operands run dry inside a tile, results wait."""
    return RandomMemory(READS, WRITES, machine.axi_data_bits // 8, latency=25, stall=0.4, seed=11)


def modelled(machine, program, memory=dma_of):
    """Cycles of each product: the unit's model on the memory's."""
    dma = memory(machine)
    ports = [dma.readers[name] for name in READS] + [dma.writers[name] for name in WRITES]
    unit, found = ProductModel(ProductSizes.of(machine), *ports), []
    for item in program.descriptors:
        unit.start(item)
        for cycle in range(50_000):
            unit.take_done = done = unit.done
            unit.step()
            dma.step()
            if done:
                found.append(cycle)
                break
    return found


@pytest.mark.parametrize(
    ("name", "seed", "memory"),
    [
        ("fp32", 3, dma_of), ("halves", 5, dma_of), ("halves", 8, pausing_memory),
        *(
            pytest.param(name, seed, memory, marks=pytest.mark.slow)
            for name, seed in (("window", 4), ("window", 6), ("halves, one apart", 1), ("window, one apart", 7))
            for memory in (dma_of, pausing_memory)
        ),
    ],
)  # fmt: skip
def test_random_products_equal_executor_and_model(benches, name, seed, memory):
    machine = MACHINES[name]
    program, image = random_products(machine, 12, seed)
    after = bytearray(image.tobytes())
    ports = UnitMemory(benches(name), memory(machine), after)
    words = [int.from_bytes(encoded(item), "little") for item in program.descriptors]
    found = finish(run_descriptors(benches(name), words, ports))
    assert [status for status, _ in found] == [Code.OK] * 12
    assert np.array_equal(np.frombuffer(after, np.uint8), execute(program, image))
    assert [cycles for _, cycles in found] == modelled(machine, program, memory)


@pytest.mark.parametrize("hop", [1, 2, 5])
@pytest.mark.parametrize("name", ["fp32", "window"])
@pytest.mark.parametrize("mode", [fmt.Mode.OS, fmt.Mode.WS])
def test_what_a_tile_costs_with_halves_in_other_regions(name, mode, hop):
    """East across the cut; there and back, to say that the bank is full; there and back, and a queue, to read it."""
    machine = MACHINES[name]
    ws = {"mode": fmt.Mode.WS, "k_tile": machine.rows, "m_chunk": machine.rows, "interleave": 1}
    item = changed(simple(name), m=machine.rows, n=machine.cols, **(ws if mode is fmt.Mode.WS else {}))
    program = Program((item,), ("layer",), (), {})

    def ideal(machine):
        return RandomMemory(READS, WRITES, machine.axi_data_bits // 8)

    whole, cut = (modelled(machine.replace(slr_hop_cycles=cycles), program, ideal) for cycles in (0, hop))
    assert cut[0] - whole[0] == hop + 2 * hop + 2 * hop + 1


def test_the_window_s_products_spill_in_both_dataflows():
    """What the cases above are: OS tiles that continue sums, WS, results that leave as binary32 and through the epilogue."""
    items = [item for seed in (4, 6) for item in random_products(MACHINES["window"], 12, seed)[0].descriptors]
    spilled = [item for item in items if item["mode"] == fmt.Mode.OS and item["k_tile"]]
    assert {item.flag(fmt.OUT_FP32) for item in spilled} == {False, True}
    assert {item.flag(fmt.OUT_FP32) for item in items if item["mode"] == fmt.Mode.WS} == {False, True}
    assert len(spilled) > 10


def changed(item: Descriptor, **fields: int) -> Descriptor:
    return Descriptor(item.kind, item.fields | fields)


def simple(name: str) -> Descriptor:
    """A dense product of 6 x 4 and 4 x 8 elements."""
    legal = fmt.descriptor(
        Kind.PRODUCT, m=6, n=8, kc=4, taps_y=1, taps_x=1, count=1, keep=1, group=1, interleave=2, block=1, m_chunk=6,
        n_chunk=4, images=1, in_h=6, in_w=1, in_c=4, a_pixel=4, out_h=6, out_w=1, step_y=1, step_x=1, tap_step_y=1,
        tap_step_x=1, b_step_y=1, b_step_x=1, b_taps_x=1, b_stride_tap=4, b_stride_k=1, b_stride_n=4, c_step_y=1,
        c_step_x=1, c_h=6, c_w=1, c_stride_m=8, c_stride_n=1, inner=1, a_address=0, b_address=512, c_address=1024,
        mask_address=2048,
    )  # fmt: skip
    return changed(legal, window_lsb=33, interleave=1) if name == "window" else legal


@pytest.mark.slow
def test_a_window_s_sum_is_rounded_once(benches):
    """1 + 2^-11 + 2^-30 is just above the middle of two binary16 numbers, which is what binary32 would make of it."""
    image = np.zeros(4096, np.uint8)
    image[:8] = np.array([1, 2.0**-11, 2.0**-15, 0], np.float16).view(np.uint8)
    image[512:520] = np.array([1, 1, 2.0**-15, 0], np.float16).view(np.uint8)
    item = changed(simple("window"), m=1, n=1, in_h=1, out_h=1, c_h=1)
    after, status = run(
        benches("window"), [item, changed(item, flags=fmt.OUT_FP32, c_address=1028, k_tile=2)], image, limit=3000
    )
    assert status == [Code.OK] * 2
    assert after[1024:1026].view(np.float16) == 1 + 2.0**-10
    assert after[1028:1032].view(np.float32) == 1 + 2.0**-11


REFUSED = [
    ({"keep": 0}, Code.BAD_PATTERN), ({"keep": 9, "group": 16}, Code.BAD_PATTERN), ({"group": 6}, Code.BAD_PATTERN),
    ({"group": 32}, Code.BAD_PATTERN), ({"keep": 4, "group": 2}, Code.BAD_PATTERN),
    ({"mode": 2}, Code.BAD_FIELD), ({"interleave": 0}, Code.BAD_FIELD), ({"interleave": 9}, Code.BAD_FIELD),
    ({"k_tile": 4}, Code.BAD_FIELD), ({"block": 0}, Code.BAD_FIELD), ({"mode": 1}, Code.BAD_FIELD),
    ({"mode": 1, "interleave": 1, "k_tile": 8}, Code.BAD_FIELD), ({"reserved": 1}, Code.BAD_FIELD),
    ({"m": 0}, Code.BAD_SIZE), ({"n": 0}, Code.BAD_SIZE), ({"kc": 0}, Code.BAD_SIZE), ({"count": 0}, Code.BAD_SIZE),
    ({"inner": 0}, Code.BAD_SIZE), ({"images": 1 << 31}, Code.BAD_SIZE), ({"m": 1 << 24}, Code.BAD_SIZE),
    ({"taps_y": 0}, Code.BAD_SIZE), ({"out_h": 7}, Code.BAD_SIZE), ({"in_c": 7}, Code.BAD_SIZE),
    ({"c_h": 0}, Code.BAD_SIZE), ({"c_first_x": 9}, Code.BAD_SIZE),
    ({"mode": 1, "interleave": 1, "k_tile": 4, "m_chunk": 0}, Code.BAD_SIZE),
    ({"mode": 1, "interleave": 1, "k_tile": 4, "m_chunk": 1 << 20}, Code.BAD_SIZE),
    ({"a_address": 4097}, Code.BAD_ALIGNMENT), ({"b_address": 3}, Code.BAD_ALIGNMENT),
    ({"c_address": 4098, "flags": fmt.OUT_FP32}, Code.BAD_ALIGNMENT),
    ({"flags": fmt.ONLINE_PRUNE}, Code.UNSUPPORTED),
    ({"flags": fmt.NO_VALUES}, Code.UNSUPPORTED), ({"flags": 1 << 15}, Code.UNSUPPORTED),
    ({"window_lsb": 33}, Code.UNSUPPORTED), ({"c_stride_n": 3}, Code.UNSUPPORTED),
    ({"flags": fmt.WRITE_MASK | fmt.RELU, "n": 7}, Code.UNSUPPORTED),
]  # fmt: skip


REFUSED_WINDOW = [
    ({"window_lsb": 0}, Code.UNSUPPORTED), ({"window_lsb": 32}, Code.UNSUPPORTED), ({"interleave": 2}, Code.BAD_FIELD),
    ({"k_tile": 5}, Code.BAD_FIELD), ({"k_tile": 1 << 16 | 1}, Code.BAD_FIELD),
    ({"k_tile": 0, "kc": 5, "in_c": 5}, Code.BAD_FIELD), ({"k_tile": 2, "keep": 4, "group": 4, "kc": 16, "in_c": 16}, Code.BAD_FIELD),
    ({"mode": 1, "k_tile": 4}, Code.BAD_FIELD),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "table"), [("fp32", REFUSED), pytest.param("window", REFUSED_WINDOW, marks=pytest.mark.slow)]
)
def test_what_it_does_not_execute_is_refused_with_a_code(benches, name, table):
    legal = simple(name)
    image = np.random.default_rng(0).integers(0, 256, 8192).astype(np.uint8)
    items = [changed(legal, **fields) for fields, _ in table]
    after, status = run(benches(name), [*items, legal], image, limit=3000)
    assert [Code(code) for code in status] == [*(code for _, code in table), Code.OK]
    assert np.array_equal(np.delete(after, slice(1024, 1024 + 96)), np.delete(image, slice(1024, 1024 + 96)))
