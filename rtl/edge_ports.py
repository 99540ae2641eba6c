"""What the array's edges are whatever the accumulator: ports of row edges and of column feet; delays."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

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


class RowEdgeFrame(wiring.Component):
    """West edge of a row: delays the micro-operation to the next row, assembles the element's control word.

    Parameters
    ----------
    parameters : ArrayParameters
    operand_bits : int
        Of an activation inside the array.
    control : layout
        Of an element's control word.

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

    def __init__(self, *, parameters: ArrayParameters, operand_bits: int, control: data.StructLayout) -> None:
        self.parameters = p = parameters
        super().__init__(
            {
                **{name: In(shape) for name, shape in edge_inputs(p).items()},
                **{name: Out(shape) for name, shape in edge_outputs(p).items()},
                "group": Out(operand_bits * p.max_group),
                "control": Out(control),
            }
        )


class FootSequencerFrame(wiring.Component):
    """Says what the feet do.

    Parameters
    ----------
    parameters : ArrayParameters
    control : layout
        Of the word that hops from foot to foot.

    Ports
    -----
    en : in, 1
        Clock enable.
    keep : in
        N of the running sequence.
    arrive, lane0, first : in, 1
        A lane is at column 0's foot; it is lane 0; there is no previous k-tile.
    drained, last : in, 1
        OS: the word there is an output; it is the last of its tile.
    control : out
        For column 0.
    """

    en: Signal
    keep: Signal
    arrive: Signal
    lane0: Signal
    first: Signal
    drained: Signal
    last: Signal
    control: Any

    def __init__(self, *, parameters: ArrayParameters, control: data.StructLayout) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "en": In(1), "keep": In(parameters.max_keep.bit_length()),
                "arrive": In(1), "lane0": In(1), "first": In(1), "drained": In(1), "last": In(1),
                "control": Out(control),
            }
        )  # fmt: skip


class FootFrame(wiring.Component):
    """One column's foot.

    Parameters
    ----------
    parameters : ArrayParameters
    control : layout
        Of the word that hops from foot to foot.

    Ports
    -----
    en : in, 1
        Clock enable.
    ws : in, 1
        Mode of the running sequence.
    control_i, control_o : in and out
        Obeyed at once; one register to the next column.
    word : in, element_bits
        What leaves the bottom element.
    partial : in, sum_bits
        Sum of the k-tiles before, in the cycle in which ``need`` is high.
    need : out, 1
        A partial sum is needed now.
    output, valid : out, sum_bits and 1
        A result.
    """

    en: Signal
    ws: Signal
    control_i: Any
    control_o: Any
    word: Signal
    partial: Signal
    need: Signal
    output: Signal
    valid: Signal

    def __init__(self, *, parameters: ArrayParameters, control: data.StructLayout) -> None:
        self.parameters = p = parameters
        super().__init__(
            {
                "en": In(1), "ws": In(1), "control_i": In(control), "control_o": Out(control),
                "word": In(p.element_bits), "partial": In(p.sum_bits), "need": Out(1), "output": Out(p.sum_bits),
                "valid": Out(1),
            }
        )  # fmt: skip


def late(m: Module, value: Any, cycles: int, name: str) -> Value:
    """``value`` as it was ``cycles`` enabled cycles ago, through registers with reset."""
    found = Value.cast(value)
    for stage in range(cycles):
        register = Signal(len(found), name=f"{name}{stage}")
        m.d.sync += register.eq(found)
        found = register
    return found
