"""Results to memory: addresses, the epilogue, ReLU masks both ways, and words of the memory port."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow import program as fmt
from ..arithmetic.stages import registers
from ..descriptor import DESCRIPTOR_BITS
from ..memory_port import REQUEST
from ..stream import PipelineControl
from .cursors import Act, Cursor, Repeats, count_pixels
from .plan import PRODUCT, plan_layout
from .sizes import DIMENSION_BITS, OFFSET_BITS, Sizes

ADDRESS_STAGES = 5


def run_layout(sizes: Sizes) -> data.StructLayout:
    """A run of results: ``length`` columns of a row or rows of a column, from row ``row``, column ``lane`` of a bank.

    ``bit`` is the place of the first mask bit in its byte, ``mask`` that byte's address; ``last`` empties the bank.
    """
    rows = sizes.bank_rows.bit_length()
    lane = max(1, (sizes.array.cols - 1).bit_length())
    return data.StructLayout({"row": rows, "lane": lane, "length": rows, "last": 1, "bit": 3, "mask": 64})


class Runs(wiring.Component):
    """Walks the results of every bank that is full, offers a run a cycle: five stages of address arithmetic.

    Ports
    -----
    start : in, 1
    full : in, 1
        A bank was filled.
    run : out, stream of :func:`run_layout`
    request, masks : out, streams
        Writes of the results; reads of the mask bits that are applied to them.
    idle : out, 1
        All runs of the product were offered and taken.
    """

    start: Signal
    descriptor: Signal
    plan: Any
    full: Signal
    run: Any
    request: Any
    masks: Any
    idle: Signal

    def __init__(self, *, sizes: Sizes) -> None:
        self.sizes = sizes
        super().__init__(
            {
                "start": In(1), "descriptor": In(DESCRIPTOR_BITS), "plan": In(plan_layout(sizes)), "full": In(1),
                "run": Out(stream.Signature(run_layout(sizes))), "request": Out(stream.Signature(REQUEST)),
                "masks": Out(stream.Signature(REQUEST)), "idle": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        d, plan, cols = data.View(PRODUCT, self.descriptor), self.plan, self.sizes.array.cols
        swapped = (d.flags & fmt.SWAPPED).bool()
        act = Signal(3)
        pixel = Cursor(m, act, "pixel", dict.fromkeys(("image", "oy", "ox"), DIMENSION_BITS))
        count_pixels(m, pixel, d)
        active, fire, waiting = Signal(), Signal(), Signal(2)
        row0, column0, local = Signal(DIMENSION_BITS), Signal(DIMENSION_BITS), Signal(DIMENSION_BITS)
        rows_left, columns_left = Signal(DIMENSION_BITS), Signal(DIMENSION_BITS)
        rows, columns, runs = Signal(DIMENSION_BITS), Signal(DIMENSION_BITS), Signal(DIMENSION_BITS)
        m.d.comb += [
            rows_left.eq(d.m - row0), columns_left.eq(d.n - column0),
            rows.eq(Mux(rows_left < plan.rows, rows_left, plan.rows)),
            columns.eq(Mux(columns_left < cols, columns_left, cols)),
            runs.eq(Mux(plan.columns_run, columns, rows)),
        ]  # fmt: skip
        last_run, last_n, last_m = local + 1 == runs, columns == columns_left, rows == rows_left
        bank_end, sweep_end, over = Signal(), Signal(), Signal()
        m.d.comb += [
            bank_end.eq(fire & last_run), sweep_end.eq(bank_end & last_n), over.eq(sweep_end & last_m),
        ]  # fmt: skip
        repeat = Repeats(m, d, "c", over, self.start, OFFSET_BITS)
        m.submodules.stages = stages = PipelineControl(latency=ADDRESS_STAGES)
        m.d.comb += [
            stages.i_valid.eq(active & (waiting != 0)), fire.eq(stages.i_valid & stages.i_ready),
            self.idle.eq(~active & ~stages.valid.any()),
        ]  # fmt: skip
        m.d.sync += waiting.eq(waiting + self.full - bank_end)
        with m.If(fire):
            m.d.sync += local.eq(local + 1)
            m.d.comb += act.eq(Act.NEXT)
            with m.If(bank_end):
                m.d.sync += [local.eq(0), column0.eq(column0 + cols)]
                with m.If(~swapped):
                    m.d.comb += act.eq(Act.BACK)
            with m.If(sweep_end):
                m.d.sync += [column0.eq(0), row0.eq(row0 + plan.rows)]
                m.d.comb += act.eq(Mux(swapped, Act.ZERO, Act.ENTER))
            with m.If(over):
                m.d.sync += row0.eq(0)
                m.d.comb += act.eq(Act.ZERO)
                with m.If(repeat.last):
                    m.d.sync += active.eq(0)
        with m.If(self.start):
            m.d.sync += [active.eq(1), *(signal.eq(0) for signal in (row0, column0, local, waiting))]
            m.d.comb += act.eq(Act.ZERO)
        by_column = plan.columns_run
        run = Signal(run_layout(self.sizes))
        m.d.comb += [
            run.row.eq(Mux(by_column, 0, local)), run.lane.eq(Mux(by_column, local, 0)),
            run.length.eq(Mux(by_column, rows, columns)), run.last.eq(last_run),
        ]  # fmt: skip
        line = row0 + Mux(by_column, 0, local)
        column = column0 + Mux(by_column, local, 0)
        self._addresses(m, stages, d, run, pixel, line, column, repeat.start)
        return m

    def _addresses(
        self, m: Module, stages: Any, d: Any, run: Any, pixel: Any, line: Value, column: Value, start: Value
    ) -> None:
        en, wide = stages.en, OFFSET_BITS
        swapped, transposed = (d.flags & fmt.SWAPPED).bool(), (d.flags & fmt.TRANSPOSED_A).bool()
        s1 = registers(
            m, en, "s1", run=run.as_value(), line=line, column=column, start=start, image=pixel["image"],
            y=pixel["oy"] * d.c_step_y + d.c_first_y, x=pixel["ox"] * d.c_step_x + d.c_first_x,
        )  # fmt: skip
        s2 = registers(
            m, en, "s2", run=s1.run, line=s1.line, column=s1.column, start=s1.start, x=s1.x,
            plane=(s1.image * d.c_h + s1.y)[:32],
        )  # fmt: skip
        s3 = registers(
            m, en, "s3", run=s2.run, line=s2.line, column=s2.column, start=s2.start,
            pixel=(s2.plane * d.c_w + s2.x)[:wide],
        )  # fmt: skip
        s4 = registers(
            m, en, "s4", run=s3.run, start=s3.start,
            down=(Mux(swapped | transposed, s3.line, s3.pixel) * d.c_stride_m)[:wide],
            right=(Mux(swapped, s3.pixel, s3.column) * d.c_stride_n)[:wide],
        )  # fmt: skip
        wide_results = (d.flags & fmt.OUT_FP32).bool()
        offset = Signal(wide)
        m.d.comb += offset.eq(s4.down + s4.right + s4.start)
        s5 = registers(
            m, en, "s5", run=s4.run, address=(d.c_address + (offset << Mux(wide_results, 2, 1)))[:64],
            mask=(d.mask_address + (offset >> 3))[:64], bit=offset[:3],
        )  # fmt: skip
        found = data.View(run_layout(self.sizes), s5.run)
        valid, sent = stages.o_valid, Signal(2)
        applies = (d.flags & fmt.APPLY_MASK).bool() & ~wide_results
        request_done, mask_done, done = Signal(), Signal(), Signal()
        m.d.comb += [
            Value.cast(self.run.payload).eq(s5.run),
            self.run.payload.bit.eq(s5.bit), self.run.payload.mask.eq(s5.mask),
            self.request.payload.address.eq(s5.address),
            self.request.payload.bytes.eq(found.length << Mux(wide_results, 2, 1)),
            self.request.valid.eq(valid & ~sent[0]), request_done.eq(sent[0] | self.request.ready),
            self.masks.payload.address.eq(s5.mask), self.masks.payload.bytes.eq((s5.bit + found.length + 7) >> 3),
            self.masks.valid.eq(valid & applies & ~sent[1]), mask_done.eq(~applies | sent[1] | self.masks.ready),
            done.eq(request_done & mask_done),
            self.run.valid.eq(valid & done), stages.o_ready.eq(done & self.run.ready),
        ]  # fmt: skip
        with m.If(valid & stages.o_ready):
            m.d.sync += sent.eq(0)
        with m.Elif(valid):
            m.d.sync += [sent[0].eq(request_done), sent[1].eq(applies & mask_done)]
