"""Descriptors as hardware sees them: layouts made from :mod:`nmsat.dataflow.program`, which alone defines the bits."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

from ..dataflow.program import DESCRIPTOR_BYTES, DTYPES, Kind

DESCRIPTOR_BITS = 8 * DESCRIPTOR_BYTES


def descriptor_layout(kind: Kind) -> data.StructLayout:
    """Layout of a kind's descriptor, ``DESCRIPTOR_BITS`` wide, byte 0 lowest.

    Fields have the names of ``DTYPES``, padding included (``_pad``, ``_spare``); signed fields are signed.
    """
    record: Any = DTYPES[kind]
    found: dict[str, Shape] = {}
    bits = 0
    for name in record.names:
        field, offset = record.fields[name][:2]
        if 8 * offset != bits:
            raise AssertionError(f"{kind.name}.{name}: begins at bit {8 * offset}, not {bits}")
        width = 8 * field.itemsize
        found[name] = signed(width) if field.base.kind == "i" and not field.shape else unsigned(width)
        bits += width
    layout = data.StructLayout(found)
    if layout.size != DESCRIPTOR_BITS:
        raise AssertionError(f"{kind.name}: {layout.size} bits, not {DESCRIPTOR_BITS}")
    return layout
