"""The window accumulator: products rounded to a fixed grid and summed as integers (docs/accelerator.md, section 11).

A product's magnitude is P units of 2^-48, an integer below 2^64, or the output is flagged. P is rounded to the window's
grid of 2^-L, the first dropped bit being carried in (half away from zero), gets its sign and is added as an integer.
Integer addition is associative, so a sum depends neither on the order of k nor on how k is cut.

``..._reference`` is the definition in NumPy and Python integers of the compiled function of the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..window import MAX_TERMS_LOG2, Window
from .floats import F16, F32, NAN32, U16, canonical, narrow, require_dtype, to_bits
from .nm_format import U8
from .products import check_operands

I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]
OPERAND_BITS = 18  # significand 14, q 3, sign 1


@dataclass(frozen=True, slots=True, eq=False)
class WindowSums:
    """Sums of products in units of 2^-L, exact.

    Attributes
    ----------
    high, low : int64 arrays, one shape
        The sum is high * 2^32 + low, 0 <= low < 2^32.
    flagged : bool array
        An operand was not finite or a product reached 2^16: the output is NaN, whatever the sum says.
    window : Window
    """

    high: I64
    low: I64
    flagged: Flags
    window: Window

    @classmethod
    def zeros(cls, shape: tuple[int, ...], window: Window) -> WindowSums:
        """Sums of no products."""
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.bool_), window)

    @classmethod
    def of_integers(cls, sums: Any, flagged: Any, window: Window) -> WindowSums:
        """From (nested) Python integers in units of 2^-L."""
        found = np.array(sums, object)
        high = np.array([int(x) >> 32 for x in found.reshape(-1)], np.int64).reshape(found.shape)
        low = np.array([int(x) & 0xFFFFFFFF for x in found.reshape(-1)], np.int64).reshape(found.shape)
        return cls(high, low, np.broadcast_to(np.asarray(flagged, np.bool_), found.shape).copy(), window)

    def integers(self) -> NDArray[Any]:
        """Python integers in units of 2^-L (object array); meaningless where flagged."""
        return self.high.astype(object) * (1 << 32) + self.low.astype(object)

    def __add__(self, other: WindowSums) -> WindowSums:
        """Sums of both sets of products."""
        if other.window != self.window:
            raise NmsatError.rule("golden", "window", f"{self.window} of both", other.window)
        low = self.low + other.low
        high = self.high + other.high + (low >> 32)
        return WindowSums(high, low & 0xFFFFFFFF, self.flagged | other.flagged, self.window)

    def same(self, other: WindowSums) -> bool:
        """Equal flags, and equal sums where nothing is flagged."""
        if not np.array_equal(self.flagged, other.flagged):
            return False
        valid = ~self.flagged
        return bool(((self.high == other.high) & (self.low == other.low))[valid].all())

    def words(self) -> NDArray[Any]:
        """Sum words as the array's ports carry them: ``sum_bits`` wide, two's complement, unsigned Python integers.

        The two highest bits of a sum are equal. Flagged is 1 and 0 there; the rest of such a word means nothing, here
        it is 0.
        """
        bits = self.window.sum_bits
        return np.where(self.flagged, 1 << bits - 1, self.integers() & ((1 << bits) - 1))

    @classmethod
    def of_words(cls, words: Any, window: Window) -> WindowSums:
        """Read :meth:`words` back."""
        found, bits = np.array(words, object), window.sum_bits
        flagged = found >> bits - 2 == 2
        signed = np.where(found >= 1 << bits - 1, found - (1 << bits), found)
        return cls.of_integers(np.where(flagged, 0, signed), flagged, window)

    def to_binary32(self, *, odd: bool = False) -> F32:
        """Rounded once to binary32.

        Parameters
        ----------
        odd : bool
            Round to odd, not to nearest even: an inexact result has its last bit set. Binary16 is then still a
            single rounding away (24 bits >= 11 + 2), which is how the drain and the epilogue share one converter.

        Returns
        -------
        float32 array
            The canonical NaN where flagged; a sum of zero is +0. Neither overflow nor subnormals: magnitudes are
            below 2^45 and no less than 2^-40.
        """
        from .window_kernels import drain

        out = np.empty(self.high.shape, np.float32)
        drain(
            self.high.reshape(-1), self.low.reshape(-1), self.flagged.reshape(-1), self.window.lsb, odd, out.reshape(-1)
        )
        return canonical(out)

    def to_binary16(self) -> F16:
        """Rounded once to binary16, nearest even; 65520 and above become Inf; NaN where flagged.

        A negative sum that rounds to zero is -0, as IEEE has it.
        """
        return narrow(self.to_binary32(odd=True))


def round_sum_reference(total: int, window: Window, fraction_bits: int, least_exponent: int) -> tuple[bool, int, int]:
    """Round a sum to a binary format, nearest even: (negative, significand, exponent of its last bit).

    Parameters
    ----------
    total : int
        Units of 2^-L.
    fraction_bits, least_exponent : int
        Of the format: 10 and -14 for binary16, 23 and -126 for binary32.
    """
    magnitude = abs(total)
    last = max(magnitude.bit_length() - 1 - window.lsb, least_exponent) - fraction_bits  # weight 2^last
    shift = last + window.lsb
    if shift <= 0:
        return total < 0, magnitude << -shift, last
    kept, rest, half = magnitude >> shift, magnitude & ((1 << shift) - 1), 1 << shift - 1
    return total < 0, kept + (rest > half or (rest == half and kept & 1)), last


def binary32_reference(total: int, flagged: bool, window: Window) -> int:
    """Bits of :meth:`WindowSums.to_binary32` (nearest even) for one sum."""
    if flagged:
        return NAN32
    negative, significand, last = round_sum_reference(total, window, 23, -126)
    if significand:
        significand += (last + 149) << 23
    return negative << 31 | significand


def operand(halves: U16) -> NDArray[np.uint32]:
    """Binary16 bit patterns in the array's radix-16 form, exact.

    Returns
    -------
    uint32 array
        Bits 0..13: the 11-bit significand shifted left by (e - 1) mod 4; 14..16: q = (e - 1) div 4; 17: sign. Its
        magnitude is significand14 * 16^q * 2^-24. Inf and NaN come out as q = 7 with bit 12 set, which no finite
        value has: :func:`is_special`.
    """
    bits = require_dtype("halves", halves, np.uint16).astype(np.uint32)
    exponent, fraction = bits >> 10 & 31, bits & 0x3FF
    place = np.maximum(exponent, 1) - 1
    significand = (fraction | (exponent > 0).astype(np.uint32) << 10) << (place & 3)
    return (significand | place >> 2 << 14 | bits >> 15 << 17).astype(np.uint32)


def is_special(operands: NDArray[np.uint32]) -> Flags:
    """Where an operand stands for Inf or NaN."""
    return (operands >> 14 & 7 == 7) & (operands >> 12 & 1 == 1)


def window_product(a: U16, b: U16, window: Window) -> tuple[I64, Flags]:
    """Products of binary16 bit patterns (broadcast) in units of 2^-L, rounded half away from zero.

    Returns
    -------
    units, flagged : int64 and bool arrays
        Units are 0 where flagged: an operand is Inf or NaN, or the magnitude is at least 2^16.
    """
    x, y = np.broadcast_arrays(operand(a), operand(b))
    significand = ((x & 0x3FFF) * (y & 0x3FFF)).astype(np.uint64)
    power = (x >> 14 & 7) + (y >> 14 & 7)
    # is P = significand * 16^power at least 2^64? Beyond power 10 both are normal: the significand is at least 2^20
    large = (power > 10) | ((power == 10) & (significand >> np.uint64(24) > 0))
    flagged = is_special(x) | is_special(y) | large
    exact = np.where(flagged, np.uint64(0), significand) << (np.minimum(power, 10) * 4).astype(np.uint64)
    dropped = 48 - window.lsb
    units = (exact >> np.uint64(dropped)) + (exact >> np.uint64(dropped - 1) & np.uint64(1))
    signed = units.astype(np.int64)
    return np.where((x ^ y) >> 17 & 1, -signed, signed), flagged


def product_window(
    a: F16, values: F16, indices: U8, group: int, window: Window, *, initial: WindowSums | None = None
) -> WindowSums:
    """C = A B in the window (compiled): every dataflow, tiling and interleave gives these sums.

    Parameters
    ----------
    a : float16 array (m, G * group)
        Activations; each tap's channel tail padded with zeros.
    values, indices : float16 and unsigned integer arrays (G, N, n)
        Compressed B; dense: N == group, indices 0..N-1.
    group : int
        M.
    initial : WindowSums (m, n), optional
        Sums to continue from.

    Raises
    ------
    NmsatError
        If shapes or dtypes do not fit, an index is not below ``group``, or k has more than 2^29 products.
    """
    from .window_kernels import BLOCK, window_sums

    found, values, indices, (m, n) = _checked(a, values, indices, group, initial)
    groups = len(values)
    blocks = -(-m // BLOCK)
    padded = np.zeros((blocks * BLOCK, found.shape[1]), np.float64)
    with np.errstate(invalid="ignore"):  # signalling NaNs: they only raise the flag
        padded[:m], wide = found, values.astype(np.float64)
    rows = indices.astype(np.int32) + np.arange(groups, dtype=np.int32)[:, None, None] * group
    rows = np.ascontiguousarray(rows.transpose(2, 0, 1))
    columns = np.ascontiguousarray(wide.transpose(2, 0, 1))
    shaped = np.ascontiguousarray(padded.reshape(blocks, BLOCK, -1).transpose(0, 2, 1))
    shape = (n, blocks, BLOCK)
    high, low, flagged = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    window_sums(shaped, columns, rows, window.lsb, high, low, flagged)

    def rows_of(blocked: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(blocked.reshape(n, -1)[:, :m].T)

    sums = WindowSums(rows_of(high), rows_of(low), rows_of(flagged), window)
    return sums if initial is None else initial + sums


def product_window_reference(
    a: F16, values: F16, indices: U8, group: int, window: Window, *, initial: WindowSums | None = None
) -> WindowSums:
    """:func:`product_window` by :func:`window_product` and Python integers: the definition."""
    a, values, indices, (m, n) = _checked(a, values, indices, group, initial)
    total, flagged = np.zeros((m, n), object), np.zeros((m, n), np.bool_)
    a_bits, v_bits = to_bits(a), to_bits(values)
    for g in range(len(values)):
        for lane in range(values.shape[1]):
            chosen = a_bits[:, g * group + indices[g, lane].astype(np.intp)]
            units, bad = window_product(chosen, v_bits[g, lane], window)
            total, flagged = total + units.astype(object), flagged | bad
    sums = WindowSums.of_integers(total, flagged, window)
    return sums if initial is None else initial + sums


def _checked(
    a: Any, values: Any, indices: Any, group: int, initial: WindowSums | None
) -> tuple[F16, F16, NDArray[Any], tuple[int, int]]:
    a, values, indices = check_operands(a, values, indices, group)
    terms, shape = values.shape[0] * values.shape[1], (a.shape[0], values.shape[2])
    if terms > 1 << MAX_TERMS_LOG2:
        raise NmsatError.rule("golden", "k", f"at most 2^{MAX_TERMS_LOG2} products", terms)
    if initial is not None and initial.high.shape != shape:
        raise NmsatError.rule("golden", "initial.shape", f"{shape} like the result", initial.high.shape)
    return a, values, indices, shape
