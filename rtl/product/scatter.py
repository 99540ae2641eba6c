"""Words that arrive from memory into the memories of rows or columns."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any, Literal

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..memory_port import read_word
from ..uspe import address_bits
from .loader import index_bytes, record_layout
from .plan import plan_layout
from .sizes import POSITION_BITS, RUN_BITS, Sizes


class Scatter(wiring.Component):
    """Fills the lanes' memories, run by run.

    A cycle takes, of a run along k, a group of A or of a dense B, at most a word of memory, or one value of a
    compressed B; of a run across lanes, what lies in one word up to the last lane; of a run along the steps of a lane
    (A in WS), one element. A word is taken with its last element. An answer cut short by an error ends
    with its last word; what is missing is anything.

    Ports
    -----
    record : in, stream of :func:`.loader.record_layout`
    words, indices : in, streams of :func:`..memory_port.read_word`
        Values, and bytes of the index plane (B).
    enable : out, lanes
        Lanes that are written.
    address, places : out
        Word of a lane's memory, elements of it that are written.
    word, each, spread : out
        The word of the one lane; an element for each lane; which of them. An element of B is a value and, above it, its
        place in the group.
    commit : out
        Steps that are whole with this write.
    fault : out, 2
        Error of a word that is taken.
    idle : out, 1
    """

    record: Any
    words: Any
    indices: Any
    enable: Signal
    address: Signal
    places: Signal
    word: Signal
    each: Signal
    spread: Signal
    commit: Signal
    plan: Any
    fault: Signal
    idle: Signal

    def __init__(self, *, side: Literal["a", "b"], sizes: Sizes) -> None:
        self.side, self.sizes = side, sizes
        a = sizes.array
        self.lanes = a.rows if side == "a" else a.cols
        self.per_word = sizes.group_places if side == "a" else sizes.keep_places
        self.element = 16 if side == "a" else 16 + address_bits(a.max_group)
        depth = sizes.west_words if side == "a" else sizes.north_words
        word = In(stream.Signature(read_word(sizes.data_bits)))
        ports: dict[str, Any] = {
            "plan": In(plan_layout(sizes)),
            "record": In(stream.Signature(record_layout(self.lanes))), "words": word,
            "enable": Out(self.lanes), "address": Out(address_bits(depth)), "places": Out(self.per_word),
            "word": Out(self.per_word * self.element), "each": Out(self.lanes * self.element),
            "spread": Out(1), "commit": Out(16), "fault": Out(2), "idle": Out(1),
        }  # fmt: skip
        if side == "b":
            ports["indices"] = word
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        plan, s, r = self.plan, self.sizes, self.record.payload
        a_side, rows = self.side == "a", self.sizes.array.rows
        along_k = plan.a_runs_k if a_side else plan.b_runs_k
        steps_run = plan.ws & ~along_k if a_side else Const(0)  # a run along the steps of one lane
        compressed = Const(0) if a_side else plan.compressed
        bus = s.word_elements
        m.d.comb += self.idle.eq(~self.record.valid)

        # Progress within the run; a new record's own numbers where it has not begun.
        fresh = Signal(init=1)
        taken, number, place = Signal(RUN_BITS), Signal(RUN_BITS), Signal(6)
        lane_now, position_now, row_now = Signal.like(r.lane), Signal(POSITION_BITS), Signal.like(r.row)
        lane, position, row = Signal.like(r.lane), Signal(POSITION_BITS), Signal.like(r.row)
        m.d.comb += [
            lane.eq(Mux(fresh, r.lane, lane_now)), position.eq(Mux(fresh, r.position, position_now)),
            row.eq(Mux(fresh, r.row, row_now)),
        ]  # fmt: skip

        group = Signal(6)  # elements of a group in the lane's memory
        m.d.comb += group.eq(plan.group if a_side else plan.keep)
        atom, count = Signal(6), Signal(6)
        across = Signal(RUN_BITS)
        at_word = taken[: bus.bit_length() - 1] if bus > 1 else Const(0)
        room, lanes_left, left = Signal(RUN_BITS), Signal(RUN_BITS), Signal(RUN_BITS)
        m.d.comb += [
            atom.eq(Mux(compressed, 1, Mux(group > bus, bus, group))),
            room.eq(bus - at_word), lanes_left.eq(self.lanes - lane), left.eq(r.elements - taken),
            across.eq(_least(_least(lanes_left, left), room)),
            count.eq(Mux(along_k, atom, Mux(steps_run, 1, across))),
        ]  # fmt: skip

        total = Signal(RUN_BITS)
        m.d.comb += total.eq(Mux(compressed, r.groups * plan.keep, r.elements))
        needs = Signal()
        m.d.comb += needs.eq(~r.zero & (taken < total))
        go, last = Signal(), Signal()
        ready = ~needs | self.words.valid
        place_index, index_ready = self._index(m, needs, go, last, place)
        m.d.comb += go.eq(self.record.valid & ready & index_ready)
        group_end = place + atom == group
        m.d.comb += last.eq(Mux(along_k, group_end & (number + 1 == r.groups), taken + count >= r.elements))
        m.d.comb += [
            self.record.ready.eq(go & last), self.commit.eq(Mux(go & last, r.commit, 0)),
            self.words.ready.eq(
                go & needs & ((taken + count >= total) | ((count == room) & ~self.words.payload.last))
            ),
        ]  # fmt: skip
        faults = []
        for client in (self.words,) if a_side else (self.words, self.indices):
            faults.append(Mux(client.valid & client.ready, client.payload.error, 0))
        m.d.comb += self.fault.eq(faults[0] if a_side else Mux(faults[0] > faults[1], faults[0], faults[1]))

        with m.If(go):
            m.d.sync += [taken.eq(taken + count), fresh.eq(0), place.eq(place + atom)]
            m.d.sync += [lane_now.eq(lane), position_now.eq(position), row_now.eq(row)]
            with m.If(along_k & group_end):
                m.d.sync += [place.eq(0), number.eq(number + 1)]
                if a_side:
                    ahead = Mux(plan.ws, 0, plan.interleave)
                    m.d.sync += [lane_now.eq(lane + plan.ws), position_now.eq(position + ahead)]
                else:
                    turn = row == rows - 1
                    m.d.sync += row_now.eq(Mux(turn, 0, row + 1))
                    m.d.sync += position_now.eq(
                        Mux(plan.ws, Mux(turn, position + (2 * rows - 1), position - 1), position + 1)
                    )
            with m.If(~along_k):
                wraps = lane + count == self.lanes
                m.d.sync += lane_now.eq(Mux(steps_run, lane, Mux(wraps, 0, lane + count)))
                m.d.sync += position_now.eq(position + (steps_run | wraps))
            with m.If(last):
                m.d.sync += [fresh.eq(1), taken.eq(0), number.eq(0), place.eq(0)]
        self._write(m, go, along_k, steps_run, at_word, taken, lane, position, place, count, needs, place_index)
        return m

    def _write(
        self, m: Module, go: Value, along_k: Value, steps_run: Value, at_word: Value, taken: Value, lane: Value,
        position: Value, place: Value, count: Value, needs: Value, place_index: Value,
    ) -> None:  # fmt: skip
        plan, s, r = self.plan, self.sizes, self.record.payload
        bus, per_word = s.word_elements, self.per_word
        shift = plan.shift if self.side == "a" else plan.keep_shift
        log = per_word.bit_length() - 1
        where = Signal(6)
        m.d.comb += [
            where.eq(((position << shift) & (per_word - 1)) + Mux(along_k, place, r.place)),
            self.address.eq((position << shift) >> log),
            self.places.eq(((Const(1, per_word + 1) << Mux(along_k, count, 1)) - 1) << where),
        ]
        window, there = Signal(16 * bus), Signal(bus)
        limit = Value.cast(r.elements) if self.side == "a" else Mux(plan.compressed, (1 << RUN_BITS) - 1, r.elements)
        ahead = Signal(RUN_BITS)
        m.d.comb += [
            window.eq(self.words.payload.data >> (at_word << 4)), ahead.eq(limit - taken),
            there.eq(Cat(ahead > j for j in range(bus)) & needs.replicate(bus)),
        ]  # fmt: skip
        value = [Signal(16, name=f"value{j}") for j in range(bus)]
        m.d.comb += [value[j].eq(window.word_select(j, 16) & there[j].replicate(16)) for j in range(bus)]
        # Along k: the atom again and again over the word. Across lanes: an element for each lane.
        atoms = [1 << bits for bits in range(per_word.bit_length()) if 1 << bits <= bus]
        along = [Signal(16, name=f"along{j}") for j in range(per_word)]
        with m.Switch(count):
            for atom in atoms:
                with m.Case(atom):
                    m.d.comb += [along[j].eq(value[j % atom]) for j in range(per_word)]
        mine = [Signal(16, name=f"mine{number}") for number in range(self.lanes)]
        with m.If(steps_run):
            m.d.comb += [found.eq(value[0]) for found in mine]
        with m.Else(), m.Switch(lane):
            for first in range(self.lanes):
                with m.Case(first):
                    pairs = zip(mine[first:], value, strict=False)
                    m.d.comb += [found.eq(one) for found, one in pairs]
        if self.side == "b":
            one_place = Signal(self.element - 16)
            m.d.comb += one_place.eq(r.place)
            whole = [Cat(found, self._place_of(m, j, place_index)) for j, found in enumerate(along)]
            each = [Cat(found, one_place) for found in mine]
        else:
            whole, each = along, mine
        m.d.comb += [self.word.eq(Cat(whole)), self.each.eq(Cat(each)), self.spread.eq(~along_k)]
        one = along_k | steps_run
        lanes = ((Const(1, self.lanes + 1) << Mux(one, 1, count)) - 1) << lane
        m.d.comb += self.enable.eq(Mux(go, lanes, 0))

    def _place_of(self, m: Module, j: int, place_index: Value) -> Value:
        """Index of element j of a word, on a run along k: its lane, the column of a block, or what was read."""
        plan, r = self.plan, self.record.payload
        width = self.element - 16
        found = Signal(width, name=f"index{j}")
        with m.If(plan.diagonal):
            m.d.comb += found.eq(r.column)
        with m.Elif(plan.compressed & ~r.zero):
            m.d.comb += found.eq(place_index)
        with m.Else():
            m.d.comb += found.eq(j & _mask(plan.keep_shift))
        return found

    def _index(self, m: Module, needs: Value, go: Value, last: Value, place: Value) -> tuple[Value, Value]:
        """The index plane as a stream of indices, padded to bytes at every group. Returns (index, it is there)."""
        if self.side == "a":
            return Const(0), Const(1)
        plan, s, r = self.plan, self.sizes, self.record.payload
        width = plan.shift
        held, have = Signal(13), Signal(4)
        at = Signal(range(max(2, s.bus_bytes)))  # byte of the word
        bytes_taken = Signal(RUN_BITS + 1)
        wants, more, byte = Signal(), Signal(), Signal(8)
        index = Signal(5)
        total = Signal(RUN_BITS + 1)
        m.d.comb += [
            wants.eq(plan.compressed & needs), more.eq(wants & (have < width)),
            byte.eq(self.indices.payload.data.word_select(at, 8)),
            total.eq(r.groups * index_bytes(plan)),
        ]  # fmt: skip
        both = Signal(21)
        m.d.comb += both.eq(Mux(more, (held & _mask(have)) | (byte << have), held))
        m.d.comb += index.eq(both & _mask(width))
        step = Signal()
        m.d.comb += step.eq(go & wants)
        group_end = place + 1 == plan.keep
        end = bytes_taken + 1 == total
        wraps = at == s.bus_bytes - 1
        m.d.comb += self.indices.ready.eq(step & more & (end | (wraps & ~self.indices.payload.last)))
        with m.If(step):
            m.d.sync += [held.eq(both >> width), have.eq(have + Mux(more, 8, 0) - width)]
            with m.If(group_end):
                m.d.sync += have.eq(0)
            with m.If(more):
                m.d.sync += [at.eq(Mux(wraps, 0, at + 1)), bytes_taken.eq(bytes_taken + 1)]
            with m.If(last):
                m.d.sync += [at.eq(0), bytes_taken.eq(0), have.eq(0)]
        return index, ~more | self.indices.valid


def _least(left: Value, right: Value) -> Value:
    return Mux(left < right, left, right)


def _mask(bits: Any) -> Value:
    """Ones in the lowest ``bits`` bits."""
    return (Const(1, 1) << bits) - 1
