"""Descriptors from memory ahead of their turn."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.program import DESCRIPTOR_BYTES
from .descriptor import DESCRIPTOR_BITS
from .memory_port import QUEUE, ReadClient
from .stream import require

ITEM = data.StructLayout({"descriptor": DESCRIPTOR_BITS, "error": 2})
"""A descriptor and the worst fault of reading it (:class:`.memory_port.MemoryFault`)."""


class Fetcher(wiring.Component):
    """Reads a program's descriptors in order, at most ``ahead`` of them before their turn.

    One register holds the next descriptor; those behind it wait as words in the fetch port, whose buffer has room for
    them anyway. A fault is handed on with the descriptor it belongs to. Nothing is asked for beyond ``limit``.

    Parameters
    ----------
    data_bits : int
        Of the fetch port.
    ahead : int
        Descriptors asked for and not yet taken, 1 to ``QUEUE``: so many requests the port takes at once, so that a
        request is never withdrawn.

    Ports
    -----
    go : in, 1
        High during a run, from whose first cycle on descriptors are asked for. While low, words that still come are
        dropped.
    program, limit : in, 64 and 32
        Address of the first descriptor; how many may be asked for. Looked at while ``go`` is low.
    item : out, stream of ITEM
    fetch : out, :class:`.memory_port.ReadClient`
        Addresses are absolute.
    """

    def __init__(self, *, data_bits: int, ahead: int) -> None:
        self.data_bits = require("fetcher", "data_bits", data_bits, 32, DESCRIPTOR_BITS)
        self.ahead = require("fetcher", "ahead", ahead, 1, QUEUE)
        super().__init__({
            "go": In(1), "program": In(64), "limit": In(32),
            "item": Out(stream.Signature(ITEM)), "fetch": Out(ReadClient(data_bits)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        fetch, item = self.fetch, self.item
        address, left = Signal(64), Signal(32)
        pending = Signal(range(self.ahead + 1))  # descriptors asked for and not yet taken
        worst, error = Signal(2), Signal(2)
        asks, takes, comes = Signal(), Signal(), Signal()
        word = fetch.words.payload
        m.d.comb += [
            fetch.request.payload.address.eq(address), fetch.request.payload.bytes.eq(DESCRIPTOR_BYTES),
            fetch.request.valid.eq(self.go & (pending != self.ahead) & (left != 0)),
            asks.eq(fetch.request.valid & fetch.request.ready),
            takes.eq(item.valid & item.ready),
            fetch.words.ready.eq(~item.valid | ~self.go),
            comes.eq(fetch.words.valid & fetch.words.ready),
            error.eq(Mux(word.error > worst, word.error, worst)),
        ]  # fmt: skip
        m.d.sync += pending.eq(pending + asks - takes)
        with m.If(asks):
            m.d.sync += [address.eq(address + DESCRIPTOR_BYTES), left.eq(left - 1)]
        with m.If(takes):
            m.d.sync += item.valid.eq(0)
        with m.If(comes):
            text = item.payload.descriptor
            m.d.sync += [
                text.eq(Cat(text[self.data_bits :], word.data) if len(text) > self.data_bits else word.data),
                item.payload.error.eq(error), worst.eq(Mux(word.last, 0, error)), item.valid.eq(word.last),
            ]  # fmt: skip
        with m.If(~self.go):
            m.d.sync += [address.eq(self.program), left.eq(self.limit), pending.eq(0), item.valid.eq(0)]
        return m
