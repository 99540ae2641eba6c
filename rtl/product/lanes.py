"""Memories of the array's edges: what a row or column takes, read as often as it is used."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..uspe import address_bits
from .sizes import DIMENSION_BITS, POSITION_BITS


class Lane(wiring.Component):
    """A ring of steps in a memory, and the pointer that reads it block by block.

    A block is read ``times`` times before its steps are released. A step has ``words`` words of one element and is read
    ``again`` times before the next one: the N weights of a group, I times in OS. A lane of activations has one word a
    step, the whole group. A word is offered two cycles after its step was committed at the earliest.

    Parameters
    ----------
    depth, per_word, element : int
        Words of the memory, elements of a word, bits of an element.
    grouped : bool
        Offer a group of ``1 << shift`` elements, else one element of it.

    Ports
    -----
    clear : in, 1
        Begin with step 0.
    write, address, places, word, one, spread : in
        A write into the memory, of elements of ``word``, or of ``one`` if ``spread`` is set.
    committed : in
        Steps that are in the memory.
    shift : in
        log2 of the elements of a step.
    steps, steps_last, blocks : in
        Steps of a block, of the last one of ``blocks``.
    times, words, again : in
        How often a block is read, words of a step, how often a step is read.
    payload, valid, ready : out, out, in
        The word.
    released : out
        Steps that are not needed again.
    """

    clear: Signal
    write: Signal
    address: Signal
    places: Signal
    word: Signal
    one: Signal
    spread: Signal
    committed: Signal
    shift: Signal
    steps: Signal
    steps_last: Signal
    blocks: Signal
    times: Signal
    words: Signal
    again: Signal
    payload: Signal
    valid: Signal
    ready: Signal
    released: Signal

    def __init__(self, *, depth: int, per_word: int, element: int, grouped: bool) -> None:
        self.depth, self.per_word, self.element, self.grouped = depth, per_word, element, grouped
        dim = DIMENSION_BITS
        super().__init__(
            {
                "clear": In(1), "write": In(1), "address": In(address_bits(depth)), "places": In(per_word),
                "word": In(per_word * element), "one": In(element), "spread": In(1),
                "committed": In(POSITION_BITS), "shift": In(3),
                "steps": In(POSITION_BITS), "steps_last": In(POSITION_BITS), "blocks": In(dim), "times": In(dim),
                "words": In(6), "again": In(6),
                "payload": Out(per_word * element if grouped else element), "valid": Out(1), "ready": In(1),
                "released": Out(POSITION_BITS),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        shape = data.ArrayLayout(self.element, self.per_word)
        m.submodules.memory = memory = Memory(shape=shape, depth=self.depth, init=[])
        store, fetch = memory.write_port(granularity=1), memory.read_port()
        word = Mux(self.spread, self.one.replicate(self.per_word), self.word)
        m.d.comb += [
            store.addr.eq(self.address), store.data.eq(data.View(shape, word)),
            store.en.eq(Mux(self.write, self.places, 0)),
        ]  # fmt: skip
        at = _walk(m, self)
        log = self.per_word.bit_length() - 1
        late = _offer(m, self, at)
        m.d.comb += [fetch.addr.eq((at.following << self.shift) >> log), fetch.en.eq(1)]
        where = Signal(range(max(2, self.per_word)))
        m.d.comb += where.eq(((at.position << self.shift) & (self.per_word - 1)) + (0 if self.grouped else at.number))
        whole = fetch.data.as_value()
        if self.grouped:
            m.d.comb += self.payload.eq(whole >> (where * self.element))
        else:
            m.d.comb += self.payload.eq(whole.word_select(where, self.element))
        _clear(m, self, at, late)
        return m


class Pointer(wiring.Component):
    """A lane without its memory: when its words are there and which steps it has done with.

    It stands beside the unit for a lane that lies in another super logic region with ``slr_hop_cycles``.

    Ports
    -----
    clear, committed, steps, steps_last, blocks, times, words, again, valid, ready, released
        Of :class:`Lane`.
    """

    clear: Signal
    committed: Signal
    steps: Signal
    steps_last: Signal
    blocks: Signal
    times: Signal
    words: Signal
    again: Signal
    valid: Signal
    ready: Signal
    released: Signal

    def __init__(self) -> None:
        dim = DIMENSION_BITS
        super().__init__(
            {
                "clear": In(1), "committed": In(POSITION_BITS), "steps": In(POSITION_BITS),
                "steps_last": In(POSITION_BITS), "blocks": In(dim), "times": In(dim), "words": In(6), "again": In(6),
                "valid": Out(1), "ready": In(1), "released": Out(POSITION_BITS),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        at = _walk(m, self)
        _clear(m, self, at, _offer(m, self, at))
        return m


def lane_terms(side: Literal["a", "b"], plan: Any) -> dict[str, Any]:
    """What a plan tells the lanes of activations ("a") or weights ("b"), by port."""
    if side == "a":
        return {
            "shift": plan.shift, "steps": plan.a_steps, "steps_last": plan.a_steps_last, "blocks": plan.m_blocks,
            "times": Mux(plan.a_stays, plan.n_tiles, 1), "words": 1, "again": 1,
        }  # fmt: skip
    return {
        "shift": plan.keep_shift, "steps": plan.b_steps, "steps_last": plan.b_steps, "blocks": 1,
        "times": Mux(plan.b_stays, plan.m_blocks, 1), "words": plan.keep,
        "again": Mux(plan.ws, 1, plan.interleave),
    }  # fmt: skip


class _Walk(NamedTuple):
    """Where a lane is: its registers, and from them the step it is at and the one it is at next."""

    registers: tuple[Signal, ...]
    number: Signal
    position: Signal
    following: Signal


def _walk(m: Module, lane: Any) -> _Walk:
    """A lane's way through its steps, a word whenever one is taken; what it has released."""
    begin, offset = Signal(POSITION_BITS), Signal(POSITION_BITS)  # of the block; within it
    time, block = Signal(DIMENSION_BITS), Signal(DIMENSION_BITS)
    number, turn = Signal(6), Signal(6)
    position, following = Signal(POSITION_BITS), Signal(POSITION_BITS)
    steps, last_time = Signal(POSITION_BITS), Signal()
    m.d.comb += [
        position.eq(begin + offset), following.eq(position),
        steps.eq(Mux(block + 1 == lane.blocks, lane.steps_last, lane.steps)), last_time.eq(time + 1 == lane.times),
        lane.released.eq(Mux(last_time, position, begin)),
    ]  # fmt: skip
    with m.If(lane.valid & lane.ready):
        m.d.sync += number.eq(number + 1)
        with m.If(number + 1 == lane.words):
            m.d.sync += [number.eq(0), turn.eq(turn + 1)]
            with m.If(turn + 1 == lane.again):
                m.d.sync += [turn.eq(0), offset.eq(offset + 1)]
                m.d.comb += following.eq(position + 1)
                with m.If(offset + 1 == steps):
                    m.d.sync += [offset.eq(0), time.eq(time + 1)]
                    m.d.comb += following.eq(begin)
                    with m.If(last_time):
                        m.d.sync += [time.eq(0), begin.eq(begin + steps)]
                        m.d.sync += block.eq(Mux(block + 1 == lane.blocks, 0, block + 1))
                        m.d.comb += following.eq(position + 1)
    return _Walk((begin, offset, time, block, number, turn), number, position, following)


def _offer(m: Module, lane: Any, at: _Walk) -> Signal:
    """A word is valid the cycle after its step was committed; returns the steps that were."""
    late = Signal(POSITION_BITS)
    m.d.sync += late.eq(lane.committed)
    m.d.comb += lane.valid.eq(at.position != late)
    return late


def _clear(m: Module, lane: Any, at: _Walk, late: Signal) -> None:
    with m.If(lane.clear):
        m.d.sync += [signal.eq(0) for signal in (*at.registers, late)]
