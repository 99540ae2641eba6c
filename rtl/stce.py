"""STCE, the array: R x C elements, the edges that feed them in step, the column feet and the sequencer."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..models.accelerator import Accelerator
from .arithmetic.fp16_multiplier import normalise_operand
from .arithmetic.window_operand import window_operand
from .array_parameters import ArrayParameters
from .column_foot import ColumnFoot, FootSequencer, foot_layout
from .emit import place
from .regions import crossing
from .row import Row
from .sequencer import Sequencer, command_layout
from .uspe import address_bits
from .window_foot import WindowFoot, WindowFootSequencer, window_foot_layout
from .window_sequencer import WindowSequencer


def lanes(width: int, count: int) -> wiring.Signature:
    """``count`` streams side by side: lane i has payload bits ``[i * width, (i + 1) * width)``, valid and ready i.

    Each lane keeps the rules of ``amaranth.lib.stream`` by itself.
    """
    return wiring.Signature({"payload": Out(width * count), "valid": Out(count), "ready": In(count)})


@dataclass(frozen=True, slots=True)
class Half:
    """Clock enable and mode as the columns of a half see them."""

    en: Value
    ws: Value


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

    def __init__(self, *, parameters: ArrayParameters) -> None:
        self.parameters = p = parameters
        super().__init__(
            {
                "en": In(1), "need_i": In(1), "need_o": Out(1),
                "payload": In(north_layout(p.max_group)), "word": Out(p.weight_layout),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """A register and a normaliser."""
        m = Module()
        with m.If(self.en):
            m.d.sync += self.need_o.eq(self.need_i)
        half = self.payload.value
        operand = window_operand(half) if self.parameters.window else normalise_operand(m, half, "b")
        m.d.comb += [self.word.value.eq(operand), self.word.index.eq(self.payload.index)]
        return m


def north_layout(max_group: int) -> data.StructLayout:
    """A weight at the north port: binary16 and its place in the group (the lane's number where the group is dense)."""
    return data.StructLayout({"value": 16, "index": address_bits(max_group)})


class Stce(wiring.Component):
    """The sparse tensor computing engine. Values equal ``golden.products``, cycles ``simulator.engine``.

    From the first word in to the last word out it takes ``array_timing.os_cycles`` or ``ws_cycles`` of its tiles, if no
    stream lets it wait, and ``hop`` more. A stream that does stalls the whole array: nothing moves in that cycle, no
    word is lost. With a window in its parameters read ``golden.window`` and ``window_timing``.

    OS, for every tile, group g and i < I: row r takes the group of M activations of output row i * R + r once (it stays
    for N cycles), column c takes N weight words, again for every i. Outputs leave for i = 0, 1, ..., bottom row first.
    With a window column c also takes R partial sums in that order, unless the tile is ``first``.

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
    partial : in, C lanes of ``parameters.sum_bits``
        Sums of the k-tiles before: binary32, or sum words of a window (contract, section 11). Needed two cycles after
        they left at the earliest.
    south : out, C lanes of ``parameters.sum_bits``
        Sums, binary32 or sum words. A window's finished ones go through :class:`.window_drain.WindowDrain`.
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
                "partial": In(lanes(p.sum_bits, p.cols)),
                "south": Out(lanes(p.sum_bits, p.cols)),
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
        sequencer_type, feet_type = (WindowSequencer, WindowFootSequencer) if p.window else (Sequencer, FootSequencer)
        sequencer: Any = place(m, platform, "sequencer", sequencer_type, parameters=p)
        feet: Any = place(m, platform, "feet", feet_type, parameters=p)
        m.d.comb += [
            sequencer.en.eq(en), sequencer.command.eq(self.command.payload),
            sequencer.command_valid.eq(self.command.valid), self.command.ready.eq(sequencer.command_take & en),
            self.idle.eq(sequencer.idle),
            feet.en.eq(en), feet.keep.eq(sequencer.keep),
            feet.drained.eq(sequencer.drained), feet.last.eq(sequencer.drain_last),
        ]  # fmt: skip
        halves = (Half(en, sequencer.ws),) * 2
        heads = place_heads(m, platform, p, halves, sequencer.store.valid, self.north.payload)
        words = Cat(Value.cast(head.word) for head in heads)
        rows = place_rows(m, platform, p, halves, sequencer, self.west.payload, words)
        last = rows[-1]
        m.d.comb += [
            feet.arrive.eq(last.arrive & sequencer.ws), feet.lane0.eq(last.lane0),
            feet.first.eq(Mux(sequencer.ws, last.first, sequencer.drain_first)),
        ]  # fmt: skip
        foot_need, foot_valid, outputs, left = place_feet(
            m, platform, p, halves, feet.control, last.c_o, self.partial.payload
        )
        m.d.comb += [sequencer.retired.eq(left), self.south.payload.eq(outputs)]

        need = Cat(row.need for row in rows), Cat(head.need_i for head in heads), foot_need
        have = self.west.valid, self.north.valid, self.partial.valid
        fed = Signal()
        m.d.comb += fed.eq(~Cat(n & ~h for n, h in zip(need, have, strict=True)).any())
        sent = Signal(p.cols)  # words that left while the array waits for something else
        m.d.comb += [
            self.south.valid.eq(foot_valid & ~sent),
            en.eq(fed & ~(foot_valid & ~sent & ~self.south.ready).any()),
            self.west.ready.eq(Cat(row.take for row in rows) & en.replicate(p.rows)),
            self.north.ready.eq(need[1] & en.replicate(p.cols)),
            self.partial.ready.eq(need[2] & en.replicate(p.cols)),
        ]
        m.d.sync += sent.eq(Mux(en, 0, sent | (self.south.valid & self.south.ready)))
        return m


def place_rows(
    m: Module, platform: Any, p: ArrayParameters, halves: tuple[Half, Half], led: Any, west: Value, words: Value
) -> list[Any]:
    """Rows that do what ``led`` says: a sequencer's ``operation``, ``store``, ``load`` and ``load_at``."""
    rows: list[Any] = []
    for r in range(p.rows):
        row: Any = place(m, platform, f"row{r}", Row, parameters=p)
        above = rows[-1] if r else None
        m.d.comb += [
            row.en.eq(halves[0].en), row.ws.eq(halves[0].ws), row.number.eq(r),
            row.operation_i.eq(led.operation if above is None else above.operation_o),
            row.store_i.eq(led.store if above is None else above.store_o),
            row.load.eq(led.load), row.load_at.eq(led.load_at),
            row.payload.eq(west.word_select(r, 16 * p.max_group)),
            row.b_i.eq(words if above is None else above.b_o), row.c_i.eq(0 if above is None else above.c_o),
        ]  # fmt: skip
        if p.hop:
            m.d.comb += [row.en_east.eq(halves[1].en), row.ws_east.eq(halves[1].ws)]
        rows.append(row)
    return rows


def place_heads(
    m: Module, platform: Any, p: ArrayParameters, halves: tuple[Half, Half], first: Value, north: Value
) -> list[Any]:
    """Heads, of which the first one needs a word when ``first`` says so."""
    heads: list[Any] = []
    for c in range(p.cols):
        head: Any = place(m, platform, f"head{c}", ColumnHead, parameters=p)
        word = north.word_select(c, 16 + address_bits(p.max_group))
        need = heads[-1].need_o if c else first
        if c == p.cut:
            need = crossing(m, (halves[0].en, halves[1].en), need, p.hop, "need")
        half = halves[p.half_of(c)]
        m.d.comb += [head.en.eq(half.en), head.need_i.eq(need), head.payload.eq(word)]
        heads.append(head)
    return heads


def place_feet(
    m: Module, platform: Any, p: ArrayParameters, halves: tuple[Half, Half], control: Value, bottom: Value,
    partial: Value,
) -> tuple[Value, Value, Value, Value]:  # fmt: skip
    """Feet that do what ``control`` says: partial sums needed, results there, results, and that an output left."""
    needs, valids, outputs, obeyed = [], [], [], control
    for c in range(p.cols):
        half = halves[p.half_of(c)]
        if c == p.cut:
            control = crossing(m, (halves[0].en, halves[1].en), control, p.hop, "foot")
        foot: Any = place(m, platform, f"foot{c}", WindowFoot if p.window else ColumnFoot, parameters=p)
        m.d.comb += [
            foot.en.eq(half.en), foot.ws.eq(half.ws), Value.cast(foot.control_i).eq(Value.cast(control)),
            foot.word.eq(bottom.word_select(c, p.element_bits)),
            foot.partial.eq(partial.word_select(c, p.sum_bits)),
        ]  # fmt: skip
        obeyed, control = control, foot.control_o
        needs.append(foot.need)
        valids.append(foot.valid)
        outputs.append(foot.output)
    leaving = data.View(window_foot_layout() if p.window else foot_layout(p), Value.cast(obeyed))
    return Cat(needs), Cat(valids), Cat(outputs), Mux(halves[1].ws, leaving.result, leaving.last)
