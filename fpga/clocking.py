"""Clock manager settings: the dividers that turn a board's oscillator into the core clock exactly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ..models.errors import NmsatError
from .board import Board, MmcmLimits

# MMCME4 (UG572): the feedback and the first output divide by eighths.
_DIVIDE = range(1, 107)
_MULTIPLY_EIGHTHS = range(2 * 8, 128 * 8 + 1)
_OUTPUT_EIGHTHS = range(1 * 8, 128 * 8 + 1)


@dataclass(frozen=True, slots=True)
class Mmcm:
    """Settings of an MMCME4: output = input / divide * multiply / output_divide.

    Attributes
    ----------
    input_mhz, output_mhz : Fraction
    divide : int
        DIVCLK_DIVIDE.
    multiply, output_divide : Fraction
        CLKFBOUT_MULT_F and CLKOUT0_DIVIDE_F, multiples of 1/8.
    """

    input_mhz: Fraction
    output_mhz: Fraction
    divide: int
    multiply: Fraction
    output_divide: Fraction

    @property
    def pfd_mhz(self) -> Fraction:
        """At the phase detector."""
        return self.input_mhz / self.divide

    @property
    def vco_mhz(self) -> Fraction:
        """Of the oscillator."""
        return self.pfd_mhz * self.multiply

    def check(self, limits: MmcmLimits) -> None:
        """Raise NmsatError unless the settings make the output frequency within the limits."""
        made = self.vco_mhz / self.output_divide
        if made != self.output_mhz:
            raise NmsatError.rule("mmcm", "output_mhz", f"what the dividers make, {_mhz(made)}", _mhz(self.output_mhz))
        for key, value, low, high in (
            ("pfd_mhz", self.pfd_mhz, limits.pfd_min_mhz, limits.pfd_max_mhz),
            ("vco_mhz", self.vco_mhz, limits.vco_min_mhz, limits.vco_max_mhz),
        ):
            if not low <= value <= high:
                raise NmsatError.rule("mmcm", key, f"{low:g} to {high:g}", _mhz(value))
        for key, value, allowed in (
            ("divide", Fraction(self.divide), [Fraction(d) for d in _DIVIDE]),
            ("multiply", self.multiply, [Fraction(e, 8) for e in _MULTIPLY_EIGHTHS]),
            ("output_divide", self.output_divide, [Fraction(e, 8) for e in _OUTPUT_EIGHTHS]),
        ):
            if value not in allowed:
                raise NmsatError.rule("mmcm", key, f"{allowed[0]} to {allowed[-1]} in steps the MMCM has", str(value))


def mmcm_for(board: Board, clock_mhz: int, input_mhz: float | None = None) -> Mmcm:
    """Settings for a core clock.

    Whole dividers are preferred to eighths (less jitter), then a small input divider (a fast phase detector), then
    a fast oscillator.

    Parameters
    ----------
    board : Board
        Its first clock is the input unless ``input_mhz`` is given.
    clock_mhz : int
        The accelerator's ``clock_mhz``.

    Raises
    ------
    NmsatError
        No setting makes the frequency exactly.
    """
    source = Fraction(board.clocks[0].mhz if input_mhz is None else input_mhz)
    limits, wanted = board.mmcm, Fraction(clock_mhz)
    for step in (8, 1):  # whole dividers, then eighths; of each the first found is the best
        outputs = [e for e in reversed(_OUTPUT_EIGHTHS) if e % step == 0 and _within(limits, wanted * e / 8)]
        for divide in _DIVIDE:
            if not limits.pfd_min_mhz <= source / divide <= limits.pfd_max_mhz:
                continue
            for output in outputs:
                multiply = wanted * output * divide / source  # in eighths
                if multiply.denominator == 1 and multiply % step == 0 and int(multiply) in _MULTIPLY_EIGHTHS:
                    found = Mmcm(source, wanted, divide, multiply / 8, Fraction(output, 8))
                    found.check(limits)
                    return found
    rule = f"a frequency that board {board.name!r} can make from {_mhz(source)} exactly"
    raise NmsatError.rule("accelerator", "clock_mhz", rule, clock_mhz, "200 and 250 can be made from 300")


def _within(limits: MmcmLimits, vco_mhz: Fraction) -> bool:
    return limits.vco_min_mhz <= vco_mhz <= limits.vco_max_mhz


def _mhz(value: Fraction) -> str:
    return f"{float(value):g} MHz"
