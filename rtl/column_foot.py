"""The column feet: lanes 0..N-1 of a weight-stationary output, then the previous k-tile's sum, one adder a column."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, EnableInserter, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory

from .arithmetic.fp32_adder import SUM_BITS, SumAdder
from .array_parameters import ArrayParameters
from .edge_ports import FootFrame, FootSequencerFrame
from .uspe import address_bits, fp32_of_sum, sum_of_fp32


def foot_layout(parameters: ArrayParameters) -> data.StructLayout:
    """What hops from foot to foot, one column a cycle, and is obeyed at once.

    ========= =================================================================================
    arrive    the word at the foot is a lane's sum; it is kept at ``lane_at``
    lane      kept lane that this cycle's step adds
    opening   the step adds lane 1, or with N = 1 nothing, to lane 0
    direct    the lane it adds is the one arriving
    closing   the step adds the sum of the lanes to the previous k-tile's
    chained   there is a previous k-tile: one partial sum is taken from the port
    held      where the running sum was put; ``hold_at``: where the adder's result goes now
    waits     the running sum waited; otherwise it is the adder's result
    result    the adder's result is an output
    drained   OS: the word at the foot is an output
    last      it is the last of its tile
    ========= =================================================================================
    """
    lane, hold = address_bits(parameters.lane_depth), address_bits(parameters.max_keep)
    return data.StructLayout(
        {
            "arrive": 1, "lane_at": lane, "lane": lane, "opening": 1, "direct": 1, "closing": 1, "chained": 1,
            "held": hold, "hold_at": hold, "waits": 1, "result": 1, "drained": 1, "last": 1,
        }
    )  # fmt: skip


class FootSequencer(FootSequencerFrame):
    """A token for every output circles once a step.

    Lanes of an output arrive in N successive cycles. Steps of one output are La + (1 - La) mod N apart, so that no two
    outputs meet (docs/engine.md): the token line has that length and never has to wait. ``control`` is a
    :func:`foot_layout`.
    """

    def __init__(self, *, parameters: ArrayParameters) -> None:
        super().__init__(parameters=parameters, control=foot_layout(parameters))

    def elaborate(self, platform: Any) -> Module:
        """Token line, result strobe and addresses."""
        m = Module()
        p, control, keep = self.parameters, self.control, self.keep
        La, deepest = p.adder_latency, max(p.foot_wait(n) for n in range(1, p.max_keep + 1))
        token = data.StructLayout(
            {"valid": 1, "first": 1, "step": p.max_keep.bit_length(), "base": address_bits(p.lane_depth)}
        )
        lane_at = Signal(address_bits(p.lane_depth))
        with m.If(self.arrive):
            m.d.sync += lane_at.eq(lane_at + 1)

        fresh, waiting, now, after = Signal(token), Signal(token), Signal(token), Signal(token)
        m.d.comb += [
            fresh.valid.eq(self.arrive & self.lane0), fresh.first.eq(self.first), fresh.step.eq(1),
            fresh.base.eq(lane_at),
        ]  # fmt: skip
        m.d.sync += waiting.eq(fresh)
        line = [Signal(token, name=f"token{place}") for place in range(La + deepest)]
        m.d.comb += after.eq(now)
        m.d.comb += [after.step.eq(now.step + 1), after.valid.eq(now.valid & (now.step != keep))]
        m.d.sync += [place.eq(before) for place, before in zip(line, [after, *line], strict=False)]
        wait = Signal(range(deepest + 1))
        m.d.comb += wait.eq(Array([0, *(p.foot_wait(n) for n in range(1, p.max_keep + 1))])[keep])
        back = Signal(token)
        m.d.comb += back.eq(Array([place.as_value() for place in line[La - 1 :]])[wait])
        single = keep == 1
        m.d.comb += now.eq(Mux(back.valid, back, Mux(single, fresh, waiting)))

        hold_at = Signal.like(control.hold_at)
        m.d.sync += hold_at.eq(hold_at + 1)
        result = now.valid & (now.step == keep)
        for stage in range(La):
            late = Signal(name=f"result{stage}")
            m.d.sync += late.eq(result)
            result = late
        m.d.comb += [
            control.arrive.eq(self.arrive), control.lane_at.eq(lane_at),
            control.lane.eq(Mux(now.step == 1, now.base, now.base + now.step)),
            control.opening.eq(now.step == 1), control.direct.eq((now.step == 1) | (La + wait == 1)),
            control.closing.eq(now.step == keep), control.chained.eq(now.valid & (now.step == keep) & ~now.first),
            control.held.eq(hold_at - wait), control.hold_at.eq(hold_at), control.waits.eq(wait != 0),
            control.result.eq(result), control.drained.eq(self.drained), control.last.eq(self.last),
        ]  # fmt: skip
        return EnableInserter(self.en)(m)


class ColumnFoot(FootFrame):
    """Golden function: the last two loops of ``nmsat.models.golden.products.product_ws``.

    One step a cycle, its result La cycles later. Reset ends all activity; the memories keep their contents.
    """

    def __init__(self, *, parameters: ArrayParameters) -> None:
        super().__init__(parameters=parameters, control=foot_layout(parameters))

    def elaborate(self, platform: Any) -> Module:
        """Lane memory, adder and the ring in which the running sum waits."""
        m = Module()
        p, control = self.parameters, self.control_i
        m.d.sync += self.control_o.eq(control)
        m.submodules.lanes = lanes = Memory(shape=SUM_BITS, depth=p.lane_depth, init=[])
        keep, lane = lanes.write_port(), lanes.read_port(domain="comb")
        m.submodules.held = held = Memory(shape=SUM_BITS, depth=1 << len(control.held), init=[])
        hold, waited = held.write_port(), held.read_port(domain="comb")
        total, running = Signal(SUM_BITS), Signal(SUM_BITS)
        m.d.comb += [
            keep.en.eq(control.arrive), keep.addr.eq(control.lane_at), keep.data.eq(self.word),
            lane.addr.eq(control.lane),
            hold.en.eq(1), hold.addr.eq(control.hold_at), hold.data.eq(total), waited.addr.eq(control.held),
            running.eq(Mux(control.waits, waited.data, total)),
            self.need.eq(control.chained),
        ]  # fmt: skip
        before = Mux(control.chained, sum_of_fp32(self.partial), 0)
        left = Mux(control.closing, before, Mux(control.opening, lane.data, running))
        right = Mux(control.closing & ~control.opening, running, Mux(control.direct, self.word, lane.data))
        m.submodules.adder = adder = SumAdder(latency=p.adder_latency)
        m.d.comb += [
            adder.en.eq(self.en), adder.a.eq(left), adder.b.eq(right), total.eq(adder.y),
            self.output.eq(fp32_of_sum(Mux(self.ws, total, self.word))),
            self.valid.eq(Mux(self.ws, control.result, control.drained)),
        ]  # fmt: skip
        return EnableInserter(self.en)(m)
