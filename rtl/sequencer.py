"""The array's sequencer: tile commands in, one micro-operation a cycle out, as contract sections 3 and 4 time them."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .array_parameters import COUNT_BITS, ArrayParameters
from .uspe import address_bits


def command_layout(parameters: ArrayParameters) -> data.StructLayout:
    """A tile.

    ``last`` ends a sequence. Tiles of a sequence share ``ws``, ``keep`` and ``interleave`` and follow each other as the
    contract says; the next sequence starts when the last word of this one has left the array.

    ========== ====================================================================
    ws         weight-stationary
    last       no tile follows in this sequence
    first      no partial sums of an earlier k-tile are added at the foot; OS ignores it with binary32 sums
    keep       N, 1..max_keep
    interleave OS: I, 1..max_interleave with I * N <= max_sums
    count      OS: groups along k; WS: rows of activations; at least 1
    ========== ====================================================================
    """
    return data.StructLayout(
        {
            "ws": 1, "last": 1, "first": 1,
            "keep": parameters.max_keep.bit_length(),
            "interleave": parameters.max_interleave.bit_length(),
            "count": COUNT_BITS,
        }
    )  # fmt: skip


def operation_layout(parameters: ArrayParameters) -> data.StructLayout:
    """What happens in a row at the cycle of issue; the row's edge delays each part to its time."""
    if parameters.window:
        weight = address_bits(parameters.weight_depth)
        names = ("need", "take", "add", "finish", "lane", "lane0", "first")
        return data.StructLayout({"weight": weight} | dict.fromkeys(names, 1))
    total = address_bits(parameters.sum_depth + 1)
    return data.StructLayout(
        {
            "need": 1, "take": 1, "weight": address_bits(parameters.weight_depth),
            "left": total, "right": total, "fold": 1,
            "write": 1, "write_at": total, "finish": 1, "finish_at": address_bits(parameters.max_interleave),
            "lane": 1, "lane0": 1, "first": 1,
        }
    )  # fmt: skip


def store_layout(parameters: ArrayParameters) -> data.StructLayout:
    """A weight word on its way down the rows: all rows keep it (OS), or one does (WS)."""
    return data.StructLayout(
        {
            "valid": 1, "all": 1,
            "row": address_bits(parameters.rows), "store_at": address_bits(parameters.weight_depth),
        }
    )  # fmt: skip


class Sequencer(wiring.Component):
    """Turns tiles into micro-operations; the tests hold it to ``nmsat.simulator.engine`` cycle for cycle.

    The first operation (OS) or weight word (WS) of a sequence is one cycle after its first command was taken. A missing
    command in mid-sequence delays the next tile, in WS to a multiple of N cycles; nothing else changes.

    Parameters
    ----------
    parameters : ArrayParameters

    Ports
    -----
    en : in, 1
        Clock enable.
    command, command_valid, command_take : in, in, out
        The next tile; ``command_take`` is high in the enabled cycle in which it is taken.
    ws, keep : out
        Configuration of the running sequence.
    operation : out
        :func:`operation_layout` for row 0, column 0.
    store : out
        :func:`store_layout`; also says that column 0 needs a weight word now.
    load, load_at : out
        Drain chains load in the next cycle.
    drained, drain_last, drain_first : out, 1
        Column 0 has a drained word at its foot; it is the last of its tile; its tile is ``first`` (window only).
    retired : in, 1
        The last column gave out the last word of a tile (OS) or a row (WS).
    idle : out, 1
        No sequence runs.
    """

    en: Signal
    command: Any
    command_valid: Signal
    command_take: Signal
    ws: Signal
    keep: Signal
    operation: Any
    store: Any
    load: Signal
    load_at: Signal
    drained: Signal
    drain_last: Signal
    drain_first: Signal
    retired: Signal
    idle: Signal

    def __init__(self, *, parameters: ArrayParameters) -> None:
        self.parameters = p = parameters
        super().__init__(
            {
                "en": In(1),
                "command": In(command_layout(p)), "command_valid": In(1), "command_take": Out(1),
                "ws": Out(1), "keep": Out(p.max_keep.bit_length()),
                "operation": Out(operation_layout(p)), "store": Out(store_layout(p)),
                "load": Out(1), "load_at": Out(address_bits(p.max_interleave)),
                "drained": Out(1), "drain_last": Out(1), "drain_first": Out(1), "retired": In(1), "idle": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """Sequence control, the two issue machines and the drain."""
        m = Module()
        command, take = self.command, self.command_take
        running, final = Signal(), Signal()  # a sequence runs; its last command was taken
        outstanding = Signal(24)
        over_os, over_ws, opened, retiring = Signal(), Signal(), Signal(), Signal()
        interleave, keep = Signal.like(command.interleave), self.keep
        quiet = ~running & (outstanding == 0)
        m.d.comb += self.idle.eq(quiet)
        with m.If(take):
            m.d.sync += [
                running.eq(1), final.eq(command.last), self.ws.eq(command.ws),
                keep.eq(command.keep), interleave.eq(command.interleave),
            ]  # fmt: skip
        with m.Elif(over_os | over_ws):
            m.d.sync += running.eq(0)
        m.d.comb += retiring.eq(self.retired & self.en)
        m.d.sync += outstanding.eq(outstanding + opened - retiring)
        take_os, take_ws = Signal(), Signal()
        m.d.comb += [
            take_os.eq(self.command_valid & Mux(quiet, ~command.ws, running & ~self.ws & ~final & self._want_os(m))),
            take_ws.eq(self.command_valid & Mux(quiet, command.ws, running & self.ws & ~final & self._want_ws(m))),
            take.eq(take_os | take_ws),
        ]
        finished = self._issue_os(m, take_os, final, interleave, over_os)
        opened_ws = self._issue_ws(m, take_ws, final, over_ws)
        m.d.comb += opened.eq(Mux(self.ws, opened_ws, finished))
        self._drain(m, finished, interleave)
        return EnableInserter(self.en)(m)

    def _want_os(self, m: Module) -> Signal:
        self._os_free = Signal(name="os_free")
        return self._os_free

    def _want_ws(self, m: Module) -> Signal:
        self._loader_free = Signal(name="loader_free")
        return self._loader_free

    def _issue_os(self, m: Module, take: Signal, final: Signal, interleave: Signal, over: Signal) -> Value:
        """Passes, fold rounds and the wait for the drain; returns the strobe of a tile's first finished sum."""
        p, command, keep, op = self.parameters, self.command, self.keep, self.operation
        La, bits = p.adder_latency, address_bits(p.sum_depth + 1)
        lanes = Signal(range(p.max_sums + 1))  # I * N
        length = Signal(range(max(p.max_sums, La) + 1))  # P
        drain = Signal(range(p.rows * p.max_interleave + 1))  # R * I
        busy, live, pending = Signal(), Signal(), Signal()  # pending: the tile before has sums to fold
        folding, waiting, bank = Signal(), Signal(), Signal()
        groups, number = Signal(COUNT_BITS), Signal(COUNT_BITS)  # G, p
        slot, i, n = Signal.like(length), Signal.like(interleave), Signal.like(keep)
        i_lane, age = Signal.like(lanes), Signal.like(drain)  # i * N; cycles since the tile's start, stops at R * I

        folds = keep - 1
        more_groups, more_folds = number + 1 < groups, pending & (number + 1 < folds)
        fold_next = pending & (number < folds)
        pass_end, fold_end = busy & ~folding & ~waiting & (slot == length - 1), folding & (i == interleave - 1)
        round_end = (pass_end & ~fold_next) | fold_end
        again = (live & more_groups) | more_folds
        drained = ~live | (age >= drain - 1)
        end = (round_end & ~again & drained) | (waiting & drained)
        flush = end & live & final & (keep > 1)
        m.d.comb += [
            self._os_free.eq(~busy | (end & live & ~final)),
            over.eq(end & Mux(live, final & (keep == 1), 1)),
        ]

        m.d.sync += [slot.eq(slot + 1), age.eq(Mux(age == drain, age, age + 1))]
        mac = busy & live & ~folding & ~waiting & (number < groups) & (slot < lanes)
        with m.If(mac | folding):
            wrap = folding | (n == keep - 1)
            m.d.sync += n.eq(Mux(wrap, 0, n + 1))
            with m.If(wrap):
                m.d.sync += [i.eq(i + 1), i_lane.eq(i_lane + keep)]
        with m.If(pass_end | fold_end):
            m.d.sync += [slot.eq(0), i.eq(0), n.eq(0), i_lane.eq(0), folding.eq(pass_end & fold_next)]
        with m.If(round_end):
            m.d.sync += number.eq(number + 1)
            with m.If(~again & ~drained):
                m.d.sync += waiting.eq(1)
        with m.If(end):
            m.d.sync += [busy.eq(0), waiting.eq(0), live.eq(0), pending.eq(live & (keep > 1))]
        with m.If(take | flush):
            m.d.sync += [
                busy.eq(1), live.eq(take), bank.eq(~bank), number.eq(0), age.eq(0),
                slot.eq(0), i.eq(0), n.eq(0), i_lane.eq(0),
            ]  # fmt: skip
        with m.If(take):
            product = Signal.like(lanes)
            m.d.comb += product.eq(command.interleave * command.keep)
            m.d.sync += [
                groups.eq(command.count), lanes.eq(product), length.eq(Mux(product > La, product, La)),
                drain.eq(command.interleave * p.rows),
            ]  # fmt: skip

        other = (Mux(bank, 0, p.max_sums) + i_lane)[0:bits]
        here = (Mux(bank, p.max_sums, 0) + slot)[0:bits]
        done = Mux(folding, number + 1 == folds, (keep == 1) & ~more_groups)
        acts = mac | folding
        with m.If(~self.ws):
            m.d.comb += [
                op.need.eq(mac), op.take.eq(mac & (n == keep - 1)),
                op.left.eq(Mux(folding, other, Mux(number == 0, p.zero_sum, here))),
                op.right.eq(Mux(folding, other + number + 1, p.zero_sum)), op.fold.eq(folding),
                op.write.eq(acts & ~done), op.write_at.eq(Mux(folding, other, here)),
                op.finish.eq(acts & done), op.finish_at.eq(i),
                self.store.valid.eq(mac), self.store.all.eq(1),
            ]  # fmt: skip
        return acts & done & (i == 0)

    def _issue_ws(self, m: Module, take: Signal, final: Signal, over: Signal) -> Value:
        """The weight loader and the row counter; returns the strobe of an output row."""
        p, command, keep, op = self.parameters, self.command, self.keep, self.operation
        bits = address_bits(p.weight_depth)
        loading, loaded, busy = Signal(), Signal(), Signal()
        row, lane, base = Signal(range(p.rows + 1)), Signal.like(keep), Signal(bits)
        next_count, next_first, count, first = Signal(COUNT_BITS), Signal(), Signal(COUNT_BITS), Signal()
        n, done, at = Signal.like(keep), Signal(COUNT_BITS), Signal(bits)
        oldest = max(p.adder_latency + 2, p.max_keep + 2)
        age = Signal(range(oldest + 1))
        word_end = lane == keep - 1
        load_end = loading & word_end & (row == 0)
        row_end, rows_end = busy & (n == keep - 1), done + 1 >= count
        active = Signal()  # rows of the product are left in this tile
        end = busy & self._tile_end(row_end, rows_end, active, age)
        opening = Signal()
        start = (loaded | load_end) & Mux(busy, end, opening | self._tile_place(n))
        m.d.comb += [
            self._loader_free.eq(start | ~(loading | loaded)),
            over.eq(end & final & ~loading & ~loaded),
        ]

        with m.If(loading):
            m.d.sync += lane.eq(Mux(word_end, 0, lane + 1))
            with m.If(word_end):
                m.d.sync += row.eq(row - 1)
        with m.If(load_end):
            m.d.sync += [loading.eq(0), loaded.eq(1)]
        m.d.sync += age.eq(Mux(age == oldest, age, age + 1))
        m.d.sync += n.eq(Mux(n == keep - 1, 0, n + 1))
        with m.If(take & self.idle):
            m.d.sync += opening.eq(1)
        with m.Elif(start):
            m.d.sync += opening.eq(0)
        with m.If(row_end):
            m.d.sync += done.eq(Mux(rows_end, done, done + 1))
        with m.If(row_end & rows_end):
            m.d.sync += active.eq(0)
        with m.If(end):
            m.d.sync += busy.eq(0)
        with m.If(start):
            m.d.sync += [
                busy.eq(1), active.eq(1), loaded.eq(0), n.eq(0), done.eq(0), age.eq(0), count.eq(next_count),
                first.eq(next_first), at.eq(base), base.eq(base + keep),
            ]  # fmt: skip
        with m.If(take):
            m.d.sync += [
                loading.eq(1),
                lane.eq(0),
                row.eq(p.rows - 1),
                next_count.eq(command.count),
                next_first.eq(command.first),
            ]

        mac = busy & active
        with m.If(self.ws):
            m.d.comb += [
                op.need.eq(mac), op.take.eq(mac & (n == keep - 1)), op.weight.eq(at + n),
                op.lane.eq(mac), op.lane0.eq(n == 0), op.first.eq(first),
                self.store.valid.eq(loading), self.store.row.eq(row), self.store.store_at.eq(base + lane),
            ]  # fmt: skip
            if not p.window:
                m.d.comb += [op.left.eq(p.zero_sum), op.right.eq(p.zero_sum)]
        return op.lane & op.lane0

    def _tile_end(self, row_end: Value, rows_end: Value, active: Value, age: Value) -> Value:
        """Whole rows, and the output buffer has the previous k-tile's sums."""
        return row_end & rows_end & (age >= self.parameters.adder_latency + 1)

    def _tile_place(self, n: Signal) -> Value:
        """Whether a tile whose command came late may start in the next cycle.

        It starts a multiple of N cycles after those before it: the feet add one output a cycle only if all outputs of a
        sequence are N apart.
        """
        return n == self.keep - 1

    def _drain(self, m: Module, finished: Any, interleave: Signal) -> None:
        """The drain chains load R - 1 cycles after row 0 has its first sum, then every R cycles."""
        p = self.parameters
        begin = finished & ~self.ws
        for stage in range(p.multiplier_latency + p.adder_latency + p.rows - 2):
            late = Signal(name=f"begin{stage}")
            m.d.sync += late.eq(begin)
            begin = late
        active, word, i = Signal(), Signal(range(p.rows)), Signal.like(interleave)
        set_end, last = active & (word == p.rows - 1), i == interleave - 1
        m.d.comb += [self.load.eq(begin | (set_end & ~last)), self.load_at.eq(Mux(begin, 0, i + 1))]
        with m.If(active):
            m.d.sync += word.eq(word + 1)
        with m.If(set_end):
            m.d.sync += [word.eq(0), i.eq(i + 1), active.eq(~last)]
        with m.If(begin):
            m.d.sync += [active.eq(1), word.eq(0), i.eq(0)]
        m.d.sync += [self.drained.eq(active), self.drain_last.eq(set_end & last)]
