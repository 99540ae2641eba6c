"""In which order a pooling pass goes through its source: for each result the places of its window inside the image."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

SEGMENT = 64
RUN = data.StructLayout(
    {
        "offset": 32,
        "target": 32,
        "count": range(SEGMENT + 1),
        "first": 1,
        "last": 1,
        "second": 1,
        "index": 16,
    }
)
"""Elements of a run: the first one's number before and behind the pool, how many; of a window's places, whether it is
the first or the last inside, its number; whether the window is walked for the second time."""
WINDOW = data.StructLayout(
    {
        "on": 1,  # else a flat pass over `elements`
        "twice": 1,  # every window is walked twice
        "elements": 32,
        "images": 32,
        "height": 32,
        "width": 32,
        "channels": 32,
        "window_y": 16,
        "window_x": 16,
        "stride": 16,
        "pad": 16,
        "row": 32,  # width * channels
        "image": 32,  # height * row
        "step": 32,  # stride * channels
        "row_step": 32,  # stride * row
        "before": 32,  # pad * (row + channels)
    }
)
"""Sizes of a pass, steady while it is walked."""


class PassWalker(wiring.Component):
    """Runs of up to SEGMENT elements: flat, or image, row, column, channels, and then the places of the window.

    A place a cycle, also those outside the image, which make no run. The first run is offered one cycle after
    ``start`` at the earliest. Reset ends the walk.

    Ports
    -----
    start : in, 1
        Begin; only while ``busy`` is low.
    window : in
        :data:`WINDOW`.
    run : out, stream of RUN
    busy : out, 1
    """

    def __init__(self) -> None:
        super().__init__({"start": In(1), "window": In(WINDOW), "run": Out(stream.Signature(RUN)), "busy": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size, out = self.window, self.run.payload
        # channels of this result, its place in the source (numbers wrap: those outside the image are never used)
        channel, left, target = Signal(32), Signal(32), Signal(32)
        images_left, image, row_origin, origin, tap_row, tap = (
            Signal(32, name=name) for name in ("images_left", "image", "row_origin", "origin", "tap_row", "tap")
        )
        y, x = Signal(signed(34)), Signal(signed(34))  # the window's corner
        tap_y, tap_x = Signal(16), Signal(16)
        last_y, last_x, last_place = Signal(), Signal(), Signal()
        here_y, here_x = Signal(signed(35)), Signal(signed(35))
        inside = Signal()
        m.d.comb += [
            here_y.eq(y + tap_y),
            here_x.eq(x + tap_x),
            inside.eq((here_y >= 0) & (here_y < size.height) & (here_x >= 0) & (here_x < size.width) | ~size.on),
            # the last place inside: none follows in the window, or all that follow are outside
            last_x.eq((tap_x == size.window_x - 1) | (here_x + 1 >= size.width)),
            last_y.eq((tap_y == size.window_y - 1) | (here_y + 1 >= size.height)),
            last_place.eq(~size.on | (last_x & last_y)),
        ]
        seen = Signal()  # a place of this window was inside
        second, index = Signal(), Signal(16)
        m.d.comb += [
            self.run.valid.eq(self.busy & inside),
            out.offset.eq(tap + channel),
            out.target.eq(target + channel),
            out.count.eq(Mux(left < SEGMENT, left, SEGMENT)),
            out.first.eq(~seen),
            out.last.eq(last_place),
            out.second.eq(second),
            out.index.eq(index),
        ]
        whole = Mux(size.on, size.channels, size.elements)
        goes = self.busy & (~inside | self.run.ready)
        next_x, next_y = Signal(signed(35)), Signal(signed(35))
        m.d.comb += [next_x.eq(x + size.stride), next_y.eq(y + size.stride)]
        row_ends = next_x + size.window_x > size.width + size.pad
        image_ends = next_y + size.window_y > size.height + size.pad
        corner = Const(0) - size.pad

        def window_at(place: Any) -> list[Any]:
            """The window begins anew at this place."""
            return [tap.eq(place), tap_row.eq(place), tap_y.eq(0), tap_x.eq(0), seen.eq(0), index.eq(0)]

        with m.If(self.start):
            begin = Const(0, 32) - size.before
            m.d.sync += [
                self.busy.eq(1), second.eq(0), channel.eq(0), left.eq(whole), target.eq(0), images_left.eq(size.images),
                image.eq(0), row_origin.eq(begin), origin.eq(begin), y.eq(corner), x.eq(corner),
                *window_at(Mux(size.on, begin, 0)),
            ]  # fmt: skip
        with m.Elif(goes):
            with m.If(~last_place):
                m.d.sync += [seen.eq(seen | inside), index.eq(index + 1)]
                with m.If(last_x):
                    m.d.sync += [
                        tap.eq(tap_row + size.row), tap_row.eq(tap_row + size.row), tap_x.eq(0), tap_y.eq(tap_y + 1)
                    ]  # fmt: skip
                with m.Else():
                    m.d.sync += [tap.eq(tap + size.channels), tap_x.eq(tap_x + 1)]
            with m.Elif(size.twice & ~second):
                m.d.sync += [second.eq(1), *window_at(origin)]
            with m.Elif(left > SEGMENT):
                m.d.sync += second.eq(0)
                m.d.sync += [channel.eq(channel + SEGMENT), left.eq(left - SEGMENT)]
                m.d.sync += window_at(Mux(size.on, origin, 0))
            with m.Else():
                m.d.sync += second.eq(0)
                m.d.sync += [channel.eq(0), left.eq(whole), target.eq(target + whole)]
                with m.If(~size.on):
                    m.d.sync += self.busy.eq(0)
                with m.Elif(~row_ends):
                    m.d.sync += [x.eq(next_x), origin.eq(origin + size.step), *window_at(origin + size.step)]
                with m.Elif(~image_ends):
                    place = row_origin + size.row_step
                    m.d.sync += [x.eq(corner), y.eq(next_y), row_origin.eq(place), origin.eq(place), *window_at(place)]
                with m.Else():
                    following = image + size.image
                    place = following - size.before
                    m.d.sync += [
                        x.eq(corner), y.eq(corner), image.eq(following), row_origin.eq(place), origin.eq(place),
                        images_left.eq(images_left - 1), self.busy.eq(images_left != 1), *window_at(place),
                    ]  # fmt: skip
        return m
