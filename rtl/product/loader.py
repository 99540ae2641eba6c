"""Runs of an operand in the order in which the array consumes it: what to ask memory for, and where it goes."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any, Literal

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow import program as fmt
from ..arithmetic.stages import registers
from ..array_parameters import COUNT_BITS
from ..descriptor import DESCRIPTOR_BITS
from ..memory_port import REQUEST
from ..stream import PipelineControl
from .cursors import Act, Cursor, Repeats, count_pixels
from .plan import PRODUCT, a_capacity, b_capacity, plan_layout
from .sizes import DIMENSION_BITS, OFFSET_BITS, POSITION_BITS, RUN_BITS, SEGMENT, Sizes

ADDRESS_STAGES = 5
X_RUN = 32
"""Elements of one request across rows or columns."""


def record_layout(lanes: int) -> data.StructLayout:
    """Where a run goes.

    ======== ==========================================================================
    zero     no words come: +0 everywhere, with the lowest indices
    elements uncompressed elements along the run that memory has
    groups   runs along k: groups to fill, those behind the last element with +0
    lane     row or column of the first element
    position step of the first group
    place    runs across lanes or steps: place in the group
    row      B in WS: row of the array of the first group; steps descend within a tile
    column   column in a depthwise block
    commit   steps that are whole once this run is in
    ======== ==========================================================================
    """
    lane = max(1, (lanes - 1).bit_length())
    return data.StructLayout(
        {
            "zero": 1, "elements": RUN_BITS, "groups": RUN_BITS, "lane": lane, "position": POSITION_BITS,
            "place": 5, "row": COUNT_BITS, "column": 5, "commit": 16,
        }
    )  # fmt: skip


class Loader(wiring.Component):
    """Walks an operand, offers a run a cycle: five stages of address arithmetic, then requests and a record.

    ``side`` A (rows of the array) or B (columns). Runs along k have up to ``SEGMENT`` elements of a tap in OS and for
    B, and at most a k-tile's groups for A in WS, so that what is used first is read first. Runs along m or n have up to
    ``X_RUN`` elements of one place along k. A run is offered once the lanes' memories have room for all steps that it
    belongs to: no answer ever waits for room.

    Ports
    -----
    start : in, 1
        Begin; ``plan`` and ``descriptor`` stay until ``idle``.
    released : in
        Steps that every lane has done with.
    request, indices : out, streams
        Requests for values, and for the index plane (B).
    record : out, stream of :func:`record_layout`
    idle : out, 1
        Everything was offered and taken.
    misaligned : out, 1
        A run of a compressed operand begins inside a group.
    """

    start: Signal
    descriptor: Signal
    plan: Any
    released: Signal
    request: Any
    indices: Any
    record: Any
    idle: Signal
    misaligned: Signal

    def __init__(self, *, side: Literal["a", "b"], sizes: Sizes) -> None:
        self.side, self.sizes = side, sizes
        self.lanes = sizes.array.rows if side == "a" else sizes.array.cols
        ports = {
            "start": In(1), "descriptor": In(DESCRIPTOR_BITS), "plan": In(plan_layout(sizes)),
            "released": In(POSITION_BITS), "request": Out(stream.Signature(REQUEST)),
            "record": Out(stream.Signature(record_layout(self.lanes))), "idle": Out(1), "misaligned": Out(1),
        }  # fmt: skip
        if side == "b":
            ports["indices"] = Out(stream.Signature(REQUEST))
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        d, plan, a_side = data.View(PRODUCT, self.descriptor), self.plan, self.side == "a"
        rows_of_array = self.sizes.array.rows
        swapped = (d.flags & fmt.SWAPPED).bool()
        transposed = (d.flags & fmt.TRANSPOSED_A).bool()
        mapped = ~swapped if a_side else swapped
        x_taps = transposed if a_side else Value.cast(0)  # x is (tap, channel) and k runs over pixels
        k_tiles = plan.ws if a_side else Value.cast(0)  # a range is a k-tile, and rows are inside it
        along_k = plan.a_runs_k if a_side else plan.b_runs_k

        x_act, k_act = Signal(3), Signal(3)
        k = Cursor(m, k_act, "k", {"at": DIMENSION_BITS, "group": COUNT_BITS, "row": COUNT_BITS, "place": 5})
        x = Cursor(m, x_act, "x", {"channel": DIMENSION_BITS})
        tap = Cursor(m, Mux(x_taps, x_act, k_act), "tap", {"y": 16, "x": 16})
        pixel_act = Mux(x_taps, k_act, x_act)
        pixel = Cursor(m, pixel_act, "pixel", dict.fromkeys(("image", "oy", "ox"), DIMENSION_BITS))
        count_pixels(m, pixel, d)
        first, local = Signal(DIMENSION_BITS), Signal(DIMENSION_BITS)  # of the block; within it
        lane, turn = Signal(max(1, (self.lanes - 1).bit_length())), Signal(8)  # local mod lanes, local div lanes
        base = Signal(POSITION_BITS)  # step at which the range begins; B in WS: the tile

        # The run at hand.
        kc = d.kc if a_side else Mux(plan.diagonal, 1, d.kc)
        beyond, left = Signal(), Signal(DIMENSION_BITS)
        most, run = Signal(DIMENSION_BITS), Signal(RUN_BITS)
        tile_left = Signal(COUNT_BITS)  # groups of the k-tile
        m.d.comb += [
            beyond.eq(k["group"] >= plan.groups), left.eq(kc - k["at"]), tile_left.eq(rows_of_array - k["row"]),
            most.eq(SEGMENT), run.eq(Mux(left < most, left, most)),
        ]  # fmt: skip
        with m.If(k_tiles & ((tile_left << plan.shift) < SEGMENT)):
            m.d.comb += most.eq(tile_left << plan.shift)
        groups = Signal(RUN_BITS)
        filling = Mux(tile_left > SEGMENT, SEGMENT, tile_left)
        m.d.comb += groups.eq(Mux(along_k, Mux(beyond, filling, (run + plan.group - 1) >> plan.shift), 1))
        block, rows, sub_left = Signal(DIMENSION_BITS), Signal(DIMENSION_BITS), Signal(DIMENSION_BITS)
        size = plan.rows if a_side else Value.cast(self.lanes)
        m.d.comb += [
            block.eq((d.m if a_side else d.n) - first), rows.eq(Mux(block < size, block, size)),
            sub_left.eq(rows - local),
        ]  # fmt: skip
        x_most, x_step = Signal(6), Signal(6)
        m.d.comb += x_most.eq(plan.a_run if a_side else plan.b_run)
        if a_side:
            tap_left = Signal(DIMENSION_BITS)
            m.d.comb += tap_left.eq(d.in_c - x["channel"])
            with m.If(x_taps & (tap_left < plan.a_run)):
                m.d.comb += x_most.eq(tap_left)
        m.d.comb += x_step.eq(Mux(along_k, 1, Mux(sub_left < x_most, sub_left, x_most)))
        zero = beyond | (k["at"] >= kc)

        # Where loops end.
        loops = ("group", "inner", "sub", "range", "k")
        group_end, inner_end, sub_end, range_end, k_end = (Signal(name=f"{name}_end") for name in loops)
        k_total = Signal(COUNT_BITS)
        m.d.comb += [
            k_total.eq(Mux(plan.ws, plan.k_tiles * rows_of_array, plan.groups)),
            group_end.eq(along_k | (k["place"] == plan.group - 1)),
            inner_end.eq(group_end & (~k_tiles | (k["row"] + groups == rows_of_array))),
            sub_end.eq(local + x_step == rows), range_end.eq(inner_end & sub_end),
            k_end.eq(range_end & (k["group"] + groups == k_total)),
        ]  # fmt: skip

        # What comes next along k and x.
        padded = plan.tap_groups << plan.shift
        taken = Mux(along_k, run, 1)
        k_wraps = Signal()
        m.d.comb += [
            k_wraps.eq(k["at"] + taken == Mux(along_k, kc, padded)),
            k.next["at"].eq(Mux(k_wraps, 0, k["at"] + taken)),
            k.next["place"].eq(Mux(group_end, 0, k["place"] + 1)),
            k.next["group"].eq(Mux(group_end, k["group"] + groups, k["group"])),
            k.next["row"].eq(Mux(group_end, (k["row"] + groups) % rows_of_array, k["row"])),
        ]  # fmt: skip
        channel, x_wraps = Signal(DIMENSION_BITS), Signal()
        m.d.comb += [
            channel.eq(x["channel"] + x_step), x_wraps.eq(channel == d.in_c),
            x.next["channel"].eq(Mux(x_wraps, 0, channel)),
        ]  # fmt: skip
        turns, down = Mux(x_taps, x_wraps, k_wraps), Signal()
        m.d.comb += [
            down.eq(turns & (tap["x"] + 1 == d.taps_x)),
            tap.next["x"].eq(Mux(turns, Mux(down, 0, tap["x"] + 1), tap["x"])), tap.next["y"].eq(tap["y"] + down),
        ]  # fmt: skip

        # Steps.
        steps, commit, behind = Signal(16), Signal(16), Signal(POSITION_BITS)
        if a_side:
            m.d.comb += steps.eq(Mux(k_tiles, rows, groups * plan.interleave))
            m.d.comb += commit.eq(Mux(k_tiles, Mux(inner_end, x_step, 0), Mux(range_end, steps, 0)))
            m.d.comb += behind.eq(base + Mux(k_tiles, local + x_step, steps))
        else:
            reach = Signal(COUNT_BITS)
            whole, open_ = reach // rows_of_array * rows_of_array, (reach + rows_of_array - 1) // rows_of_array
            m.d.comb += [
                reach.eq(k["row"] + groups), steps.eq(Mux(plan.ws, whole, groups)),
                commit.eq(Mux(range_end, steps, 0)),
                behind.eq(base + Mux(plan.ws, open_ * rows_of_array, groups)),
            ]  # fmt: skip
        capacity = a_capacity(self.sizes, plan) if a_side else b_capacity(self.sizes, plan)
        used = Signal(POSITION_BITS)
        m.d.comb += used.eq(behind - self.released)

        # Loops.
        m.submodules.stages = stages = PipelineControl(latency=ADDRESS_STAGES)
        active, fire = Signal(), Signal()
        m.d.comb += [
            stages.i_valid.eq(active & (used <= capacity)), fire.eq(stages.i_valid & stages.i_ready),
            self.idle.eq(~active & ~stages.valid.any()),
        ]  # fmt: skip
        passes = Signal(DIMENSION_BITS)
        last_pass, last_block, number = Signal(), Signal(), Signal(DIMENSION_BITS)
        next_block, over = Signal(), Signal()
        repeat = Repeats(m, d, self.side, over, self.start, OFFSET_BITS)
        m.d.comb += last_block.eq(first + rows == (d.m if a_side else d.n))
        if a_side:
            m.d.comb += [passes.eq(Mux(plan.a_stays, 1, plan.n_tiles)), next_block.eq(last_pass & ~last_block)]
            m.d.comb += over.eq(fire & k_end & last_pass & last_block)
        else:
            m.d.comb += [passes.eq(Mux(plan.b_stays, 1, plan.m_blocks)), next_block.eq(~last_block)]
            m.d.comb += over.eq(fire & k_end & last_pass & last_block)
        m.d.comb += last_pass.eq(number + 1 == passes)
        with m.If(self.start):
            m.d.comb += [x_act.eq(Act.ZERO), k_act.eq(Act.ZERO)]
            m.d.sync += [active.eq(1), *(signal.eq(0) for signal in (first, local, lane, turn, base, number))]
        with m.Elif(fire):
            m.d.comb += k_act.eq(Mux(k_end, Act.ZERO, Mux(range_end, Act.ENTER, Mux(inner_end, Act.BACK, Act.NEXT))))
            with m.If(inner_end):
                place = Signal(7)
                m.d.comb += [x_act.eq(Act.NEXT), place.eq(lane + x_step)]
                m.d.sync += [
                    local.eq(local + x_step), lane.eq(place % self.lanes), turn.eq(turn + place // self.lanes),
                ]  # fmt: skip
            with m.If(range_end):
                m.d.comb += x_act.eq(Act.BACK)
                m.d.sync += [base.eq(base + steps), local.eq(0), lane.eq(0), turn.eq(0)]
            with m.If(k_end):
                with m.If(next_block):
                    m.d.comb += x_act.eq(Act.ENTER)
                    m.d.sync += first.eq(first + rows)
                with m.Elif(last_block if not a_side else last_pass):
                    m.d.comb += x_act.eq(Act.ZERO)
                    m.d.sync += first.eq(0)
                with m.If((last_block if not a_side else Value.cast(1)) & ~last_pass):
                    m.d.sync += number.eq(number + 1)
                with m.Elif(last_pass & (last_block if not a_side else Value.cast(1))):
                    m.d.sync += number.eq(0)
            with m.If(over & repeat.last):
                m.d.sync += active.eq(0)

        position = Signal(POSITION_BITS)
        if a_side:
            m.d.comb += position.eq(base + Mux(k_tiles, local, turn))
        else:
            m.d.comb += position.eq(base + Mux(plan.ws, rows_of_array - 1 - k["row"], 0))
        place_lane = Mux(k_tiles, k["row"], lane) if a_side else lane
        record = {
            "zero": zero, "elements": Mux(along_k, Mux(beyond, 0, run), x_step), "groups": groups, "lane": place_lane,
            "position": position, "place": k["place"], "row": k["row"], "column": first + local, "commit": commit,
        }  # fmt: skip
        where = {
            "image": pixel["image"], "oy": pixel["oy"], "ox": pixel["ox"], "ty": tap["y"], "tx": tap["x"],
            "channel": Mux(x_taps, x["channel"], k["at"]), "x": first + local, "start": repeat.start,
        }  # fmt: skip
        self._addresses(m, stages, d, mapped, transposed, record, where)
        return m

    def _addresses(
        self, m: Module, stages: Any, d: Any, mapped: Value, transposed: Value, record: dict[str, Any],
        where: dict[str, Any],
    ) -> None:  # fmt: skip
        """Five stages from loop counters to byte addresses."""
        plan, layout, en = self.plan, record_layout(self.lanes), stages.en
        packed = Signal(layout, name="run")
        m.d.comb += [packed[name].eq(value) for name, value in record.items()]
        p, wide = where, OFFSET_BITS
        s1 = registers(
            m, en, "s1", record=packed.as_value(),
            iy=(p["oy"] * d.step_y + p["ty"] * d.tap_step_y + d.origin_y),
            ix=(p["ox"] * d.step_x + p["tx"] * d.tap_step_x + d.origin_x),
            image=p["image"], channel=p["channel"], start=p["start"],
            row=d.b_first_y + p["ty"] * d.b_step_y, column=d.b_first_x + p["tx"] * d.b_step_x,
            k_part=(p["channel"] * d.b_stride_k)[:wide],
            x_part=(p["x"] * d.b_stride_n)[:wide],
        )  # fmt: skip
        outside = (s1.iy < 0) | (s1.iy >= d.in_h) | (s1.ix < 0) | (s1.ix >= d.in_w)
        s2 = registers(
            m, en, "s2", record=s1.record, outside=outside & mapped, channel=s1.channel, start=s1.start,
            plane=(s1.image * d.in_h + s1.iy)[:32], ix=s1.ix[:DIMENSION_BITS],
            tap=Mux(transposed, 0, s1.row * d.b_taps_x + s1.column)[:32],
            part=(s1.k_part + s1.x_part)[:wide],
        )  # fmt: skip
        s3 = registers(
            m, en, "s3", record=s2.record, outside=s2.outside, channel=s2.channel,
            pixel=(s2.plane * d.in_w + s2.ix)[:wide], part=(s2.part + s2.start)[:wide], start=s2.start,
            tap=(s2.tap * d.b_stride_tap)[:wide],
        )  # fmt: skip
        s4 = registers(
            m, en, "s4", record=s3.record, outside=s3.outside,
            offset=Mux(mapped, s3.pixel * d.a_pixel + s3.channel + s3.start, s3.tap + s3.part)[:wide],
        )  # fmt: skip
        compressed = plan.compressed if self.side == "b" else Value.cast(0)
        address = d.a_address if self.side == "a" else d.b_address
        group = s4.offset >> plan.shift
        s5 = registers(
            m, en, "s5", record=s4.record, outside=s4.outside,
            odd=(s4.offset[:6] & (plan.group - 1)).any() & compressed,
            address=(address + Mux(compressed, group * plan.keep * 2, s4.offset << 1))[:64],
            index=(d.index_address + group * index_bytes(plan))[:64],
        )  # fmt: skip
        found = data.View(layout, s5.record)
        zero = found.zero | s5.outside
        m.d.comb += Value.cast(self.record.payload).eq(s5.record)
        m.d.comb += [self.record.payload.zero.eq(zero)]
        run_groups = Signal(RUN_BITS)
        m.d.comb += run_groups.eq((found.elements + plan.group - 1) >> plan.shift)
        self._offer(m, stages, zero, compressed, s5, found, run_groups)

    def _offer(
        self, m: Module, stages: Any, zero: Value, compressed: Value, s5: Any, found: Any, groups: Value
    ) -> None:
        """A run leaves when all that it goes to have taken it."""
        plan = self.plan
        valid, sent = stages.o_valid, Signal(2)
        asks = valid & ~zero
        request_done = Signal()
        m.d.comb += [
            self.request.payload.address.eq(s5.address),
            self.request.payload.bytes.eq(Mux(compressed, groups * plan.keep * 2, found.elements << 1)),
            self.request.valid.eq(asks & ~sent[0]),
            request_done.eq(~asks | sent[0] | self.request.ready),
        ]
        done, index_done = request_done, Value.cast(1)
        if self.side == "b":
            index_done = Signal()
            m.d.comb += [
                self.indices.payload.address.eq(s5.index),
                self.indices.payload.bytes.eq(groups * index_bytes(plan)),
                self.indices.valid.eq(asks & compressed & ~sent[1]),
                index_done.eq(~(asks & compressed) | sent[1] | self.indices.ready),
            ]
            done = request_done & index_done
        m.d.comb += [self.record.valid.eq(valid & done), stages.o_ready.eq(done & self.record.ready)]
        with m.If(valid & stages.o_ready):
            m.d.sync += sent.eq(0)
            m.d.comb += self.misaligned.eq(s5.odd & ~zero)
        with m.Elif(valid):
            m.d.sync += sent[0].eq(asks & request_done)
            if self.side == "b":
                m.d.sync += sent[1].eq(asks & compressed & index_done)


def index_bytes(plan: Any) -> Value:
    """Bytes of a group's indices."""
    return (plan.keep * plan.shift + 7) >> 3
