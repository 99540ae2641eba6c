"""USPE with the window accumulator: one DSP48E2, a shifter in steps of 16, a fixed-point sum of one cycle.

Like :mod:`.uspe` it knows neither tiles nor patterns; its row's edge says what it does (docs/accelerator.md, section
11).
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..models.window import Window
from .arithmetic import primitives
from .arithmetic.cuts import Stages
from .arithmetic.unit import require_latency
from .arithmetic.window_operand import OPERAND_BITS, is_special, window_operand
from .uspe import address_bits, require_size, weight_layout

CUTS = ("operand", "multiply", "product", "shift")


def window_control_layout(weight_depth: int) -> data.StructLayout:
    """What hops east. Times refer to t, the cycle in which the activations of the operation are at ``a_i``.

    ========== ========= =====================================================================
    field      sent at   meaning
    ========== ========= =====================================================================
    store      any       write the word now at ``b_i`` to weight word ``store_at``
    weight     t         weight word to multiply
    add        t+Lm-1    OS: the product counts
    finish     t+Lm-1    OS: the sum is complete: it goes to the drain register, the next starts from zero
    through    t+Lm-1    the drain register takes the adder's result, not the word from the north: WS, or ``finish``
    hold       any       the drain register keeps its word in the next cycle
    ========== ========= =====================================================================
    """
    weight = address_bits(weight_depth)
    return data.StructLayout(
        {"store": 1, "store_at": weight, "weight": weight, "add": 1, "finish": 1, "through": 1, "hold": 1}
    )


class WindowUspe(wiring.Component):
    """One element. Its golden function is a sum of ``nmsat.models.golden.window_product``.

    One operation a cycle. The product of operands that are at ``a_i`` at t is added in cycle t + Lm; the sum is in its
    register at t + Lm + 1. Reset clears the sum; the drain register keeps what nobody will ask for.

    Parameters
    ----------
    window : Window
        L and W.
    max_group : int
        Largest M, 1 to 32.
    weight_depth : int
        Weight words, 1 to 256: the shadow sets included.
    multiplier_latency : int
        Lm, 1 to 32. Registers: operands, multiplier, product (inside the DSP48E2), half-shifted product.
    raw : bool
        Activations are binary16 and converted behind the select; otherwise they come converted.

    Ports
    -----
    en : in, 1
        Clock enable: nothing moves while it is low.
    ws : in, 1
        Weight-stationary; constant while anything moves.
    a_i, a_o : in and out, 18 (raw: 16) * max_group
        A group of operands hopping east, one register.
    b_i, b_o : in and out
        A weight word (:func:`.uspe.weight_layout` of 18 bits) hopping south, one register.
    c_i, c_o : in and out, W + 1
        Sum and, highest, flag: of the lane in WS, a word of the drain chain in OS. ``c_o`` is a register.
    control_i, control_o : in and out
        :func:`window_control_layout`, one register.
    """

    en: Signal
    ws: Signal
    a_i: Signal
    a_o: Signal
    b_i: Any
    b_o: Any
    c_i: Signal
    c_o: Signal
    control_i: Any
    control_o: Any

    def __init__(
        self, *, window: Window, max_group: int, weight_depth: int, multiplier_latency: int, raw: bool = False
    ) -> None:
        self.window, self.raw = window, raw
        self.max_group = require_size("max_group", max_group, 32)
        self.weight_depth = require_size("weight_depth", weight_depth, 256)
        self.multiplier_latency = require_latency("multiplier_latency", multiplier_latency)
        self.a_bits = 16 if raw else OPERAND_BITS
        weight, control = weight_layout(max_group, OPERAND_BITS), window_control_layout(weight_depth)
        bits = window.bits + 1
        super().__init__(
            {
                "en": In(1), "ws": In(1),
                "a_i": In(self.a_bits * max_group), "a_o": Out(self.a_bits * max_group),
                "b_i": In(weight), "b_o": Out(weight),
                "c_i": In(bits), "c_o": Out(bits),
                "control_i": In(control), "control_o": Out(control),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The datapath."""
        m, bits = Module(), self.window.bits
        control = self.control_o
        word = Signal(weight_layout(self.max_group, OPERAND_BITS))
        a = Signal(len(self.a_i), reset_less=True)
        b = Signal(weight_layout(self.max_group, OPERAND_BITS), reset_less=True)
        m.d.sync += [control.eq(self.control_i), a.eq(self.a_i), b.eq(self.b_i)]
        m.d.comb += [self.a_o.eq(a), self.b_o.eq(b)]

        depth = 1 << address_bits(self.weight_depth)
        m.submodules.weights = weights = Memory(shape=len(word.as_value()), depth=depth, init=[])
        store, fetch = weights.write_port(), weights.read_port(domain="comb")
        m.d.comb += [
            store.en.eq(self.control_i.store), store.addr.eq(self.control_i.store_at), store.data.eq(self.b_i),
            fetch.addr.eq(control.weight), word.eq(fetch.data),
        ]  # fmt: skip
        places = [a[at : at + self.a_bits] for at in range(0, len(a), self.a_bits)]
        chosen = primitives.select(m, platform, "chosen", places, word.index)
        shifted, high, sign, flag = self._product(
            m, platform, window_operand(chosen) if self.raw else chosen, word.value
        )

        addend, carry = self._addend(m, platform, shifted, high, sign)
        total = Signal(bits + 1)
        before = Mux(self.ws, self.c_i, total)
        after = Signal(bits + 1)
        m.d.comb += after.eq(
            Cat(primitives.add(m, platform, "adder", addend, before[0:bits], carry), before[bits] | flag)
        )
        kept = primitives.register(m, platform, "sum", after, en=self.en, load=control.add, clear=control.finish)
        m.d.comb += total.eq(kept)
        c = primitives.register(
            m, platform, "c", Mux(control.through, after, self.c_i), en=self.en, load=~control.hold, clear=Const(0)
        )
        m.d.comb += self.c_o.eq(c)
        return EnableInserter(self.en)(m)

    def _product(self, m: Module, platform: Any, a: Value, b: Value) -> tuple[Value, Value, Value, Value]:
        """(significands' product shifted by 4 * (power mod 4), power div 4, sign, flag) behind Lm - 1 registers."""
        stages = Stages(m, CUTS, self.multiplier_latency - 1)
        names = ("operand", "inner", "product")
        registers = {name: bool(stages.depth(cut)) for name, cut in zip(names, CUTS[:3], strict=True)}
        significand = primitives.multiply(m, platform, "multiplier", self.en, a[0:14], b[0:14], **registers)
        power = Signal(4)
        m.d.comb += power.eq(a[14:17] + b[14:17])
        sign, special, power = stages.cut("operand", a[17] ^ b[17], is_special(a) | is_special(b), power)
        sign, special, power = stages.cut("multiply", sign, special, power)
        sign, special, power = stages.cut("product", sign, special, power)
        large = (power > 10) | ((power == 10) & significand[24:28].any())
        shifted = primitives.shift_by_fours(m, platform, "shifted", significand, power[0:2])
        shifted, high, sign, flag = stages.cut("shift", shifted, power[2:4], sign, special | large)
        return shifted, high, sign, flag

    def _addend(self, m: Module, platform: Any, shifted: Value, high: Value, sign: Value) -> tuple[Value, Value]:
        """The rounded product as an addend and its carry: a negative one is complemented.

        -(v + r) = ~v + 1 - r, with r the first dropped bit: the carry is r for a positive product, 1 - r for a
        negative one.
        """
        dropped, bits = 48 - self.window.lsb, self.window.bits
        width = 64 - dropped
        # a window of the shifted product from its first dropped bit on, for each of the three coarse shifts
        moved = [
            Cat(Const(0, 16 * step + 1), shifted, Const(0, 64))[dropped : dropped + width + 1] for step in range(3)
        ]
        chosen = primitives.look_up(m, platform, "addend", _coarse, *moved, high[0], high[1], sign)
        return Cat(chosen[1:], sign.replicate(bits - width)), chosen[0]


def _coarse(by_0: int, by_16: int, by_32: int, low: int, high: int, sign: int) -> int:
    """A bit of the shifted product, complemented where the product is negative."""
    return (by_32 if high else by_16 if low else by_0) ^ sign
