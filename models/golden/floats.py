"""Floating point as the hardware does it: binary16 operands, binary32 sums, one canonical quiet NaN.

Functions named ``..._bits`` take and return bit patterns (uint16 or uint32 arrays), all others values (float16 or
float32 arrays). All broadcast, round to nearest even and return arrays whose NaNs are canonical: 0x7E00, 0x7FC00000.
NumPy's arithmetic is IEEE 754, so it is the definition; tests/test_golden_floats.py checks it against integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError

NAN16 = 0x7E00
NAN32 = 0x7FC00000

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]

_NAN_VALUES: dict[Any, Any] = {
    np.dtype(np.float16): np.array(NAN16, np.uint16).view(np.float16),
    np.dtype(np.float32): np.array(NAN32, np.uint32).view(np.float32),
}
_BITS: dict[Any, Any] = {np.dtype(np.float16): np.uint16, np.dtype(np.float32): np.uint32}
_VALUES: dict[Any, Any] = {np.dtype(np.uint16): np.float16, np.dtype(np.uint32): np.float32}
_LEAST_NORMAL = np.float32(2.0**-126)


def require_dtype(name: str, array: Any, dtype: Any) -> NDArray[Any]:
    """Return ``array`` as an ndarray; NmsatError unless it has exactly this dtype (nothing is converted silently)."""
    found = np.asarray(array)
    if found.dtype != np.dtype(dtype):
        raise NmsatError.rule("golden", f"{name}.dtype", np.dtype(dtype).name, found.dtype.name)
    return found


def to_bits(values: NDArray[Any]) -> NDArray[Any]:
    """Bit patterns of float16 (uint16) or float32 (uint32) values, NaN payloads untouched."""
    found = np.ascontiguousarray(values).reshape(np.shape(values))
    if found.dtype not in _BITS:
        raise NmsatError.rule("golden", "values.dtype", "float16 or float32", found.dtype.name)
    return found.view(_BITS[found.dtype])


def from_bits(bits: NDArray[Any]) -> NDArray[Any]:
    """Values of uint16 (float16) or uint32 (float32) bit patterns, NaN payloads untouched."""
    found = np.ascontiguousarray(bits).reshape(np.shape(bits))
    if found.dtype not in _VALUES:
        raise NmsatError.rule("golden", "bits.dtype", "uint16 or uint32", found.dtype.name)
    return found.view(_VALUES[found.dtype])


def canonical(values: NDArray[Any]) -> NDArray[Any]:
    """Replace every NaN of a float16 or float32 array by the canonical quiet NaN of its format.

    An array without a NaN comes back itself, not as a copy.
    """
    found = np.asarray(values)
    if found.dtype not in _NAN_VALUES:
        raise NmsatError.rule("golden", "values.dtype", "float16 or float32", found.dtype.name)
    nan = np.isnan(found)
    return np.where(nan, _NAN_VALUES[found.dtype], found) if nan.any() else found


def widen(values: F16) -> F32:
    """binary16 to binary32, exact; subnormals become normal."""
    with np.errstate(all="ignore"):
        return canonical(require_dtype("values", values, np.float16).astype(np.float32))


def narrow(values: F32) -> F16:
    """binary32 to binary16, nearest even; 65520 and above become Inf, results below 2^-14 are subnormal."""
    with np.errstate(all="ignore"):
        return canonical(require_dtype("values", values, np.float32).astype(np.float16))


def multiply(a: F16, b: F16) -> F32:
    """Product of binary16 values in binary32.

    Exact: 11-bit significands make at most 22 bits, and a non-zero magnitude lies between 2^-48 and 2^32, so there is
    neither rounding nor underflow nor overflow.
    """
    with np.errstate(all="ignore"):
        return canonical(widen(a) * widen(b))


def add(a: F32, b: F32) -> F32:
    """Sum of binary32 values, nearest even, subnormals kept; x + (-x) is +0."""
    with np.errstate(all="ignore"):
        return canonical(require_dtype("a", a, np.float32) + require_dtype("b", b, np.float32))


def flush(values: F32) -> F32:
    """Replace binary32 subnormals by the zero of their sign; NaNs become canonical."""
    found = canonical(require_dtype("values", values, np.float32))
    tiny = np.abs(found) < _LEAST_NORMAL
    return np.where(tiny, np.copysign(np.float32(0), found), found)


def ftz_multiply(a: F32, b: F32) -> F32:
    """Product of binary32 values as WUVE forms it: operands flushed, nearest even, result flushed.

    The result is rounded as IEEE 754 says, with gradual underflow, and then flushed. A multiplier that normalises first
    must therefore map a product of exponent -127 whose leading 24 bits are all ones to 2^-126, not to zero.
    """
    with np.errstate(all="ignore"):
        return flush(flush(a) * flush(b))


def ftz_add(a: F32, b: F32) -> F32:
    """Sum of binary32 values as WUVE forms it: operands flushed, nearest even, result flushed."""
    with np.errstate(all="ignore"):
        return flush(flush(a) + flush(b))


def widen_bits(bits: U16) -> U32:
    """:func:`widen` on bit patterns."""
    return to_bits(widen(_values("bits", bits, np.uint16)))


def narrow_bits(bits: U32) -> U16:
    """:func:`narrow` on bit patterns."""
    return to_bits(narrow(_values("bits", bits, np.uint32)))


def multiply_bits(a: U16, b: U16) -> U32:
    """:func:`multiply` on bit patterns."""
    return to_bits(multiply(_values("a", a, np.uint16), _values("b", b, np.uint16)))


def add_bits(a: U32, b: U32) -> U32:
    """:func:`add` on bit patterns."""
    return to_bits(add(_values("a", a, np.uint32), _values("b", b, np.uint32)))


def ftz_multiply_bits(a: U32, b: U32) -> U32:
    """:func:`ftz_multiply` on bit patterns."""
    return to_bits(ftz_multiply(_values("a", a, np.uint32), _values("b", b, np.uint32)))


def ftz_add_bits(a: U32, b: U32) -> U32:
    """:func:`ftz_add` on bit patterns."""
    return to_bits(ftz_add(_values("a", a, np.uint32), _values("b", b, np.uint32)))


def _values(name: str, bits: Any, dtype: Any) -> NDArray[Any]:
    return from_bits(require_dtype(name, bits, dtype))
