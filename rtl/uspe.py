"""USPE, the processing element: one multiplier, one accumulating adder, sums and weights in distributed memory.

The element knows neither tiles nor patterns. Its row's edge sends it, hopping one element east a cycle, what to read
and write in each cycle; that is the same for every N:M pattern up to the generated maxima, dense included.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, EnableInserter, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arithmetic.cuts import Stages
from .arithmetic.fp16_multiplier import OPERAND_BITS, multiply
from .arithmetic.fp32_adder import CUTS, SUM_BITS, Addend, add
from .arithmetic.unit import require_latency


def require_size(name: str, value: object, most: int) -> int:
    """A size from 1 to ``most``, or TypeError / ValueError with the rule."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if not 1 <= value <= most:
        raise ValueError(f"{name} must be between 1 and {most}, not {value!r}")
    return value


def address_bits(depth: int) -> int:
    """Bits of an address below ``depth``, at least 1."""
    return max(1, (depth - 1).bit_length())


def weight_layout(max_group: int, operand_bits: int = OPERAND_BITS) -> data.StructLayout:
    """A weight word: operand of :mod:`.arithmetic.fp16_multiplier` (or the window's) and its place in the group."""
    return data.StructLayout({"value": operand_bits, "index": address_bits(max_group)})


def control_layout(weight_depth: int, sum_depth: int, drain_depth: int) -> data.StructLayout:
    """What hops east. Times refer to t, the cycle in which the activations of the operation are at ``a_i``.

    ========== ========= =====================================================================
    field      sent at   meaning
    ========== ========= =====================================================================
    store      any       write the word now at ``b_i`` to weight word ``store_at``
    weight     t         weight word to multiply
    left       t+Lm-1    sum to add to; the last word of the memory is always zero, and it is read in WS
    right      t+Lm-1    with ``fold``: the sum to add in place of a product; otherwise the zero word
    fold       t+Lm-1    there is no product
    write      t+Lm+La-2 write the result to sum ``write_at``
    finish     t+Lm+La-2 write it to drain word ``finish_at``
    load       any       load drain word ``load_at`` into the chain register in the next cycle
    ========== ========= =====================================================================
    """
    weight, total, drain = (address_bits(depth) for depth in (weight_depth, sum_depth, drain_depth))
    return data.StructLayout(
        {
            "store": 1, "store_at": weight, "weight": weight,
            "left": total, "right": total, "fold": 1,
            "write": 1, "write_at": total, "finish": 1, "finish_at": drain,
            "load": 1, "load_at": drain,
        }
    )  # fmt: skip


class Uspe(wiring.Component):
    """One element. Its golden function is an ordered sum of ``floats.multiply`` and ``floats.add``.

    One operation a cycle. The product of operands that are at ``a_i`` at t meets the adder at t + Lm; the sum can be
    read at t + Lm + La, which costs no bypass: the adder's last register is the sum memory's write, in WS ``c_o``.
    Sums have the 31-bit form of :meth:`Addend.from_sum`. Reset ends all activity. Memories keep their contents, which
    is harmless: the first product of a sum is added to the word that is always zero.

    Parameters
    ----------
    max_group : int
        Largest M, 1 to 32.
    weight_depth : int
        Weight words, 1 to 256: the shadow sets included.
    sum_depth : int
        Partial sums, 1 to 512, without the zero word that is added to them.
    drain_depth : int
        Finished sums, 1 to 256.
    multiplier_latency, adder_latency : int
        Lm and La, 1 to 32.

    Ports
    -----
    en : in, 1
        Clock enable: nothing moves while it is low.
    ws : in, 1
        Weight-stationary; constant while anything moves.
    a_i, a_o : in and out, 17 * max_group
        A group of operands hopping east, one register.
    b_i, b_o : in and out
        A weight word (:func:`weight_layout`) hopping south, one register.
    c_i, c_o : in and out, 31
        Partial sums in WS, words of the drain chain in OS; ``c_o`` is a register.
    control_i, control_o : in and out
        :func:`control_layout`, one register.
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
        self,
        *,
        max_group: int,
        weight_depth: int,
        sum_depth: int,
        drain_depth: int,
        multiplier_latency: int,
        adder_latency: int,
    ) -> None:
        self.max_group = require_size("max_group", max_group, 32)
        self.weight_depth = require_size("weight_depth", weight_depth, 256)
        self.sum_depth = require_size("sum_depth", sum_depth, 512)
        self.drain_depth = require_size("drain_depth", drain_depth, 256)
        self.multiplier_latency = require_latency("multiplier_latency", multiplier_latency)
        self.adder_latency = require_latency("adder_latency", adder_latency)
        weight = weight_layout(max_group)
        control = control_layout(weight_depth, sum_depth + 1, drain_depth)
        super().__init__(
            {
                "en": In(1), "ws": In(1),
                "a_i": In(OPERAND_BITS * max_group), "a_o": Out(OPERAND_BITS * max_group),
                "b_i": In(weight), "b_o": Out(weight),
                "c_i": In(SUM_BITS), "c_o": Out(SUM_BITS),
                "control_i": In(control), "control_o": Out(control),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The datapath."""
        m = Module()
        control = self.control_o
        word = Signal(weight_layout(self.max_group))
        a = Signal(len(self.a_i), reset_less=True)
        b = Signal(weight_layout(self.max_group), reset_less=True)
        m.d.sync += [control.eq(self.control_i), a.eq(self.a_i), b.eq(self.b_i)]
        m.d.comb += [self.a_o.eq(a), self.b_o.eq(b)]

        m.submodules.weights = weights = Memory(shape=len(word.as_value()), depth=_power(self.weight_depth), init=[])
        store, fetch = weights.write_port(), weights.read_port(domain="comb")
        m.d.comb += [
            store.en.eq(self.control_i.store), store.addr.eq(self.control_i.store_at), store.data.eq(self.b_i),
            fetch.addr.eq(control.weight), word.eq(fetch.data),
        ]  # fmt: skip
        selected = a.word_select(word.index, OPERAND_BITS)
        product = multiply(
            Stages(m, ("operand", "multiply", "product"), self.multiplier_latency - 1), word.value, selected,
            clear=(control.fold, self.control_i.fold),
        )  # fmt: skip

        result = Signal(SUM_BITS)
        depth = _power(self.sum_depth + 1)
        m.submodules.sums = sums = Memory(shape=SUM_BITS, depth=depth, init=[0] * depth)
        keep, left, right = sums.write_port(), sums.read_port(domain="comb"), sums.read_port(domain="comb")
        m.submodules.drain = drain = Memory(shape=SUM_BITS, depth=_power(self.drain_depth), init=[])
        finish, leave = drain.write_port(), drain.read_port(domain="comb")
        m.d.comb += [
            keep.en.eq(control.write), keep.addr.eq(control.write_at), keep.data.eq(result),
            finish.en.eq(control.finish), finish.addr.eq(control.finish_at), finish.data.eq(result),
            left.addr.eq(control.left), right.addr.eq(control.right), leave.addr.eq(control.load_at),
        ]  # fmt: skip
        # What is not meant is zero: in WS the word at `left`, without a fold that at `right`, with one the product.
        first = Addend.from_sum(left.data | Mux(self.ws, self.c_i, 0))
        second = Addend.from_sum(right.data).merged(Addend.from_product(product))
        m.d.comb += result.eq(add(m, Stages(m, CUTS, self.adder_latency - 1), first, second, full=False))

        c = Signal(SUM_BITS, reset_less=True)
        m.d.sync += c.eq(Mux(self.ws, result, Mux(control.load, leave.data, self.c_i)))
        m.d.comb += self.c_o.eq(c)
        return EnableInserter(self.en)(m)


def _power(depth: int) -> int:
    return 1 << address_bits(depth)


def fp32_of_sum(bits: Any) -> Any:
    """Binary32 of a 31-bit sum, combinational: 0 and 127 stay the ends of the range, other codes gain a constant."""
    fraction, code = bits[0:23], bits[23:30]
    exponent = Mux(code == 0, 0, Mux(code == 127, 255, code + 77))
    return Cat(fraction, exponent[0:8], bits[30])


def sum_of_fp32(bits: Any) -> Any:
    """The 31-bit sum of a binary32 that is one: zero, Inf, the canonical NaN, or exponent -48 to 76."""
    fraction, exponent = bits[0:23], bits[23:31]
    code = Mux(exponent == 0, 0, Mux(exponent == 255, 127, exponent - 77))
    return Cat(fraction, code[0:7], bits[31] & ~((exponent == 255) & fraction[22]) & (exponent != 0))
