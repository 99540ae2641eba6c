"""What an update unit makes of a descriptor before it begins: legality, patterns, sizes."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dataflow import program as fmt
from ..dataflow.program import Kind
from .descriptor import descriptor_layout
from .registers import Code
from .update_parameters import PATTERN, TILE, UpdateParameters
from .update_planes import PLANES
from .update_read import SOURCES
from .update_walk import GEOMETRY

PLAN = data.StructLayout(
    {
        "status": 8,
        "idle": 1,  # nothing to do
        "update": 1,  # else prune
        "tiled": 1,  # with a backward copy
        "forward": 1,
        "dense_copy": 1,
        "mask_on": 1,
        "find_mask": 1,  # by selection, from the dense copy
        "dense_address": 64,
        "mask": PATTERN,
        "sources": SOURCES,
        "planes_dense": PLANES,
        "planes_column": PLANES,
        "planes_row": PLANES,
        "geometry": GEOMETRY,
    }
)
"""A descriptor as the unit executes it. With a status it must not be executed."""
MULTIPLY_CYCLES = 3
DIVIDE_CYCLES = 32


class UpdateSetup(wiring.Component):
    """UPDATE and PRUNE descriptors to plans; refuses what the unit cannot execute.

    Sizes need products (three cycles each, on one multiplier) and, for a grouped convolution with a backward copy, a
    division (33 cycles). A plan is offered 3 + 3 p cycles after its descriptor was taken, p = 1 for PRUNE, 2 for UPDATE
    and 4 with a backward copy, plus the division's; a descriptor whose own fields are illegal, and a PRUNE without
    work, after 2. Reset drops it.

    Parameters
    ----------
    parameters : UpdateParameters

    Ports
    -----
    start : in, stream of 2048-bit descriptors
    plan : out, stream of PLAN
    """

    def __init__(self, parameters: UpdateParameters) -> None:
        self.parameters = parameters
        super().__init__({"start": In(stream.Signature(2048)), "plan": Out(stream.Signature(PLAN))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        item = Signal(descriptor_layout(Kind.UPDATE), reset_less=True)
        plan, size = self.plan.payload, self.plan.payload.geometry
        status = Signal(8)
        prune, update = item.kind == Kind.PRUNE, item.kind == Kind.UPDATE
        patterns = {side: self._pattern(m, item, side) for side in ("ff", "bp", "mask")}
        ff, bp, mask = patterns["ff"], patterns["bp"], patterns["mask"]
        masked = mask.on & (mask.keep != mask.group)
        plane = masked & ff.on
        tiled = Signal()
        rows, remainder, count = Signal(32), Signal(32), Signal(range(DIVIDE_CYCLES + 1))
        column_groups = Signal(32)
        m.d.comb += [
            tiled.eq(update & bp.on),
            column_groups.eq(rows >> bp.shift),
            plan.status.eq(status),
            plan.idle.eq(prune & ~(item.flags & fmt.SWAPPED).any()),
            plan.update.eq(update),
            plan.tiled.eq(tiled),
            plan.forward.eq(update & ff.on),
            plan.dense_copy.eq(update & (item.flags & fmt.OUT_FP32).any()),
            plan.dense_address.eq(item.w16_address),
            plan.mask_on.eq(update & masked),
            plan.find_mask.eq(update & masked & ~ff.on),
            plan.mask.eq(mask),
            plan.sources.dense.eq(Mux(update & plane, item.ff_index_address, item.w16_address)),
            plan.sources.w32.eq(item.w32_address),
            plan.sources.v32.eq(item.v32_address),
            plan.sources.gradient.eq(item.gradient_address),
            plan.sources.rule.eq(item.rule_address),
            plan.sources.update.eq(update),
            plan.sources.dense_on.eq(prune | masked),
            plan.sources.indices.eq(update & plane),
            plan.planes_dense.pattern.eq(Mux(prune, bp, mask)),
            plan.planes_dense.values.eq(item.bp_address),
            plan.planes_dense.indices.eq(item.bp_index_address),
            plan.planes_column.pattern.eq(bp),
            plan.planes_column.values.eq(item.bp_address),
            plan.planes_column.indices.eq(item.bp_index_address),
            plan.planes_row.pattern.eq(ff),
            plan.planes_row.values.eq(item.ff_address),
            plan.planes_row.indices.eq(item.ff_index_address),
            size.taps.eq(item.taps),
            size.in_channels.eq(item.in_channels),
            size.rows.eq(Mux(tiled, rows, 1)),
            size.groups.eq(Mux(tiled, item.groups, 1)),
            size.column_groups.eq(column_groups),
            size.tile_groups.eq(Const(TILE) >> bp.shift),
        ]

        columns, total, channel_step, group_step = (Signal(32, name=f"product{i}") for i in range(4))
        m.d.comb += [
            size.columns.eq(Mux(tiled, columns, total)),
            size.channel_step.eq(channel_step),
            size.group_step.eq(group_step),
        ]
        operands = (
            (Mux(prune, item.out_channels, item.taps), item.in_channels, columns),
            (item.out_channels, columns, total),
            (item.taps, column_groups, channel_step),
            (columns, column_groups, group_step),
        )
        last = Mux(prune, 0, Mux(tiled, 3, 1))
        a, b, product, step = Signal(32), Signal(32), Signal(64), Signal(2)
        m.d.sync += product.eq(a * b)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.start.ready.eq(1)
                with m.If(self.start.valid):
                    m.d.sync += [item.eq(self.start.payload), status.eq(Code.OK)]
                    m.next = "CHECK"
            with m.State("CHECK"):
                found = self._check(m, item, patterns, plane, masked)
                m.d.sync += [status.eq(found), step.eq(0), count.eq(DIVIDE_CYCLES)]
                m.d.sync += [rows.eq(item.out_channels), remainder.eq(0)]
                with m.If((found != Code.OK) | plan.idle):
                    m.next = "GIVE"
                with m.Elif(tiled & (item.groups != 1)):
                    m.next = "DIVIDE"
                with m.Else():
                    m.next = "OPERANDS"
            with m.State("DIVIDE"):  # rows becomes the quotient, a bit a cycle from the top
                shifted = Signal(33)
                fits = Signal()
                m.d.comb += [shifted.eq((remainder << 1) | rows[31]), fits.eq(shifted >= item.groups)]
                with m.If(count != 0):
                    m.d.sync += [
                        remainder.eq(shifted - Mux(fits, item.groups, 0)),
                        rows.eq((rows << 1) | fits),
                        count.eq(count - 1),
                    ]
                with m.Elif(remainder != 0):
                    m.d.sync += status.eq(Code.BAD_SIZE)
                    m.next = "GIVE"
                with m.Else():
                    m.next = "OPERANDS"
            with m.State("OPERANDS"):
                with m.Switch(step):
                    for place, (one, other, _) in enumerate(operands):
                        with m.Case(place):
                            m.d.sync += [a.eq(one), b.eq(other)]
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.next = "STORE"
            with m.State("STORE"):
                with m.Switch(step):
                    for place, (_, _, target) in enumerate(operands):
                        with m.Case(place):
                            m.d.sync += target.eq(product)
                with m.If(prune):
                    m.d.sync += total.eq(product)
                with m.If(product[32:].any()):
                    m.d.sync += status.eq(Code.BAD_SIZE)
                m.d.sync += step.eq(step + 1)
                m.next = "OPERANDS"
                with m.If(step == last):
                    m.next = "SIZES"
            with m.State("SIZES"):
                grouped = Mux(prune, total, rows)
                with m.If((prune | tiled) & (grouped & (bp.group - 1)[:6]).any()):
                    m.d.sync += status.eq(Code.BAD_SIZE)
                m.next = "GIVE"
            with m.State("GIVE"):
                m.d.comb += self.plan.valid.eq(1)
                with m.If(self.plan.ready):
                    m.next = "IDLE"
        return m

    def _pattern(self, m: Module, item: Any, side: str) -> Any:
        """N:M as the descriptor names it; without sense where it is not legal."""
        keep, group = item[f"{side}_keep"], item[f"{side}_group"]
        found = Signal(PATTERN, name=side)
        m.d.comb += [found.on.eq(keep != 0), found.keep.eq(keep), found.group.eq(group)]
        for shift in range(self.parameters.max_group.bit_length()):
            with m.If(group == 1 << shift):
                m.d.comb += found.shift.eq(shift)
                with m.If(keep != group):
                    m.d.comb += found.index_bytes.eq((keep * shift + 7) >> 3)
        return found

    def _check(self, m: Module, item: Any, patterns: dict[str, Any], plane: Any, masked: Any) -> Any:
        """Status of the fields alone; the most basic fault wins."""
        p = self.parameters
        prune = item.kind == Kind.PRUNE
        ff, bp, mask = patterns["ff"], patterns["bp"], patterns["mask"]
        dense_copy = (item.flags & fmt.OUT_FP32).any()
        sizes = [1 << shift for shift in range(p.max_group.bit_length())]

        def pattern_bad(side: str) -> Any:
            keep, group = item[f"{side}_keep"], item[f"{side}_group"]
            known = Const(0)
            for size in sizes:
                known = known | (group == size)
            return (keep != 0) & (~known | (keep > group) | (keep > p.max_keep))

        def misfit(found: Any) -> Any:
            return found.on & (item.in_channels & (found.group - 1)[:6]).any()

        bad_pattern = Mux(
            prune,
            ~bp.on | pattern_bad("bp"),
            pattern_bad("ff") | pattern_bad("bp") | pattern_bad("mask")
            | (ff.on & mask.on & ((ff.keep != mask.keep) | (ff.group != mask.group))),
        )  # fmt: skip
        zero = (item.out_channels == 0) | (item.in_channels == 0)
        bad_size = zero | (~prune & ((item.taps == 0) | (item.groups == 0) | misfit(ff) | misfit(mask)))
        wide = item.w32_address | item.v32_address | item.gradient_address | item.rule_address
        narrow = (
            Mux(dense_copy | prune | (masked & ~plane), item.w16_address, 0)
            | Mux(ff.on & ~prune, item.ff_address, 0)
            | Mux(bp.on, item.bp_address, 0)
        )
        bad_alignment = narrow[0] | (~prune & wide[:2].any())
        status = Signal(8)
        with m.If((item.kind != Kind.UPDATE) & ~prune):
            m.d.comb += status.eq(Code.BAD_KIND)
        with m.Elif((item.flags & fmt.NO_VALUES).any()):
            m.d.comb += status.eq(Code.UNSUPPORTED)
        with m.Elif(prune & ~(item.flags & fmt.SWAPPED).any()):
            m.d.comb += status.eq(Code.OK)
        with m.Elif(bad_pattern):
            m.d.comb += status.eq(Code.BAD_PATTERN)
        with m.Elif(bad_size):
            m.d.comb += status.eq(Code.BAD_SIZE)
        with m.Elif(bad_alignment):
            m.d.comb += status.eq(Code.BAD_ALIGNMENT)
        return status
