"""Which descriptors may work together: what they touch, and every schedule that hardware may choose gives the same values."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.commands.cosim_task import network_task
from nmsat.dataflow import Options, compile_program, overlap
from nmsat.dataflow import program as fmt
from nmsat.dataflow.overlap import address_fields, with_overlap
from nmsat.dataflow.program import Kind, Program, Stage, Tensor, descriptor, steps_number
from nmsat.models import Accelerator, Workload
from nmsat.simulator.executor import execute, image, load_tensors, new_image

COUNT, HALVES = 16, 6
SMALL = Accelerator.load("sat_4x4")


def drawn(seed: int) -> Program:
    """Additions, products, updates and host steps between a few tensors, any of which any may read or write."""
    rng, items = random.Random(seed), []
    tensors = [Tensor(f"h{k}", 64 * k, 2 * COUNT, "float16", (COUNT,)) for k in range(HALVES)]
    floats = [Tensor(f"f{k}", 4096 + 64 * k, 4 * COUNT, "float32", (COUNT,)) for k in range(3)]
    rule = Tensor("rule", 8192, 20, "float32", (5,))
    ones = "taps_y taps_x count keep group block inner images in_h out_h step_y step_x tap_step_y tap_step_x b_step_y"
    ones += " b_step_x b_taps_x interleave b_stride_n c_step_y c_step_x c_h c_stride_n"
    fours = "m n kc in_w in_c a_pixel out_w b_stride_k c_w c_stride_m"
    square = dict.fromkeys(ones.split(), 1) | dict.fromkeys(fours.split(), 4)
    for _ in range(rng.randint(2, 9)):
        a, b, c = (rng.choice(tensors).address for _ in range(3))
        kind = rng.choice((Kind.VECTOR, Kind.PRODUCT, Kind.PRODUCT, Kind.UPDATE, Kind.UPDATE, Kind.HOST))
        if kind is Kind.PRODUCT:
            out = rng.random() < 0.4
            target = rng.choice(floats).address if out else c
            flags = fmt.OUT_FP32 if out else 0
            item = descriptor(kind, **square, flags=flags, a_address=a, b_address=b, c_address=target)
        elif kind is Kind.UPDATE:
            w, v, g = rng.sample([x.address for x in floats], 3)
            item = descriptor(
                kind, flags=fmt.OUT_FP32, out_channels=4, taps=1, in_channels=4, groups=1, w32_address=w, v32_address=v,
                gradient_address=g, w16_address=c, rule_address=rule.address,
            )  # fmt: skip
        else:
            item = descriptor(
                kind, stage=Stage.FF, steps=steps_number(["add"]), images=1, h=1, w=1, c=COUNT, source_address=a,
                second_address=b, target_address=c,
            )  # fmt: skip
        items.append(item)
    return with_overlap(Program(tuple(items), ("layer",), (*tensors, *floats, rule), {}))


def started(program: Program, seed: int) -> np.ndarray:
    found = new_image(program)
    rng = np.random.default_rng(seed)
    for item in program.tensors:
        values = rng.normal(size=item.bytes // np.dtype(item.dtype).itemsize).astype(item.dtype)
        if item.name == "rule":
            values = np.array([0.5, 0.5, 0.0, 0.0, 1.0], np.float32)
        found[item.address : item.address + item.bytes] = values.view(np.uint8)
    return found


def scheduled(program: Program, memory: np.ndarray, seed: int) -> np.ndarray:
    """Started in order as ``beside`` allows, each done wholly when it starts or when it ends."""
    rng, waiting = random.Random(seed), list(program.descriptors)
    at_work: dict[Kind, bool] = {}  # and whether its values are still to come
    items: dict[Kind, object] = {}

    def run(item):
        return execute(replace(program, descriptors=(item,)), memory)

    while waiting or at_work:
        head = waiting[0] if waiting else None
        alone = head is not None and head.kind is Kind.HOST
        free = head is not None and all(
            kind is not head.kind and not alone and head["beside"] >> kind & 1 for kind in at_work
        )
        if free and (not at_work or rng.random() < 0.7):
            waiting.pop(0)
            late = rng.random() < 0.5 and not alone
            if not late:
                memory = run(head)
            if not alone:
                at_work[head.kind], items[head.kind] = late, head
        else:
            kind = rng.choice(list(at_work))
            if at_work.pop(kind):
                memory = run(items[kind])
    return memory


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**9))
def test_every_schedule_gives_the_values_of_the_order(seed):
    program = drawn(seed)
    memory = started(program, seed)
    wanted = execute(program, memory)
    for order in range(4):
        assert (scheduled(program, memory, order) == wanted).all(), seed


@pytest.mark.parametrize(
    "meets",
    [
        lambda mine, other: bool(mine.writes & (other.reads | other.writes)),
        lambda mine, other: bool(mine.writes & other.writes or mine.reads & other.writes),
        lambda mine, other: bool(mine.writes & other.reads or mine.reads & other.writes),
    ],
    ids=["read after write", "write after read", "write after write"],
)
def test_a_kind_of_hazard_left_out_is_seen(monkeypatch, meets):
    monkeypatch.setattr(overlap._Use, "meets", meets)
    for seed in range(200):
        program = drawn(seed)
        memory = started(program, seed)
        wanted = execute(program, memory)
        if any((scheduled(program, memory, order) != wanted).any() for order in range(4)):
            return
    raise AssertionError("no difference")


@pytest.mark.parametrize("method", ["dense", "bdwp", "sdgp"])
@pytest.mark.parametrize("network", ["digits-mlp", "digits-cnn"])
def test_a_descriptor_touches_what_is_declared(monkeypatch, network, method):
    options = {"method": method, "sparsity": "2:8", "batch": 4, "options": Options()}
    task = network_task(Workload.load(network), SMALL, 1, **options)
    program, memory = task.program, task.image.copy()
    load_tensors(program, memory, task.inputs[0])
    tensors = sorted(program.tensors, key=lambda item: item.address)
    starts, touched = [item.address for item in tensors], set()

    def named(address):
        return tensors[bisect_right(starts, address) - 1].name

    inside = image.Memory.at
    monkeypatch.setattr(
        image.Memory, "at", lambda self, address, dtype: touched.add(named(address)) or inside(self, address, dtype)
    )
    for item in program.descriptors:
        if item.kind is Kind.HOST:
            memory = execute(replace(program, descriptors=(item,)), memory)
            continue
        reads, writes = ({named(item[name]) for name in names} for names in address_fields(item))
        touched.clear()
        after = execute(replace(program, descriptors=(item,)), memory)
        changed = {x.name for x in tensors if (after != memory)[x.address : x.address + x.bytes].any()}
        assert changed <= writes, item
        assert touched <= reads | writes, item
        memory = after


def test_updates_work_beside_the_products_of_the_layer_before():
    program = compile_program(Workload.load("digits-mlp"), SMALL, method="bdwp", sparsity="2:8", batch=16)
    items = program.descriptors
    after = [(a, b) for a, b in pairwise(items) if a.kind is Kind.UPDATE]
    assert len(after) == 3
    for update, product in after:
        assert product.kind is Kind.PRODUCT
        assert product["beside"] >> Kind.UPDATE & 1
        assert not update["beside"] >> Kind.PRODUCT & 1  # its gradient is that product's
    assert all(item["beside"] == 0 for item in items if item.kind is Kind.HOST)


def test_programs_without_the_field_keep_their_order():
    item = descriptor(Kind.PRODUCT, layer=0)
    outside = Program((item, item), ("layer",), (), {})
    assert [found["beside"] for found in with_overlap(outside).descriptors] == [0, 0]
