"""The card's primitives where synthesis does not find the best use of them, each with its twin in plain Amaranth.

Under an :class:`..emit.Emission` with ``primitives`` the functions place Xilinx cells; everywhere else they write plain
logic that does the same, which is also what simulators run. yosys finds no registers inside a DSP48E2, spends a LUT a
bit more on an adder whose operand is selected, takes LUTs for wide multiplexers and misses some enables.
``rtl/ultrascale.v`` models the cells for simulating text that places them.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, Value

from ..emit import Emission

_UNUSED = {  # inputs at rest, by width
    1: (
        "CEA1", "CEB1", "CEAD", "CED", "CEC", "CEALUMODE", "CECARRYIN", "CECTRL", "CEINMODE", "RSTA", "RSTALLCARRYIN",
        "RSTALUMODE", "RSTB", "RSTC", "RSTCTRL", "RSTD", "RSTINMODE", "RSTM", "RSTP", "CARRYIN", "CARRYCASCIN",
        "MULTSIGNIN",
    ),
    3: ("CARRYINSEL",), 4: ("ALUMODE",), 5: ("INMODE",), 18: ("BCIN",), 27: ("D",), 30: ("ACIN",), 48: ("C", "PCIN"),
}  # fmt: skip


def on_card(platform: Any) -> bool:
    """Whether cells of the card are placed."""
    return isinstance(platform, Emission) and platform.primitives


def multiply(
    m: Module, platform: Any, name: str, en: Value, a: Value, b: Value, *, operand: bool, inner: bool, product: bool
) -> Value:
    """Product of two unsigned numbers of at most 17 bits in one DSP48E2.

    Parameters
    ----------
    en : Value
        Clock enable of the primitive. The twin's registers are in the ``sync`` domain of ``m`` and stop with it.
    operand, inner, product : bool
        Whether there is a register before the multiplier (A, B), behind it (M), behind the sum (P): a cycle each.
    """
    if not on_card(platform):

        def late(value: Value, there: bool, label: str) -> Value:
            if not there:
                return value
            register = Signal(len(value), name=f"{name}_{label}", reset_less=True)
            m.d.sync += register.eq(value)
            return register

        found = late(late(a, operand, "a") * late(b, operand, "b"), inner, "m")
        return late(found, product, "p")
    whole, left, right = Signal(48, name=f"{name}_p"), Signal(30, name=f"{name}_a"), Signal(18, name=f"{name}_b")
    m.d.comb += [left.eq(a), right.eq(b)]
    settings: dict[str, int | str] = {
        "AREG": int(operand), "ACASCREG": int(operand), "BREG": int(operand), "BCASCREG": int(operand),
        "MREG": int(inner), "PREG": int(product), "USE_MULT": "MULTIPLY", "USE_SIMD": "ONE48", "AMULTSEL": "A",
        "BMULTSEL": "B", "A_INPUT": "DIRECT", "B_INPUT": "DIRECT",
    }  # fmt: skip
    settings |= dict.fromkeys(
        ("CREG", "ADREG", "DREG", "INMODEREG", "OPMODEREG", "ALUMODEREG", "CARRYINREG", "CARRYINSELREG"), 0
    )
    m.submodules[name] = Instance(
        "DSP48E2",
        **{f"p_{key}": value for key, value in settings.items()},
        **{f"i_{key}": Const(0, width) for width, keys in _UNUSED.items() for key in keys},
        i_CLK=ClockSignal("sync"), i_A=left, i_B=right,
        i_OPMODE=Const(0b000000101, 9),  # P = M
        i_CEA2=en, i_CEB2=en, i_CEM=en, i_CEP=en, o_P=whole,
    )  # fmt: skip
    return whole[0 : len(a) + len(b)]


def add(m: Module, platform: Any, name: str, a: Value, b: Value, carry: Value) -> Value:
    """a + b + carry modulo 2^width.

    CARRY8 takes ``a`` as its data input. Either operand would do; with the one that is a LUT's output already, what
    selects ``b`` shares the LUT of the exclusive or.
    """
    bits = len(a)
    if not on_card(platform):
        return (a + b + carry)[0:bits]
    whole = -(-bits // 8) * 8
    data, half, out, carries = (Signal(whole, name=f"{name}_{port}") for port in ("di", "s", "o", "co"))
    m.d.comb += [data.eq(a), half.eq(a ^ b)]
    for first in range(0, whole, 8):
        m.submodules[f"{name}{first}"] = Instance(
            "CARRY8",
            p_CARRY_TYPE="SINGLE_CY8",
            i_CI=carries[first - 1] if first else carry, i_CI_TOP=Const(0, 1),
            i_DI=data[first : first + 8], i_S=half[first : first + 8],
            o_O=out[first : first + 8], o_CO=carries[first : first + 8],
        )  # fmt: skip
    return out[0:bits]


def look_up(m: Module, platform: Any, name: str, truth: Callable[..., int], *inputs: Value) -> Value:
    """One function of up to six signals of one width, bit by bit, in one LUT6 a bit that synthesis does not take apart.

    Parameters
    ----------
    truth : callable
        Six bits to one bit; inputs that are not given are 0.
    inputs : Values
        Of one width; single bits go to every bit.
    """
    bits = max(len(value) for value in inputs)
    wide = [value.replicate(bits) if len(value) == 1 else value for value in inputs]
    wide += [Const(0, bits)] * (6 - len(wide))
    table = sum(truth(*(code >> place & 1 for place in range(6))) << code for code in range(64))
    out = Signal(bits, name=name)
    for bit in range(bits):
        found = [value[bit] for value in wide]
        if on_card(platform):
            ports = {f"i_I{place}": value for place, value in enumerate(found)}
            m.submodules[f"{name}_{bit}"] = Instance("LUT6", p_INIT=Const(table, 64), **ports, o_O=out[bit])
        else:
            m.d.comb += out[bit].eq(Const(table, 64).bit_select(Cat(found), 1))
    return out


def shift_by_fours(m: Module, platform: Any, name: str, value: Value, places: Value) -> Value:
    """``value`` times 16^places, 0 to 3, 12 bits wider: a LUT6 a bit. Synthesis takes two in a row of them."""
    if not on_card(platform):
        out = Signal(len(value) + 12, name=name)
        m.d.comb += out.eq(value << Cat(Const(0, 2), places))
        return out
    moved = [Cat(Const(0, 4 * step), value, Const(0, 12 - 4 * step)) for step in range(4)]

    def chosen(by_0: int, by_4: int, by_8: int, by_12: int, low: int, high: int) -> int:
        return (by_12 if low else by_8) if high else by_4 if low else by_0

    return look_up(m, platform, name, chosen, *moved, places[0], places[1])


def register(m: Module, platform: Any, name: str, value: Value, *, en: Value, load: Value, clear: Value) -> Signal:
    """A register that takes ``value`` where ``load`` is high, and 0 at reset or where ``clear`` is high, if ``en`` is.

    The twin is in the ``sync`` domain of ``m``, whose own enable must be ``en``.
    """
    bits = len(value)
    if not on_card(platform):
        found = Signal(bits, name=name)
        with m.If(load):
            m.d.sync += found.eq(value)
        with m.If(clear):
            m.d.sync += found.eq(0)
        return found
    found, enable, reset = Signal(bits, name=name), Signal(name=f"{name}_ce"), Signal(name=f"{name}_r")
    m.d.comb += [enable.eq(en & load), reset.eq((en & clear) | ResetSignal("sync"))]
    for bit in range(bits):
        m.submodules[f"{name}_{bit}"] = Instance(
            "FDRE", p_INIT=Const(0, 1), i_C=ClockSignal("sync"), i_CE=enable, i_R=reset, i_D=value[bit], o_Q=found[bit]
        )
    return found


def select(m: Module, platform: Any, name: str, words: list[Value], index: Value) -> Value:
    """``words[index]``; eight or more words go through MUXF7."""
    if not on_card(platform) or len(words) < 8:
        return _tree(words, index)
    count, bits = 1 << (len(words) - 1).bit_length(), len(words[0])
    words = [*words, *[Value.cast(Const(0, bits))] * (count - len(words))]
    eighths = []
    for first in range(0, count, 8):
        low, high, out = (Signal(bits, name=f"{name}{first}_{part}") for part in ("low", "high", "out"))
        m.d.comb += [
            low.eq(_tree(words[first : first + 4], index[0:2])),
            high.eq(_tree(words[first + 4 : first + 8], index[0:2])),
        ]
        for bit in range(bits):
            m.submodules[f"{name}{first}_{bit}"] = Instance(
                "MUXF7", i_I0=low[bit], i_I1=high[bit], i_S=index[2], o_O=out[bit]
            )
        eighths.append(out)
    return _tree(eighths, index[3:])


def _tree(words: list[Value], index: Value) -> Value:
    if len(words) == 1:
        return words[0]
    half = 1 << (len(words) - 1).bit_length() - 1
    top = half.bit_length() - 1
    return Mux(index[top], _tree(words[half:], index[0:top]), _tree(words[:half], index[0:top]))
