"""Descriptor layouts of the hardware against the encoder of programs."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Shape
from amaranth.lib import data

from nmsat.dataflow.program import DTYPES, Descriptor, Kind, Program, field_names
from nmsat.rtl.descriptor import DESCRIPTOR_BITS, descriptor_layout


@pytest.mark.parametrize("kind", list(Kind))
def test_layout_reads_what_the_encoder_writes(kind):
    numbers = np.random.default_rng(int(kind))
    layout = descriptor_layout(kind)
    assert layout.size == DESCRIPTOR_BITS == 2048
    for _ in range(20):
        fields = {}
        for name in field_names(kind):
            limits = np.iinfo(DTYPES[kind][name])
            value = int(numbers.integers(limits.min, limits.max, dtype=DTYPES[kind][name].type, endpoint=True))
            fields[name] = int(kind) if name == "kind" else value
        program = Program((Descriptor(kind, fields),), ("a",), (), {})
        body = program.encode()[-512:-256]
        word = data.Const(layout, int.from_bytes(body, "little"))
        for name, value in fields.items():
            field = word[name]
            shape = layout[name].shape
            assert int(field) == value, name
            assert Shape.cast(shape).signed == (np.iinfo(DTYPES[kind][name]).min < 0)
