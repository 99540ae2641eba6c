"""A row of the array: its west edge, which times what its elements do, and the elements.

The array places rows rather than elements, so that the text of 32x32 elements is that of 32 rows of 32.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic.fp16_multiplier import OPERAND_BITS, normalise_operand
from .array_parameters import ArrayParameters
from .edge_ports import RowEdgeFrame, edge_inputs, edge_outputs, late
from .emit import place
from .regions import crossing
from .uspe import Uspe, control_layout
from .window_row import WindowRowEdge
from .window_uspe import WindowUspe


class RowEdge(RowEdgeFrame):
    """The operation reaches the next row 1 cycle later in OS, La in WS; weight words 1 cycle later in both."""

    def __init__(self, *, parameters: ArrayParameters) -> None:
        p = parameters
        control = control_layout(p.weight_depth, p.sum_depth + 1, p.max_interleave)
        super().__init__(parameters=p, operand_bits=OPERAND_BITS, control=control)

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
        added = late(m, Cat(op.left, op.right, op.fold), Lm - 1, "add")
        written = late(m, Cat(op.write, op.write_at, op.finish, op.finish_at), Lm + La - 2, "write")
        at_foot = late(m, Cat(op.lane, op.lane0, op.first), Lm + La, "foot")
        m.d.comb += [
            Cat(control.left, control.right, control.fold).eq(added[0:add_width]),
            Cat(control.write, control.write_at, control.finish, control.finish_at).eq(written),
            Cat(self.arrive, self.lane0, self.first).eq(at_foot),
        ]
        return EnableInserter(self.en)(m)


class Row(wiring.Component):
    """A row edge and ``cols`` elements. Operands and control hop east inside, weights and sums go south through it.

    In the middle operands and control pass ``hop`` registers more.

    Latency and reset are those of :class:`RowEdge` and :class:`.uspe.Uspe`.

    Parameters
    ----------
    parameters : ArrayParameters

    Ports
    -----
    en, ws, number, operation_i, operation_o, store_i, store_o, load, load_at, payload, need, take, arrive, lane0, first
        Of the row's :class:`RowEdge`; ``en`` and ``ws`` of the columns before the cut, too.
    en_east, ws_east : in, 1
        With ``hop``: enable and mode of the columns behind the cut.
    b_i, b_o : in and out
        A weight word of :func:`.uspe.weight_layout` a column, column 0 in the lowest bits.
    c_i, c_o : in and out, element_bits * cols
        Sums, likewise.
    """

    en: Signal
    en_east: Signal
    ws: Signal
    ws_east: Signal
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
    arrive: Signal
    lane0: Signal
    first: Signal
    b_i: Signal
    b_o: Signal
    c_i: Signal
    c_o: Signal

    def __init__(self, *, parameters: ArrayParameters) -> None:
        self.parameters = p = parameters
        words, sums = p.weight_layout.size * p.cols, p.element_bits * p.cols
        super().__init__(
            {
                **{name: In(shape) for name, shape in edge_inputs(p).items()},
                **{name: Out(shape) for name, shape in edge_outputs(p).items()},
                "b_i": In(words), "b_o": Out(words), "c_i": In(sums), "c_o": Out(sums),
                **({"en_east": In(1), "ws_east": In(1)} if p.hop else {}),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The edge and the chain of elements."""
        m = Module()
        p, word = self.parameters, self.parameters.weight_layout.size
        edge_type, element_type = (WindowRowEdge, WindowUspe) if p.window else (RowEdge, Uspe)
        edge: Any = place(m, platform, "edge", edge_type, parameters=p)
        m.d.comb += [_value(getattr(edge, name)).eq(_value(getattr(self, name))) for name in edge_inputs(p)]
        m.d.comb += [_value(getattr(self, name)).eq(_value(getattr(edge, name))) for name in edge_outputs(p)]
        group, control, below, sums = edge.group, edge.control, [], []
        en, ws = self.en, self.ws
        for c in range(p.cols):
            if p.hop and c == p.cut:
                en, ws = self.en_east, self.ws_east
                group = crossing(m, (self.en, en), group, p.hop, "group")
                control = crossing(m, (self.en, en), control, p.hop, "control")
            element: Any = place(m, platform, f"uspe{c}", element_type, **p.element())
            m.d.comb += [
                element.en.eq(en), element.ws.eq(ws),
                element.a_i.eq(group), _value(element.control_i).eq(_value(control)),
                _value(element.b_i).eq(self.b_i.word_select(c, word)),
                element.c_i.eq(self.c_i.word_select(c, p.element_bits)),
            ]  # fmt: skip
            group, control = element.a_o, element.control_o
            below.append(_value(element.b_o))
            sums.append(element.c_o)
        m.d.comb += [self.b_o.eq(Cat(below)), self.c_o.eq(Cat(sums))]
        return m


_value = Value.cast
