"""A product descriptor checked against what the unit can do, and the numbers that follow from it."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow import program as fmt
from ...dataflow.program import Kind
from ..array_parameters import COUNT_BITS
from ..descriptor import DESCRIPTOR_BITS, descriptor_layout
from ..registers import Code
from .sizes import DIMENSION_BITS, POSITION_BITS, Sizes

PRODUCT = descriptor_layout(Kind.PRODUCT)

REFUSED_FLAGS = fmt.ONLINE_PRUNE | fmt.NO_VALUES  # STATISTICS stores nothing: the host forms the sums
_DIVISION = DIMENSION_BITS + 1


def plan_layout(sizes: Sizes) -> data.StructLayout:
    """What the parts of the unit need to know; steady from ``ready`` to the next descriptor.

    ============= ==========================================================
    shift         log2 M
    keep_shift    log2 N, rounded up
    tap_groups    groups of a tap
    groups        G, groups along k
    k_tiles       tiles along k; 1 in OS, unless sums of a window spill
    k_groups      window: groups of a tile in OS, ``k_groups_last`` of the last one along k
    n_tiles       tiles along n
    m_blocks      OS: tiles along m; WS: chunks of m
    rows          rows of a block: R * I, or the chunk
    rows_last     of the last block: R * I, or what is left
    a_steps       steps of a block of A, ``a_steps_last`` of the last one
    a_stays       a block of A is read once and serves all n tiles
    b_steps       steps of B: of all n tiles where it stays, else of one
    b_stays       B is read once a repeat and serves all blocks of A
    a_runs_k      elements of A lie one after the other along k; else along m, or alone
    a_run         longest run of A along m
    b_runs_k      as above, for B
    b_run         longest run of B along n
    compressed    B has an index plane
    diagonal      B is a depthwise block: one value a column, whose place is the column
    columns_run   results leave column by column
    ============= ==========================================================
    """
    rows = sizes.bank_rows.bit_length()
    spilled = {"k_groups": COUNT_BITS, "k_groups_last": COUNT_BITS} if sizes.array.window else {}
    return data.StructLayout(
        {
            **spilled, "ws": 1, "shift": 3, "keep_shift": 3, "keep": 6, "group": 6,
            "interleave": sizes.array.max_interleave.bit_length(),
            "tap_groups": COUNT_BITS, "groups": COUNT_BITS, "k_tiles": COUNT_BITS, "n_tiles": DIMENSION_BITS,
            "m_blocks": DIMENSION_BITS, "rows": rows, "rows_last": rows,
            "a_steps": POSITION_BITS, "a_steps_last": POSITION_BITS, "a_stays": 1,
            "b_steps": POSITION_BITS, "b_stays": 1,
            "a_runs_k": 1, "a_run": 6, "b_runs_k": 1, "b_run": 6,
            "compressed": 1, "diagonal": 1, "columns_run": 1,
        }
    )  # fmt: skip


class Planner(wiring.Component):
    """Takes a descriptor, says how it is executed or why not; a product and a bit of a quotient a cycle.

    Ports
    -----
    start : in, 1
        ``descriptor`` is new; it stays until ``ready`` or ``refused``.
    descriptor : in
    plan : out
        :func:`plan_layout`.
    ready, refused : out, 1
        For a cycle.
    code : out, 8
        Why, with ``refused``.
    """

    start: Signal
    descriptor: Signal
    plan: Any
    ready: Signal
    refused: Signal
    code: Signal

    def __init__(self, *, sizes: Sizes) -> None:
        self.sizes = sizes
        super().__init__(
            {
                "start": In(1), "descriptor": In(DESCRIPTOR_BITS), "plan": Out(plan_layout(sizes)),
                "ready": Out(1), "refused": Out(1), "code": Out(8),
            }
        )  # fmt: skip

    @property
    def latency(self) -> int:
        """Cycles from ``start`` to ``ready`` or ``refused``."""
        return _DIVISION + 2

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        d, plan = data.View(PRODUCT, self.descriptor), self.plan
        flags, step, busy = d.flags, Signal(range(_DIVISION + 2)), Signal()
        transposed, swapped = (flags & fmt.TRANSPOSED_A).bool(), (flags & fmt.SWAPPED).bool()
        m.d.sync += step.eq(step + 1)
        with m.If(self.start):
            m.d.sync += [busy.eq(1), step.eq(0)]
            self._simple(m, d, transposed, swapped)
        bad_size, overfull = self._products(m, d, step, busy, transposed, swapped)
        self._blocks(m, d, step, busy)
        if self.sizes.array.window:
            self._spill(m, d, step, busy)
        checks = [
            (self._bad_flags(d), Code.UNSUPPORTED),
            (self._bad_pattern(d), Code.BAD_PATTERN),
            (self._bad_field(d, transposed, swapped) | overfull, Code.BAD_FIELD),
            (self._zero_or_large(d) | bad_size | (plan.groups == 0), Code.BAD_SIZE),
            (self._misaligned(d), Code.BAD_ALIGNMENT),
            (self._unsupported(d, transposed), Code.UNSUPPORTED),
        ]
        code = Value.cast(0)
        for wrong, number in reversed(checks):
            code = Mux(wrong, number, code)
        with m.If(busy & (step == _DIVISION + 1)):
            m.d.sync += busy.eq(0)
            m.d.comb += [self.code.eq(code), self.refused.eq(self.code != 0), self.ready.eq(self.code == 0)]
        return m

    def _simple(self, m: Module, d: Any, transposed: Value, swapped: Value) -> None:
        """Numbers that need no product."""
        s, plan = self.sizes, self.plan
        a = s.array
        shift = Value.cast(0)
        for bits in range(1, 6):
            shift = Mux(d.group == 1 << bits, bits, shift)
        keep_shift = Value.cast(5)
        for bits in reversed(range(5)):
            keep_shift = Mux(d.keep <= 1 << bits, bits, keep_shift)
        sparse = d.keep != d.group
        diagonal = (d.block > 1) & sparse
        strided_k, strided_x = d.b_stride_k == 1, Mux(d.b_stride_n == 1, 32, 1)
        m.d.sync += [
            plan.ws.eq(d.mode), plan.shift.eq(shift), plan.keep_shift.eq(keep_shift), plan.keep.eq(d.keep),
            plan.group.eq(d.group), plan.interleave.eq(d.interleave),
            plan.tap_groups.eq((d.kc + d.group - 1) >> shift),
            plan.n_tiles.eq((d.n + (a.cols - 1)) // a.cols),
            plan.rows.eq(Mux(d.mode, d.m_chunk, d.interleave * a.rows)),
            plan.compressed.eq(sparse & ~diagonal), plan.diagonal.eq(diagonal),
            plan.a_runs_k.eq(~transposed & (~swapped | strided_k)),
            plan.a_run.eq(Mux(transposed, 32, strided_x)),
            plan.b_runs_k.eq(swapped | diagonal | (sparse | strided_k)),
            plan.b_run.eq(strided_x),
            plan.columns_run.eq(swapped | (d.c_stride_n != 1)),
        ]  # fmt: skip

    def _products(
        self, m: Module, d: Any, step: Signal, busy: Signal, transposed: Value, swapped: Value
    ) -> tuple[Value, Value]:
        """One multiplier, a product a cycle. Whether a size is wrong, and an OS tile too long for a window."""
        s, plan = self.sizes, self.plan
        a = s.array
        left, right = Signal(32), Signal(DIMENSION_BITS)
        found = Signal(32 + DIMENSION_BITS)
        wrong, overfull, pixels = Signal(), Signal(), Signal(DIMENSION_BITS)
        m.d.comb += found.eq(left * right)
        taps = Signal(16)
        with m.If(busy), m.Switch(step):
            with m.Case(0):
                m.d.comb += [left.eq(d.taps_y), right.eq(d.taps_x)]
                m.d.sync += [taps.eq(found), wrong.eq(found[16:].any() | (found == 0))]
            with m.Case(1):
                m.d.comb += [left.eq(plan.tap_groups), right.eq(Mux(transposed, 1, taps))]
                m.d.sync += [
                    plan.groups.eq(found), wrong.eq(wrong | found[COUNT_BITS:].any()),
                    plan.k_tiles.eq(Mux(plan.ws, (found[:COUNT_BITS] + (a.rows - 1)) // a.rows, 1)),
                ]  # fmt: skip
            with m.Case(2):
                m.d.comb += [left.eq(d.images), right.eq(d.out_h)]
                m.d.sync += [pixels.eq(found), wrong.eq(wrong | found[DIMENSION_BITS:].any())]
            with m.Case(3):
                m.d.comb += [left.eq(d.out_w), right.eq(pixels)]
                have = Mux(transposed, d.kc, Mux(swapped, d.n, d.m))
                m.d.sync += wrong.eq(wrong | (found != have))
            with m.Case(4):
                m.d.comb += [left.eq(d.in_c), right.eq(Mux(transposed, taps, 1))]
                m.d.sync += wrong.eq(wrong | (found != Mux(transposed, d.m, d.kc)))
            with m.Case(5):
                m.d.comb += [left.eq(d.out_h - 1), right.eq(d.c_step_y)]
                m.d.sync += wrong.eq(wrong | (~transposed & (found + d.c_first_y >= d.c_h)))
            with m.Case(6):
                m.d.comb += [left.eq(d.out_w - 1), right.eq(d.c_step_x)]
                m.d.sync += wrong.eq(wrong | (~transposed & (found + d.c_first_x >= d.c_w)))
            with m.Case(7):
                m.d.comb += [left.eq(plan.n_tiles), right.eq(Mux(plan.ws, plan.k_tiles * a.rows, plan.groups))]
                stays = found <= b_capacity(s, plan)
                m.d.sync += [plan.b_stays.eq(stays), plan.b_steps.eq(Mux(stays, found, right))]
            with m.Case(8):
                factor = Mux(plan.ws, plan.k_tiles, plan.groups)
                m.d.comb += [left.eq(factor), right.eq(Mux(plan.ws, plan.rows, plan.interleave))]
                m.d.sync += [plan.a_steps.eq(found), plan.a_stays.eq(found <= a_capacity(s, plan))]
            if a.window:
                with m.Case(9):
                    m.d.comb += [left.eq(plan.k_groups), right.eq(plan.keep)]
                    m.d.sync += overfull.eq(~plan.ws & (found > a.window.terms))
            with m.Case(_DIVISION):
                m.d.comb += [left.eq(plan.k_tiles), right.eq(plan.rows_last)]
                m.d.sync += plan.a_steps_last.eq(Mux(plan.ws, found, plan.a_steps))
        return wrong, overfull

    def _divide(self, m: Module, name: str, load: Value, step: Value, dividend: Value, divisor: Value) -> Any:
        """A bit a cycle in which ``step`` is set, after ``load``: (quotient, rest)."""
        bits = len(dividend)
        rest, quotient = Signal(bits + 1, name=f"{name}_rest"), Signal(bits, name=f"{name}_quotient")
        trial = Signal(bits + 1, name=f"{name}_trial")
        m.d.comb += trial.eq(Cat(quotient[-1], rest))
        with m.If(load):
            m.d.sync += [rest.eq(0), quotient.eq(dividend)]
        with m.Elif(step):
            fits = trial >= divisor
            m.d.sync += [rest.eq(Mux(fits, trial - divisor, trial)), quotient.eq(Cat(fits, quotient))]
        return quotient, rest

    def _blocks(self, m: Module, d: Any, step: Signal, busy: Signal) -> None:
        """m / rows: blocks, and the rows of the last one."""
        plan = self.plan
        running = busy & (step < DIMENSION_BITS)
        quotient, rest = self._divide(m, "blocks", self.start, running, d.m[:DIMENSION_BITS], plan.rows)
        with m.If(busy & (step == DIMENSION_BITS)):
            whole = rest == 0
            m.d.sync += [
                plan.m_blocks.eq(quotient + ~whole),
                plan.rows_last.eq(Mux(whole | ~plan.ws, plan.rows, rest)),
            ]

    def _spill(self, m: Module, d: Any, step: Signal, busy: Signal) -> None:
        """With a window, OS: groups / k_tile."""
        plan = self.plan
        load, running = busy & (step == 2), busy & (step > 2) & (step < 3 + COUNT_BITS)
        quotient, rest = self._divide(m, "spill", load, running, plan.groups, d.k_tile[:COUNT_BITS])
        spills, whole = ~plan.ws & d.k_tile.any(), rest == 0
        with m.If(load):
            m.d.sync += plan.k_groups.eq(Mux(spills, d.k_tile, plan.groups))
        with m.If(busy & (step == DIMENSION_BITS)):
            m.d.sync += plan.k_groups_last.eq(Mux(spills & ~whole, rest, plan.k_groups))
            with m.If(spills):
                m.d.sync += plan.k_tiles.eq(quotient + ~whole)

    def _bad_flags(self, d: Any) -> Value:
        known = (1 << 13) - 1
        window = self.sizes.array.window
        lsb = window.lsb if window else 0
        return (d.flags & (REFUSED_FLAGS | (0xFFFF & ~known))).any() | (d.window_lsb != lsb)

    def _bad_pattern(self, d: Any) -> Value:
        a = self.sizes.array
        power = (d.group & (d.group - 1)) == 0
        return (d.keep == 0) | (d.keep > a.max_keep) | (d.group > a.max_group) | (d.keep > d.group) | ~power

    def _bad_field(self, d: Any, transposed: Value, swapped: Value) -> Value:
        a = self.sizes.array
        sums = d.interleave * d.keep
        k_wrong = (d.k_tile != 0) & (d.k_tile >= self.plan.groups) if a.window else d.k_tile != 0
        os_wrong = (d.interleave == 0) | (d.interleave > a.max_interleave) | (sums > a.max_sums) | k_wrong
        ws_wrong = (d.k_tile != a.rows) | (d.interleave != 1)
        mode = (d.mode > 1) | Mux(d.mode[0], ws_wrong, os_wrong)
        sparse = d.keep != d.group
        exchange = swapped & (transposed | ~sparse | (d.block > 1))
        block = (d.block == 0) | ((d.block > 1) & ((d.n != d.block) | (sparse & ((d.keep != 1) | (d.kc != d.block)))))
        masks = (d.flags & fmt.WRITE_MASK).bool() & (d.flags & fmt.APPLY_MASK).bool()
        sparse_update = transposed & sparse
        return mode | exchange | block | masks | sparse_update | (d.kind != Kind.PRODUCT) | d.reserved.any()

    def _zero_or_large(self, d: Any) -> Value:
        wrong = Value.cast(0)
        for name in ("m", "n", "kc", "count", "inner", "images", "in_h", "in_w", "in_c", "out_h", "out_w"):
            wrong = wrong | (d[name] == 0) | (d[name] >> DIMENSION_BITS).any()
        ws = d.mode[0]
        rows = (d.m_chunk == 0) | (d.m_chunk > self.sizes.bank_rows)
        return wrong | (ws & rows)

    def _misaligned(self, d: Any) -> Value:
        """Addresses by their types; whole groups where B is compressed."""
        wide = (d.flags & fmt.OUT_FP32).bool()
        wrong = d.a_address[0] | d.b_address[0] | d.c_address[0] | (wide & d.c_address[1])
        groups = Value.cast(0)
        for name in ("b_repeat", "b_outer"):
            groups = groups | (d[name][:6] & (d.group - 1)[:6]).any()
        strided = ((d.b_stride_tap | d.b_stride_n)[:6] & (d.group - 1)[:6]).any() | (d.b_stride_k != 1)
        mapped = (d.a_pixel[:6] & (d.group - 1)[:6]).any()
        swapped = (d.flags & fmt.SWAPPED).bool()
        return wrong | (self.plan.compressed & (groups | Mux(swapped, mapped, strided)))

    def _unsupported(self, d: Any, transposed: Value) -> Value:
        """Legal, but not built: results whose elements lie apart both ways, masks that share bytes between rows."""
        flags = d.flags
        swapped = (flags & fmt.SWAPPED).bool()
        apart = self.plan.columns_run & ((d.c_stride_m != 1) | ~(transposed | swapped))
        masks = (flags & fmt.WRITE_MASK).bool() & (
            self.plan.columns_run | d.n[:3].any() | d.c_stride_m[:3].any() | d.c_repeat[:3].any() | d.c_outer[:3].any()
        )
        masks = masks | ((flags & fmt.WRITE_MASK).bool() & (flags & fmt.OUT_FP32).bool())
        diagonal = transposed & (d.block > 1)
        return apart | masks | diagonal


def tile_groups(sizes: Sizes, plan: Any, last: Value) -> Value:
    """Groups of an OS tile, of the last one along k."""
    return Mux(last, plan.k_groups_last, plan.k_groups) if sizes.array.window else plan.groups


def a_capacity(sizes: Sizes, plan: Any) -> Value:
    """Steps that the memory of a row holds."""
    return (sizes.west_words * sizes.group_places) >> plan.shift


def b_capacity(sizes: Sizes, plan: Any) -> Value:
    """Steps that the memory of a column holds: N values each, N rounded up to a power of two."""
    return (sizes.north_words * sizes.keep_places) >> plan.keep_shift
