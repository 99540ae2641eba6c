"""STCE, the array: R x C elements, the edges that feed them in step, the column feet and the sequencer."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..models.accelerator import Accelerator
from .arithmetic.fp16_multiplier import OPERAND_BITS, normalise_operand
from .array_parameters import ArrayParameters
from .column_foot import ColumnFoot, FootSequencer, foot_layout
from .emit import place
from .sequencer import Sequencer, command_layout, operation_layout, store_layout
from .uspe import Uspe, address_bits, control_layout, weight_layout


def lanes(width: int, count: int) -> wiring.Signature:
    """``count`` streams side by side: lane i has payload bits ``[i * width, (i + 1) * width)``, valid and ready i.

    Each lane keeps the rules of ``amaranth.lib.stream`` by itself.
    """
    return wiring.Signature({"payload": Out(width * count), "valid": Out(count), "ready": In(count)})


def _late(m: Module, value: Any, cycles: int, name: str) -> Value:
    found = Value.cast(value)
    for stage in range(cycles):
        register = Signal(len(found), name=f"{name}{stage}")
        m.d.sync += register.eq(found)
        found = register
    return found


class RowEdge(wiring.Component):
    """West edge of a row: delays the micro-operation to the next row, assembles the element's control word.

    The operation reaches the next row 1 cycle later in OS, La in WS; weight words 1 cycle later in both.

    Ports
    -----
    en, ws : in, 1
    number : in
        This row.
    operation_i, operation_o, store_i, store_o : in and out
        See :mod:`.sequencer`.
    load, load_at : in
        Drain chains load, the same cycle in all rows.
    payload : in, 16 * max_group
        Activations, binary16.
    need, take : out, 1
        The activations are needed now; this is the last cycle in which they are.
    group : out
        The activations as operands.
    control : out
        For the row's first element.
    arrive, lane0, first : out, 1
        Operation's share of the column foot, when the sum of this row, were it the last, is at the foot.
    """

    en: Signal
    ws: Signal
    number: Signal
    operation_i: Any
    operation_o: Any
    store_i: Any
    store_o: Any
    load: Signal
    load_at: Signal
    payload: Signal
    need: Signal
    take: Signal
    group: Signal
    control: Any
    arrive: Signal
    lane0: Signal
    first: Signal

    def __init__(self, *, parameters: ArrayParameters) -> None:
        self.parameters = p = parameters
        operation, store = operation_layout(p), store_layout(p)
        super().__init__(
            {
                "en": In(1), "ws": In(1), "number": In(address_bits(p.rows)),
                "operation_i": In(operation), "operation_o": Out(operation),
                "store_i": In(store), "store_o": Out(store),
                "load": In(1), "load_at": In(address_bits(p.max_interleave)),
                "payload": In(16 * p.max_group), "need": Out(1), "take": Out(1),
                "group": Out(OPERAND_BITS * p.max_group),
                "control": Out(control_layout(p.weight_depth, p.sum_depth + 1, p.max_interleave)),
                "arrive": Out(1), "lane0": Out(1), "first": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """Delays and normalisers."""
        m = Module()
        p, op, control = self.parameters, self.operation_i, self.control
        La, Lm = p.adder_latency, p.multiplier_latency
        hops = [op.as_value()]
        for stage in range(La):
            hops.append(Signal(len(op.as_value()), name=f"hop{stage}"))
            m.d.sync += hops[-1].eq(hops[-2])
        m.d.comb += self.operation_o.eq(Mux(self.ws, hops[La], hops[1]))
        m.d.sync += self.store_o.eq(self.store_i)
        words = [self.payload.word_select(place, 16) for place in range(p.max_group)]
        m.d.comb += [
            self.need.eq(op.need), self.take.eq(op.take),
            self.group.eq(Cat(normalise_operand(m, word, f"a{place}") for place, word in enumerate(words))),
            control.store.eq(self.store_i.valid & (self.store_i.all | (self.store_i.row == self.number))),
            control.store_at.eq(self.store_i.store_at), control.weight.eq(op.weight),
            control.load.eq(self.load), control.load_at.eq(self.load_at),
        ]  # fmt: skip
        add_width = len(op.left) + len(op.right) + 1
        added = _late(m, Cat(op.left, op.right, op.fold), Lm - 1, "add")
        written = _late(m, Cat(op.write, op.write_at, op.finish, op.finish_at), Lm + La - 2, "write")
        at_foot = _late(m, Cat(op.lane, op.lane0, op.first), Lm + La, "foot")
        m.d.comb += [
            Cat(control.left, control.right, control.fold).eq(added[0:add_width]),
            Cat(control.write, control.write_at, control.finish, control.finish_at).eq(written),
            Cat(self.arrive, self.lane0, self.first).eq(at_foot),
        ]
        return EnableInserter(self.en)(m)


class ColumnHead(wiring.Component):
    """North edge of a column: the word as an operand, and the request one column further a cycle later.

    Ports
    -----
    en : in, 1
    need_i, need_o : in and out, 1
        A word is needed now; the register for the next column.
    payload : in
        ``value`` (binary16) and ``index``.
    word : out
        For the top element.
    """

    en: Signal
    need_i: Signal
    need_o: Signal
    payload: Any
    word: Any

    def __init__(self, *, max_group: int) -> None:
        super().__init__(
            {
                "en": In(1), "need_i": In(1), "need_o": Out(1),
                "payload": In(north_layout(max_group)), "word": Out(weight_layout(max_group)),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """A register and a normaliser."""
        m = Module()
        with m.If(self.en):
            m.d.sync += self.need_o.eq(self.need_i)
        m.d.comb += [
            self.word.value.eq(normalise_operand(m, self.payload.value, "b")),
            self.word.index.eq(self.payload.index),
        ]
        return m


def north_layout(max_group: int) -> data.StructLayout:
    """A weight at the north port: binary16 and its place in the group (the lane's number where the group is dense)."""
    return data.StructLayout({"value": 16, "index": address_bits(max_group)})


class Stce(wiring.Component):
    """The sparse tensor computing engine. Values equal ``golden.products``, cycles ``simulator.engine``.

    From the first word in to the last word out it takes ``array_timing.os_cycles`` or ``ws_cycles`` of its tiles, if no
    stream lets it wait. A stream that does stalls the whole array: nothing moves in that cycle, no word is lost.

    OS, for every tile, group g and i < I: row r takes the group of M activations of output row i * R + r once (it stays
    for N cycles), column c takes N weight words, again for every i. Outputs leave for i = 0, 1, ..., bottom row first.

    WS, for every tile: column c takes N weight words for each row of the array, bottom row first; then row r takes
    ``count`` groups; column c takes ``count`` partial sums, unless the tile is ``first``, and gives ``count`` sums.

    Rows and columns work skewed against row 0 and column 0, each lane at its own time: there are no words of padding.

    Parameters
    ----------
    parameters : ArrayParameters

    Ports
    -----
    command : in stream
        :func:`.sequencer.command_layout`. The first word moves in the cycle after the command of an idle array.
    west : in, R lanes of 16 * max_group
        Activations, binary16, place j of the group in bits [16 j, 16 j + 16).
    north : in, C lanes
        :func:`north_layout`.
    partial : in, C lanes of 32
        Binary32 sums of the k-tiles before. Needed two cycles after they left at the earliest.
    south : out, C lanes of 32
        Binary32 results.
    idle : out, 1
        No sequence runs and every word has left.
    """

    command: Any
    west: Any
    north: Any
    partial: Any
    south: Any
    idle: Signal

    def __init__(self, *, parameters: ArrayParameters) -> None:
        self.parameters = p = parameters
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(p))),
                "west": In(lanes(16 * p.max_group, p.rows)),
                "north": In(lanes(16 + address_bits(p.max_group), p.cols)),
                "partial": In(lanes(32, p.cols)),
                "south": Out(lanes(32, p.cols)),
                "idle": Out(1),
            }
        )

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> Stce:
        """The array of an accelerator file."""
        return cls(parameters=ArrayParameters.from_accelerator(accelerator))

    def elaborate(self, platform: Any) -> Module:
        """Elements, edges and the global clock enable."""
        m = Module()
        p = self.parameters
        en = Signal()
        sequencer: Any = place(m, platform, "sequencer", Sequencer, parameters=p)
        feet: Any = place(m, platform, "feet", FootSequencer, parameters=p)
        ws = sequencer.ws
        m.d.comb += [
            sequencer.en.eq(en), sequencer.command.eq(self.command.payload),
            sequencer.command_valid.eq(self.command.valid), self.command.ready.eq(sequencer.command_take & en),
            self.idle.eq(sequencer.idle),
            feet.en.eq(en), feet.keep.eq(sequencer.keep),
            feet.drained.eq(sequencer.drained), feet.last.eq(sequencer.drain_last),
        ]  # fmt: skip
        edges = self._rows(m, platform, en, sequencer)
        heads = self._heads(m, platform, en, sequencer)
        bottom = self._elements(m, platform, en, ws, edges, heads)
        m.d.comb += [
            feet.arrive.eq(edges[-1].arrive & ws),
            feet.lane0.eq(edges[-1].lane0),
            feet.first.eq(edges[-1].first),
        ]
        foot_need, foot_valid = self._feet(m, platform, en, feet, sequencer, bottom)

        need = Cat(edge.need for edge in edges), Cat(head.need_i for head in heads), foot_need
        have = self.west.valid, self.north.valid, self.partial.valid
        fed = Signal()
        m.d.comb += fed.eq(~Cat(n & ~h for n, h in zip(need, have, strict=True)).any())
        sent = Signal(p.cols)  # words that left while the array waits for something else
        m.d.comb += [
            self.south.valid.eq(foot_valid & ~sent),
            en.eq(fed & ~(foot_valid & ~sent & ~self.south.ready).any()),
            self.west.ready.eq(Cat(edge.take for edge in edges) & en.replicate(p.rows)),
            self.north.ready.eq(need[1] & en.replicate(p.cols)),
            self.partial.ready.eq(need[2] & en.replicate(p.cols)),
        ]
        m.d.sync += sent.eq(Mux(en, 0, sent | (self.south.valid & self.south.ready)))
        return m

    def _rows(self, m: Module, platform: Any, en: Signal, sequencer: Any) -> list[Any]:
        p = self.parameters
        edges: list[Any] = []
        for r in range(p.rows):
            edge: Any = place(m, platform, f"row{r}", RowEdge, parameters=p)
            m.d.comb += [
                edge.en.eq(en), edge.ws.eq(sequencer.ws), edge.number.eq(r),
                edge.operation_i.eq(edges[-1].operation_o if r else sequencer.operation),
                edge.store_i.eq(edges[-1].store_o if r else sequencer.store),
                edge.load.eq(sequencer.load), edge.load_at.eq(sequencer.load_at),
                edge.payload.eq(self.west.payload.word_select(r, 16 * p.max_group)),
            ]  # fmt: skip
            edges.append(edge)
        return edges

    def _heads(self, m: Module, platform: Any, en: Signal, sequencer: Any) -> list[Any]:
        p = self.parameters
        heads: list[Any] = []
        for c in range(p.cols):
            head: Any = place(m, platform, f"head{c}", ColumnHead, max_group=p.max_group)
            word = self.north.payload.word_select(c, 16 + address_bits(p.max_group))
            m.d.comb += [
                head.en.eq(en),
                head.need_i.eq(heads[-1].need_o if c else sequencer.store.valid),
                head.payload.eq(word),
            ]
            heads.append(head)
        return heads

    def _elements(
        self, m: Module, platform: Any, en: Signal, ws: Signal, edges: list[Any], heads: list[Any]
    ) -> list[Any]:
        p = self.parameters
        above: list[Any] = []
        for r in range(p.rows):
            row: list[Any] = []
            for c in range(p.cols):
                element: Any = place(m, platform, f"uspe_{r}_{c}", Uspe, **p.element())
                west = row[-1] if c else None
                m.d.comb += [
                    element.en.eq(en), element.ws.eq(ws),
                    element.a_i.eq(west.a_o if west is not None else edges[r].group),
                    element.control_i.eq(west.control_o if west is not None else edges[r].control),
                    element.b_i.eq(above[c].b_o if r else heads[c].word),
                    element.c_i.eq(above[c].c_o if r else 0),
                ]  # fmt: skip
                row.append(element)
            above = row
        return above

    def _feet(
        self, m: Module, platform: Any, en: Signal, feet: Any, sequencer: Any, bottom: list[Any]
    ) -> tuple[Value, Value]:
        p = self.parameters
        control, needs, valids, outputs = feet.control, [], [], []
        for c in range(p.cols):
            foot: Any = place(m, platform, f"foot{c}", ColumnFoot, parameters=p)
            m.d.comb += [
                foot.en.eq(en), foot.ws.eq(sequencer.ws), foot.control_i.eq(control), foot.word.eq(bottom[c].c_o),
                foot.partial.eq(self.partial.payload.word_select(c, 32)),
            ]  # fmt: skip
            if c == p.cols - 1:
                leaving = data.View(foot_layout(p), Value.cast(control))
                m.d.comb += sequencer.retired.eq(Mux(sequencer.ws, leaving.result, leaving.last))
            control = foot.control_o
            needs.append(foot.need)
            valids.append(foot.valid)
            outputs.append(foot.output)
        m.d.comb += self.south.payload.eq(Cat(outputs))
        return Cat(needs), Cat(valids)
