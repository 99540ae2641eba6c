"""In which order an update goes through a layer's weights, and where its backward groups belong."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .update_parameters import SEGMENT, TILE

GEOMETRY = data.StructLayout(
    {
        "columns": 32,  # taps * in_channels; all weights where there is no backward copy
        "rows": 32,  # output channels of a group of the convolution; 1 where there is no backward copy
        "groups": 32,  # groups of the convolution
        "taps": 32,
        "in_channels": 32,
        "column_groups": 32,  # N:M groups of a column: rows / M
        "channel_step": 32,  # taps * column_groups
        "group_step": 32,  # columns * column_groups
        "tile_groups": 6,  # TILE / M
    }
)
"""Sizes of a layer, steady while it is walked."""


class RowWalker(wiring.Component):
    """Segments of up to TILE weights: for each group, each block of TILE rows, each TILE columns, row after row.

    A segment a cycle; the first one two cycles after ``start``. Reset ends the walk.

    Ports
    -----
    start : in, 1
        Begin; only while ``busy`` is low.
    geometry : in
    segment : out, stream of :data:`.update_parameters.SEGMENT`
    busy : out, 1
        Segments are left.
    """

    def __init__(self) -> None:
        super().__init__(
            {"start": In(1), "geometry": In(GEOMETRY), "segment": Out(stream.Signature(SEGMENT)), "busy": Out(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size, out = self.geometry, self.segment
        row_base, block_base, column, columns_left, rows_left, groups_left = (
            Signal(32, name=name)
            for name in ("row_base", "block_base", "column", "columns_left", "rows_left", "groups_left")
        )
        tile_rows_left = Signal(range(TILE + 1))
        last_columns, last_rows, last_row = Signal(), Signal(), Signal()
        next_row, rows_after = Signal(32), Signal(32)
        m.d.comb += [
            last_columns.eq(columns_left <= TILE),
            last_rows.eq(rows_left <= TILE),
            last_row.eq(tile_rows_left == 1),
            next_row.eq(row_base + size.columns),
            rows_after.eq(Mux(last_rows, size.rows, rows_left - TILE)),
            out.valid.eq(self.busy),
            out.payload.offset.eq(row_base + column),
            out.payload.count.eq(Mux(last_columns, columns_left, TILE)),
            out.payload.last_row.eq(last_row),
        ]
        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1),
                row_base.eq(0),
                block_base.eq(0),
                column.eq(0),
                columns_left.eq(size.columns),
                rows_left.eq(size.rows),
                groups_left.eq(size.groups),
                tile_rows_left.eq(_at_most_tile(size.rows)),
            ]
        with m.Elif(self.busy & out.ready):
            with m.If(~last_row):
                m.d.sync += [row_base.eq(next_row), tile_rows_left.eq(tile_rows_left - 1)]
            with m.Elif(~last_columns):
                m.d.sync += [
                    row_base.eq(block_base),
                    column.eq(column + TILE),
                    columns_left.eq(columns_left - TILE),
                    tile_rows_left.eq(_at_most_tile(rows_left)),
                ]
            with m.Else():
                m.d.sync += [
                    row_base.eq(next_row),
                    block_base.eq(next_row),
                    column.eq(0),
                    columns_left.eq(size.columns),
                    rows_left.eq(rows_after),
                    tile_rows_left.eq(_at_most_tile(rows_after)),
                ]
                with m.If(last_rows):
                    m.d.sync += groups_left.eq(groups_left - 1)
                    with m.If(groups_left == 1):
                        m.d.sync += self.busy.eq(0)
        return m


class ColumnWalker(wiring.Component):
    """Where the columns of those tiles belong in the backward copy: (group, in channel, tap, N:M group along rows).

    A column a cycle. No reset of what it holds: ``start`` begins anew.

    Ports
    -----
    start : in, 1
    geometry : in
    taken : in, 1
        A column has been taken: go on to the next.
    place : out, 32
        Number of the column's first N:M group in memory order.
    """

    def __init__(self) -> None:
        super().__init__({"start": In(1), "geometry": In(GEOMETRY), "taken": In(1), "place": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size = self.geometry
        channels_left, taps_left, rows_left = (
            Signal(32, name=name, reset_less=True) for name in ("channels_left", "taps_left", "rows_left")
        )
        tap_base, block_base, group_base = (
            Signal(32, name=name, reset_less=True) for name in ("tap_base", "block_base", "group_base")
        )
        last_rows, next_block = Signal(), Signal(32)
        m.d.comb += [
            last_rows.eq(rows_left <= TILE),
            next_block.eq(Mux(last_rows, group_base + size.group_step, block_base + size.tile_groups)),
        ]
        with m.If(self.start):
            m.d.sync += [place.eq(0) for place in (self.place, tap_base, block_base, group_base)]
            m.d.sync += [channels_left.eq(size.in_channels), taps_left.eq(size.taps), rows_left.eq(size.rows)]
        with m.Elif(self.taken):
            with m.If(channels_left != 1):
                m.d.sync += [self.place.eq(self.place + size.channel_step), channels_left.eq(channels_left - 1)]
            with m.Else():
                m.d.sync += channels_left.eq(size.in_channels)
                with m.If(taps_left != 1):
                    following = tap_base + size.column_groups
                    m.d.sync += [tap_base.eq(following), self.place.eq(following), taps_left.eq(taps_left - 1)]
                with m.Else():
                    m.d.sync += [place.eq(next_block) for place in (self.place, tap_base, block_base)]
                    m.d.sync += [taps_left.eq(size.taps), rows_left.eq(Mux(last_rows, size.rows, rows_left - TILE))]
                    with m.If(last_rows):
                        m.d.sync += group_base.eq(next_block)
        return m


def _at_most_tile(count: Any) -> Any:
    return Mux(count <= TILE, count, TILE)
