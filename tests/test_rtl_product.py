"""The product unit between memory ports: random descriptors against the golden executor, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.dataflow import program as fmt
from nmsat.dataflow.program import Descriptor, Kind, Program
from nmsat.models import Accelerator
from nmsat.rtl.product.unit import ProductUnit
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.ports import run_unit
from nmsat.rtl.testbench.products import random_products
from nmsat.simulator import execute

ACCELERATOR = Accelerator.load("sat_4x4")
CLIENTS = {"reads": ["a", "b", "indices", "masks"], "writes": ["c", "bits"]}


def encoded(item: Descriptor) -> str:
    return Program((item,), ("layer",), (), {}).encode()[-512:-256].hex()


def run(descriptors, image, **options):
    arguments = {"descriptors": [encoded(item) for item in descriptors], "image": image.tobytes().hex(), **CLIENTS}
    found = run_bench(ProductUnit.from_accelerator(ACCELERATOR), "product", run_unit, arguments | options)
    return np.frombuffer(bytes.fromhex(found["image"]), np.uint8), found["status"]


@pytest.mark.parametrize("seed", range(3))
def test_random_products_equal_the_executor(seed):
    program, image = random_products(ACCELERATOR, 12, seed)
    after, status = run(program.descriptors, image, latency=(1, 10, 80)[seed])
    assert status == [Code.OK] * 12
    wanted = execute(program, image)
    for item in program.tensors:
        part = slice(item.address, item.address + item.bytes)
        assert np.array_equal(after[part], wanted[part]), item.name
    assert np.array_equal(after, wanted)


def changed(item: Descriptor, **fields: int) -> Descriptor:
    return Descriptor(item.kind, item.fields | fields)


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


def test_what_it_does_not_execute_is_refused_with_a_code():
    legal = fmt.descriptor(
        Kind.PRODUCT, m=6, n=8, kc=4, taps_y=1, taps_x=1, count=1, keep=1, group=1, interleave=2, block=1, m_chunk=6,
        n_chunk=4, images=1, in_h=6, in_w=1, in_c=4, a_pixel=4, out_h=6, out_w=1, step_y=1, step_x=1, tap_step_y=1,
        tap_step_x=1, b_step_y=1, b_step_x=1, b_taps_x=1, b_stride_tap=4, b_stride_k=1, b_stride_n=4, c_step_y=1,
        c_step_x=1, c_h=6, c_w=1, c_stride_m=8, c_stride_n=1, inner=1, a_address=0, b_address=512, c_address=1024,
        mask_address=2048,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, 8192).astype(np.uint8)
    items = [changed(legal, **fields) for fields, _ in REFUSED]
    after, status = run([*items, legal], image, limit=3000)
    assert [Code(code) for code in status] == [*(code for _, code in REFUSED), Code.OK]
    assert np.array_equal(np.delete(after, slice(1024, 1024 + 96)), np.delete(image, slice(1024, 1024 + 96)))
