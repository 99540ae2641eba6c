"""The program format: one bit layout, encode and decode are inverse, damage is noticed."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.dataflow import compile_program
from nmsat.dataflow.lowering import kept_layers
from nmsat.dataflow.program import (
    APPLY_MASK,
    DTYPES,
    FORWARDED_A,
    FUNCTIONS,
    RELU,
    WRITE_MASK,
    Kind,
    Program,
    Stage,
    Tensor,
    descriptor,
    field_names,
    functions_of,
)
from nmsat.models import Accelerator, NmsatError, Workload
from nmsat.models.workload import Function


def values(kind: Kind):
    """Any value of every field."""
    ranges = {}
    for name in field_names(kind):
        if name == "kind":
            continue
        dtype = DTYPES[kind][name]
        bits = 8 * dtype.itemsize
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.kind == "i" else (0, (1 << bits) - 1)
        ranges[name] = st.integers(low, high)
    return st.fixed_dictionaries(ranges).map(lambda fields: descriptor(kind, **fields))


anything = st.sampled_from([kind for kind in Kind if kind is not Kind.END]).flatmap(values)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(anything, max_size=5))
def test_decode_inverts_encode(items):
    program = Program(tuple(items), ("a", "b"), (Tensor("x", 4096, 12, "float32", (3,)),), {"batch": 1, "name": "ü"})
    data = program.encode()
    assert len(data) % 256 == 0
    assert Program.decode(data) == program
    assert Program.decode(data).encode() == data


def test_every_descriptor_is_256_bytes():
    assert {dtype.itemsize for dtype in DTYPES.values()} == {256}
    for kind, dtype in DTYPES.items():
        assert dtype.names[:6] == ("kind", "stage", "flags", "layer", "chain", "beside"), kind


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(OverflowError):
        Program((descriptor(Kind.PRODUCT, keep=256),), (), (), {}).encode()
    with pytest.raises(KeyError, match="PRODUCT has no field 'nope'"):
        descriptor(Kind.PRODUCT, nope=1)


@pytest.fixture(scope="module")
def encoded() -> bytes:
    return compile_program(Workload.load("digits-mlp"), Accelerator.load("sat_4x4"), batch=16).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: b"", r"^p: must begin with NMSATPRG; this is not an nmsat program$"),
        (lambda d: b"x" + d[1:], r"^p: must begin with NMSATPRG"),
        (lambda d: d[:8] + b"\x01" + d[9:], r"^p: version: must be 2, not 1$"),
        (lambda d: d[:-1], r"^p: length: must be \d+ bytes as its header says, not \d+$"),
        (lambda d: d[:-1] + b"\x01", r"^p: crc32: must match the content; the file is damaged$"),
    ],
)
def test_damage_is_noticed(encoded, damage, message):
    with pytest.raises(NmsatError, match=message):
        Program.decode(damage(encoded), "p")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_random_bytes_never_crash_the_decoder(encoded, data):
    place = data.draw(st.integers(0, len(encoded) - 1))
    mutated = bytearray(encoded)
    mutated[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NmsatError):
        Program.decode(bytes(mutated))


def test_readable_form_names_everything(encoded):
    program = Program.decode(encoded)
    shown = json.loads(json.dumps(program.readable()))
    assert shown["format"] == "nmsat-program/1"
    assert {item["kind"] for item in shown["descriptors"]} == {"product", "update", "host"}
    first = shown["descriptors"][0]
    assert (first["layer"], first["stage"], first["mode"] in ("os", "ws")) == ("fc1", "ff", True)
    assert functions_of((1 << len(FUNCTIONS)) - 1) == list(FUNCTIONS)


def test_every_elementwise_function_has_its_bit():
    assert (*get_args(Function), "statistics") == FUNCTIONS


def test_tensors_do_not_overlap(encoded):
    tensors = sorted(Program.decode(encoded).tensors, key=lambda item: item.address)
    for before, after in pairwise(tensors):
        assert before.address + before.bytes <= after.address
    assert all(item.address % 4096 == 0 for item in tensors)


def test_equal_inputs_give_equal_bytes(encoded):
    again = compile_program(Workload.load("digits-mlp"), Accelerator.load("sat_4x4"), batch=16).encode()
    assert again == encoded


def test_layers_share_the_tensors_along_the_network_s_edges():
    """What one product writes the next reads, ReLU and mask in the epilogue; gradients flow back the same way."""
    program = compile_program(Workload.load("digits-mlp"), Accelerator.load("sat_4x4"), batch=16)
    products = [item for item in program.descriptors if item.kind is Kind.PRODUCT]
    forward = [item for item in products if item["stage"] == Stage.FF]
    backward = [item for item in products if item["stage"] == Stage.BP]
    update = [item for item in products if item["stage"] == Stage.WU]
    assert (len(forward), len(backward), len(update)) == (4, 3, 4)
    for before, after in pairwise(forward):
        assert before["c_address"] == after["a_address"]
    for before, after in pairwise(backward):
        assert before["c_address"] == after["a_address"]
    assert [item["a_address"] for item in update] == [item["a_address"] for item in reversed(forward)]
    assert [item["b_address"] for item in update[:3]] == [item["a_address"] for item in backward]
    assert [item.flag(RELU) and item.flag(WRITE_MASK) for item in forward] == [True, True, True, False]
    assert all(item.flag(APPLY_MASK) for item in backward)
    masks = [item["mask_address"] for item in forward[:3]]
    assert [item["mask_address"] for item in backward] == masks[::-1]
    inference = compile_program(Workload.load("digits-mlp"), Accelerator.load("sat_4x4"), batch=16, mode="infer")
    assert not any(item.flag(WRITE_MASK) for item in inference.descriptors)


def test_a_residual_branch_is_kept_and_read_where_it_is_named():
    net, sat = Workload.load("resnet18"), Accelerator.load("sat")
    program = compile_program(net, sat, batch=2)
    tensors = {item.name: item.address for item in program.tensors}
    at = {net.layers[item["layer"]].name: item for item in program.descriptors if item["stage"] == Stage.FF}
    assert (
        at["layer2.0.conv1"]["a_address"] == at["layer2.0.downsample"]["a_address"] == tensors["layer1.1.conv2.relu.y"]
    )
    assert at["layer2.0.downsample"].flag(FORWARDED_A)
    assert not at["layer2.0.conv1"].flag(FORWARDED_A)  # the pass before it belongs to the downsample branch
    assert "silu" not in " ".join(kept_layers(net))
    assert "block1.dw.silu" in kept_layers(Workload.load("efficientnet_b0"))
