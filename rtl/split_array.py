"""The array with its halves in other super logic regions than its sequencer: all that goes in and out is registered."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .array_parameters import ArrayParameters
from .column_foot import FootSequencer
from .edge_ports import late
from .emit import place
from .regions import across
from .sequencer import Sequencer, command_layout, store_layout
from .stce import Half, place_feet, place_heads, place_rows
from .uspe import address_bits
from .window_foot import WindowFootSequencer
from .window_sequencer import WindowSequencer


class LaneTimes(wiring.Component):
    """When rows and columns use a word, known without them: so many enabled cycles after the first.

    Ports
    -----
    en, ws : in, 1
    first : in, 2
        The first row uses its activations for the last time; the first column uses a word.
    last : out, 2
        The last ones do.
    columns : out, cut
        The columns before the cut use a word.
    """

    en: Signal
    ws: Signal
    first: Signal
    last: Signal
    columns: Signal

    def __init__(self, *, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        super().__init__({"en": In(1), "ws": In(1), "first": In(2), "last": Out(2), "columns": Out(parameters.cut)})

    def elaborate(self, platform: Any) -> Module:
        """The delays of row edges and column heads, a bit wide."""
        m = Module()
        p, take = self.parameters, self.first[0]
        for row in range(1, p.rows):
            hops = [take]
            for stage in range(p.adder_latency):
                hops.append(Signal(name=f"take{row}_{stage}"))
                m.d.sync += hops[-1].eq(hops[-2])
            take = Mux(self.ws, hops[p.adder_latency], hops[1])
        asks = [self.first[1]]
        for column in range(1, p.cut):
            asks.append(late(m, asks[-1], 1, f"ask{column}_"))
        last = late(m, asks[-1], p.cols - p.cut + p.hop, "last")
        m.d.comb += [self.columns.eq(Cat(asks)), self.last.eq(Cat(take, last))]
        return EnableInserter(self.en)(m)


class SplitArray(wiring.Component):
    """Does what :class:`.stce.Stce` does, its halves ``hop`` cycles later, where lanes run dry in order.

    Sequencer and clock enable stay in the region of the unit that has the array. Everything that they send to a half
    passes ``hop`` registers that no enable stops, the enable among them: a half is the same machine, ``hop`` cycles
    later, wherever operands run dry. So are the lanes of operands and the output columns beside it, if what they get
    passes as many registers. Words for the columns before the cut come from the sequencer's region. What the halves
    send back comes ``2 * hop`` cycles later than from an array in one region; the sequencer needs from them only how
    many outputs have left.

    The enable must not wait for an answer from a half. It goes by pointers of the first row's and the first column's
    lane: whoever fills the lanes gives a word to all of them in one cycle, and the others use it when the first one
    has, or later. Partial sums must be there when they are needed, and sums taken as they leave.

    Parameters
    ----------
    parameters : ArrayParameters
        With ``hop``.

    Ports
    -----
    command : in stream
        :func:`.sequencer.command_layout`.
    there : in, 2
        Row 0 has its activations, column 0 its word, if one counts what is on the way to the half as there.
    first, last : out, 2
        In this cycle row 0 is done with its activations, column 0 with its word, as far as the sequencer knows; the
        last row, the last column. In the halves that is ``hop`` cycles later.
    idle : out, 1
        No sequence runs and every word has left, as far as the sequencer knows.
    west, west_taken : in and out
        In the halves: activations of every row, as at ``Stce``; this is the last cycle of their use.
    north, north_taken : in and out
        A word of :func:`.stce.north_layout` for every column, likewise; before the cut as far as the sequencer knows.
    partial, partial_taken : in and out
        A sum for every column, likewise.
    south, south_valid : out
        In the halves: a sum of every column, offered for one cycle.
    """

    command: Any
    there: Signal
    first: Signal
    last: Signal
    idle: Signal
    west: Signal
    west_taken: Signal
    north: Signal
    north_taken: Signal
    partial: Signal
    partial_taken: Signal
    south: Signal
    south_valid: Signal

    def __init__(self, *, parameters: ArrayParameters) -> None:
        self.parameters = p = parameters
        sums = p.sum_bits * p.cols
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(p))),
                "there": In(2), "first": Out(2), "last": Out(2), "idle": Out(1),
                "west": In(16 * p.max_group * p.rows), "west_taken": Out(p.rows),
                "north": In((16 + address_bits(p.max_group)) * p.cols), "north_taken": Out(p.cols),
                "partial": In(sums), "partial_taken": Out(p.cols), "south": Out(sums), "south_valid": Out(p.cols),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The middle, the registers and the halves."""
        m = Module()
        p, en = self.parameters, Signal()
        sequencer: Any = place(m, platform, "sequencer", WindowSequencer if p.window else Sequencer, parameters=p)
        feet: Any = place(m, platform, "feet", WindowFootSequencer if p.window else FootSequencer, parameters=p)
        times: Any = place(m, platform, "times", LaneTimes, parameters=p)
        m.d.comb += [
            en.eq(~(Cat(sequencer.operation.need, sequencer.store.valid) & ~self.there).any()),
            sequencer.en.eq(en), sequencer.command.eq(self.command.payload),
            sequencer.command_valid.eq(self.command.valid), self.command.ready.eq(sequencer.command_take & en),
            self.idle.eq(sequencer.idle),
            times.en.eq(en), times.ws.eq(sequencer.ws),
            times.first.eq(Cat(sequencer.operation.take, sequencer.store.valid)),
            self.first.eq(times.first & en.replicate(2)), self.last.eq(times.last & en.replicate(2)),
        ]  # fmt: skip

        def west(value: Any, name: str) -> Value:
            return across(m, value, p.hop, f"west_{name}")

        halves = tuple(
            Half(across(m, en, p.hop, f"{name}_en"), across(m, sequencer.ws, p.hop, f"{name}_ws"))
            for name in ("west", "east")
        )
        ens = Cat(halves[p.half_of(c)].en for c in range(p.cols))
        led = SimpleNamespace(
            **{name: west(getattr(sequencer, name), name) for name in ("operation", "store", "load", "load_at")}
        )
        near = p.cut * (16 + address_bits(p.max_group))
        north = Cat(across(m, self.north[:near], p.hop, "west_north", payload=True), self.north[near:])
        heads = place_heads(m, platform, p, halves, data.View(store_layout(p), led.store).valid, north)
        words = Cat(Value.cast(head.word) for head in heads)
        rows = place_rows(m, platform, p, halves, led, self.west, words)
        last, ws = rows[-1], halves[0].ws
        m.d.comb += [
            feet.en.eq(halves[0].en), feet.keep.eq(west(sequencer.keep, "keep")),
            feet.drained.eq(west(sequencer.drained, "drained")), feet.last.eq(west(sequencer.drain_last, "last")),
            feet.arrive.eq(last.arrive & ws), feet.lane0.eq(last.lane0),
            feet.first.eq(Mux(ws, last.first, west(sequencer.drain_first, "first"))),
        ]  # fmt: skip
        needs, valids, outputs, left = place_feet(m, platform, p, halves, feet.control, last.c_o, self.partial)

        sent = Signal(p.cols)  # words that left while the array waits
        m.d.comb += [
            self.south.eq(outputs),
            self.south_valid.eq(valids & ~sent),
            self.partial_taken.eq(needs & ens),
            self.north_taken.eq(
                Cat(times.columns & en.replicate(p.cut), Cat(head.need_i for head in heads[p.cut :]) & ens[p.cut :])
            ),
            self.west_taken.eq(Cat(row.take for row in rows) & halves[0].en.replicate(p.rows)),
        ]
        m.d.sync += sent.eq((sent | valids) & ~ens)

        # Outputs that have left are heard of in enabled cycles, one in each.
        news, waiting = across(m, left & halves[1].en, p.hop, "news"), Signal(range(2 * p.hop + 2))
        m.d.comb += sequencer.retired.eq(news | (waiting != 0))
        m.d.sync += waiting.eq(waiting + news - (sequencer.retired & en))
        return m
