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
from .arithmetic.fp32_adder import SUM_BITS
from .array_parameters import ArrayParameters
from .emit import place
from .sequencer import operation_layout, store_layout
from .uspe import Uspe, address_bits, control_layout, weight_layout


def _late(m: Module, value: Any, cycles: int, name: str) -> Value:
    found = Value.cast(value)
    for stage in range(cycles):
        register = Signal(len(found), name=f"{name}{stage}")
        m.d.sync += register.eq(found)
        found = register
    return found


def crossing(m: Module, en: Value, value: Any, cycles: int, name: str) -> Value:
    """``value`` so many enabled cycles later: the way from one super logic region to another."""
    found = Value.cast(value)
    for stage in range(cycles):
        register = Signal(len(found), name=f"{name}{stage}")
        with m.If(en):
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
        super().__init__(
            {
                **{name: In(shape) for name, shape in _inputs(p).items()},
                **{name: Out(shape) for name, shape in _outputs(p).items()},
                "group": Out(OPERAND_BITS * p.max_group),
                "control": Out(control_layout(p.weight_depth, p.sum_depth + 1, p.max_interleave)),
            }
        )

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


class Row(wiring.Component):
    """A row edge and ``cols`` elements. Operands and control hop east inside, weights and sums go south through it.

    In the middle operands and control pass ``hop`` registers more (``cross_group``, ``cross_control``).

    Latency and reset are those of :class:`RowEdge` and :class:`.uspe.Uspe`.

    Parameters
    ----------
    parameters : ArrayParameters

    Ports
    -----
    en, ws, number, operation_i, operation_o, store_i, store_o, load, load_at, payload, need, take, arrive, lane0, first
        Of the row's :class:`RowEdge`.
    b_i, b_o : in and out
        A weight word of :func:`.uspe.weight_layout` a column, column 0 in the lowest bits.
    c_i, c_o : in and out, 31 * cols
        Sums, likewise.
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
    arrive: Signal
    lane0: Signal
    first: Signal
    b_i: Signal
    b_o: Signal
    c_i: Signal
    c_o: Signal

    def __init__(self, *, parameters: ArrayParameters) -> None:
        self.parameters = p = parameters
        words = weight_layout(p.max_group).size * p.cols
        super().__init__(
            {
                **{name: In(shape) for name, shape in _inputs(p).items()},
                **{name: Out(shape) for name, shape in _outputs(p).items()},
                "b_i": In(words), "b_o": Out(words), "c_i": In(SUM_BITS * p.cols), "c_o": Out(SUM_BITS * p.cols),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The edge and the chain of elements."""
        m = Module()
        p, word = self.parameters, weight_layout(self.parameters.max_group).size
        edge: Any = place(m, platform, "edge", RowEdge, parameters=p)
        m.d.comb += [_value(getattr(edge, name)).eq(_value(getattr(self, name))) for name in _inputs(p)]
        m.d.comb += [_value(getattr(self, name)).eq(_value(getattr(edge, name))) for name in _outputs(p)]
        group, control, below, sums = edge.group, edge.control, [], []
        for c in range(p.cols):
            if c == p.cut:
                group = crossing(m, self.en, group, p.hop, "cross_group")
                control = crossing(m, self.en, control, p.hop, "cross_control")
            element: Any = place(m, platform, f"uspe{c}", Uspe, **p.element())
            m.d.comb += [
                element.en.eq(self.en), element.ws.eq(self.ws),
                element.a_i.eq(group), _value(element.control_i).eq(_value(control)),
                _value(element.b_i).eq(self.b_i.word_select(c, word)),
                element.c_i.eq(self.c_i.word_select(c, SUM_BITS)),
            ]  # fmt: skip
            group, control = element.a_o, element.control_o
            below.append(_value(element.b_o))
            sums.append(element.c_o)
        m.d.comb += [self.b_o.eq(Cat(below)), self.c_o.eq(Cat(sums))]
        return m


def _inputs(p: ArrayParameters) -> dict[str, Any]:
    """Inputs of a row edge that are a row's, too: shape by name."""
    return {
        "en": 1, "ws": 1, "number": address_bits(p.rows),
        "operation_i": operation_layout(p), "store_i": store_layout(p),
        "load": 1, "load_at": address_bits(p.max_interleave), "payload": 16 * p.max_group,
    }  # fmt: skip


def _outputs(p: ArrayParameters) -> dict[str, Any]:
    """Outputs of a row edge that are a row's, too: shape by name."""
    return {
        "operation_o": operation_layout(p), "store_o": store_layout(p), "need": 1, "take": 1,
        "arrive": 1, "lane0": 1, "first": 1,
    }  # fmt: skip


_value = Value.cast
