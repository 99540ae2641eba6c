"""Ports that every kind of row edge has, and delays."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, Value

from .array_parameters import ArrayParameters
from .sequencer import operation_layout, store_layout
from .uspe import address_bits


def edge_inputs(p: ArrayParameters) -> dict[str, Any]:
    """Inputs of a row edge that are a row's, too: shape by name."""
    return {
        "en": 1, "ws": 1, "number": address_bits(p.rows),
        "operation_i": operation_layout(p), "store_i": store_layout(p),
        "load": 1, "load_at": address_bits(p.max_interleave), "payload": 16 * p.max_group,
    }  # fmt: skip


def edge_outputs(p: ArrayParameters) -> dict[str, Any]:
    """Outputs of a row edge that are a row's, too: shape by name."""
    return {
        "operation_o": operation_layout(p), "store_o": store_layout(p), "need": 1, "take": 1,
        "arrive": 1, "lane0": 1, "first": 1,
    }  # fmt: skip


def late(m: Module, value: Any, cycles: int, name: str) -> Value:
    """``value`` as it was ``cycles`` enabled cycles ago, through registers with reset."""
    found = Value.cast(value)
    for stage in range(cycles):
        register = Signal(len(found), name=f"{name}{stage}")
        m.d.sync += register.eq(found)
        found = register
    return found
