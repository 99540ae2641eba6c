"""The window accumulator's number format: fixed point, so that a sum does not depend on the order of its terms."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import NmsatError

LEAST_LSB, GREATEST_LSB = 8, 40
TURNAROUND = 3  # cycles: add at the foot, write the output buffer, read it: when a spilled sum can be continued
MAX_TERMS_LOG2 = 29  # products that a sum word holds whatever their signs, with a bit to spare for the flag


@dataclass(frozen=True, slots=True)
class Window:
    """Sizes of a window accumulator.

    Attributes
    ----------
    lsb : int
        L, 8 to 40: a sum counts units of 2^-L. Products are rounded to it, half away from zero.
    bits : int
        W, L + 17 to L + 46: two's complement width of the sum in an element.

    Raises
    ------
    NmsatError
        A size is out of its range.
    """

    lsb: int = 33
    bits: int = 64

    def __post_init__(self) -> None:
        if not LEAST_LSB <= self.lsb <= GREATEST_LSB:
            raise NmsatError.rule("window", "lsb", f"{LEAST_LSB} to {GREATEST_LSB}", self.lsb)
        least, most = self.lsb + 17, self.lsb + 17 + MAX_TERMS_LOG2
        if not least <= self.bits <= most:
            rule = f"L + 17 to L + {17 + MAX_TERMS_LOG2}, {least} to {most} at L = {self.lsb}"
            raise NmsatError.rule("window", "bits", rule, self.bits)

    @property
    def terms(self) -> int:
        """Products that an element's sum holds whatever their signs, 2^(W - L - 17).

        Every product that counts is below 2^16, hence rounds to less than 2^(16 + L) units, and the sum stays below
        2^(W - 1). More terms are cut into k-tiles, added beside the array.
        """
        return 1 << self.bits - self.lsb - 17

    @property
    def sum_bits(self) -> int:
        """Bits of a sum word at the array's ports, whole bytes: room for 2^29 products and a bit more.

        So the two highest bits of a sum are equal; a word in which they are 1 and 0 says flagged.
        """
        return -(-(self.lsb + 17 + MAX_TERMS_LOG2 + 1) // 8) * 8

    @property
    def sum_bytes(self) -> int:
        """Bytes of a sum word in the output buffer."""
        return self.sum_bits // 8
