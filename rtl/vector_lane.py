"""A lane of the vector unit: additions and ReLU on binary16, forward and backward."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..models.golden.floats import NAN16
from .arithmetic.converters import Narrow, Widen
from .arithmetic.fp32_adder import Fp32Adder
from .arithmetic.stages import delay
from .emit import place

SWITCHES = data.StructLayout({"add": 1, "first_relu": 1, "last_relu": 1, "gradients": 2})
"""What a pass does: ReLU of the source, addition of the second operand, ReLU of the result; gradients to add."""
MODE = data.StructLayout({"backward": 1, "masked": 1})
"""What an element becomes: the sum of its gradients, +0 where a ReLU gave 0 if ``masked``; else the result."""
OPERANDS = ("x", "y", "g0", "g1", "g2")


def lane_latency(adder_latency: int) -> int:
    """Enabled cycles from operands to result."""
    return 2 * adder_latency + 4


class VectorLane(wiring.Component):
    """One element; equals :func:`nmsat.simulator.executor.vector.run_vector` on it.

    Forward: ``lastrelu(firstrelu(x) + y)``, each step rounded to binary16. Backward: the sum of the gradients in
    binary32 in their order, rounded once, +0 where a ReLU gave 0. An operand that is not used may be anything. An
    element a cycle; latency 2 La + 4 enabled cycles. No reset: the result follows the operands alone.

    Parameters
    ----------
    adder_latency : int
        La.

    Ports
    -----
    en : in, 1
        Clock enable; low holds the pipeline.
    switches : in
        :data:`SWITCHES`, steady while elements are inside.
    mode : in
        :data:`MODE` of this element.
    x, y, g0, g1, g2 : in, 16
        Source, second operand, gradients.
    result : out, 16
    """

    def __init__(self, *, adder_latency: int) -> None:
        self.adder_latency, self.latency = adder_latency, lane_latency(adder_latency)
        super().__init__(
            {
                "en": In(1),
                "switches": In(SWITCHES),
                "mode": In(MODE),
                **{name: In(16) for name in OPERANDS},
                "result": Out(16),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        en, switches, la = self.en, self.switches, self.adder_latency

        def widened(name: str, value: Any) -> Any:
            unit = place(m, platform, f"widen_{name}", Widen)
            m.d.comb += [unit.en.eq(en), unit.x.eq(value)]
            return unit.y

        def added(name: str, a: Any, b: Any) -> Any:
            unit = place(m, platform, f"add_{name}", Fp32Adder, latency=la)
            m.d.comb += [unit.en.eq(en), unit.a.eq(a), unit.b.eq(b)]
            return unit.y

        def narrowed(name: str, value: Any) -> Any:
            unit = place(m, platform, f"narrow_{name}", Narrow)
            m.d.comb += [unit.en.eq(en), unit.x.eq(value)]
            return unit.y

        x = Mux(switches.first_relu, relu(self.x), self.x)
        total = narrowed("sum", added("second", widened("x", x), widened("y", self.y)))
        x_late = delay(m, en, "x", x, 1 + la + Narrow.latency)
        before = Mux(switches.add, total, x_late)
        after = Mux(switches.last_relu, relu(before), before)
        passes = (~switches.first_relu | x_late.any()) & (~switches.last_relu | after.any())

        g0, g1, g2 = (widened(name, getattr(self, name)) for name in OPERANDS[2:])
        two = Mux(switches.gradients >= 2, added("first", g0, g1), delay(m, en, "g0", g0, la))
        three = added("last", two, delay(m, en, "g2", g2, la))
        gradient = narrowed("gradient", Mux(switches.gradients == 3, three, delay(m, en, "two", two, la)))

        after_late, passes_late = delay(m, en, "after", after, la), delay(m, en, "passes", passes, la)
        found = Signal(16)
        mode = data.View(MODE, delay(m, en, "mode", self.mode, 1 + 2 * la + Narrow.latency))
        m.d.comb += found.eq(Mux(mode.backward, Mux(passes_late | ~mode.masked, gradient, 0), after_late))
        with m.If(en):
            m.d.sync += self.result.eq(found)
        return m


def relu(x: Any) -> Any:
    """binary16: a set sign gives +0; a NaN becomes the canonical one."""
    return Mux((x[10:15] == 31) & x[:10].any(), NAN16, Mux(x[15], 0, x))
