"""Batch, layer and RMS normalisation, forward and backward: exact sums, rounded once, then elementwise binary32.

A sum over many values must not depend on who adds them in which order: the array's columns, vector lanes and a host
would all differ. Sums here are therefore exact. A binary16 is a multiple of 2^-24 and a product of two a multiple of
2^-48, so integers hold them; what follows from a sum is rounded to binary32 once. Everything after that is elementwise
and rounds after each operation, to binary16 where a step ends (docs/golden.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, ldexp

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from .floats import F16, F32, add, canonical, narrow, require_dtype, widen

EPSILON = np.float32(1e-5)
KINDS = ("batchnorm", "layernorm", "rmsnorm")
_ROWS = 2**20  # rows summed in int64: partial products stay below 2^41
_LOW = 2**20 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Normalised:
    """What a normalisation's forward step leaves behind.

    Attributes
    ----------
    y : float16 array (rows, channels)
        narrow(gamma * unit + beta).
    unit : float16 array (rows, channels)
        narrow((x - mean) * inverse): mean 0, variance 1 along the group's axis.
    inverse, mean, variance : float32 arrays (groups,)
        A group is a channel (batchnorm) or a row; ``inverse`` is 1 / sqrt(variance + EPSILON). RMS: mean is 0.
    """

    y: F16
    unit: F16
    inverse: F32
    mean: F32
    variance: F32


def normalise(kind: str, x: F16, gamma: F32, beta: F32, statistics: tuple[F32, F32] | None = None) -> Normalised:
    """The forward step.

    Parameters
    ----------
    kind : str
        ``batchnorm`` (a channel over all rows), ``layernorm`` or ``rmsnorm`` (a row over its channels).
    x : float16 array (rows, channels)
    gamma, beta : float32 arrays (channels,)
    statistics : (mean, variance), optional
        Binary32 a group, to use in place of those of ``x`` (inference).

    Raises
    ------
    NmsatError
        For an unknown kind, another dtype, or shapes that do not fit.
    """
    x = _checked(kind, x, gamma, beta)
    mean, variance = moments(kind, x) if statistics is None else statistics
    with np.errstate(all="ignore"):
        inverse: F32 = canonical(np.float32(1) / np.sqrt(variance + EPSILON))
        centred: F32 = widen(x) - _across(kind, mean)
        unit = narrow(centred * _across(kind, inverse))
        y = narrow(add(gamma * widen(unit), beta))
    return Normalised(y, unit, inverse, mean, variance)


def normalise_gradient(kind: str, dy: F16, found: Normalised, gamma: F32) -> tuple[F16, F32, F32]:
    """The backward step: (dx, gradient of gamma, gradient of beta).

    ``g = narrow(gamma * dy)``, then ``dx = narrow(((g - mean(g)) - unit * mean(g * unit)) * inverse)`` with the means
    along the group's axis, exact and rounded once (no mean(g) under RMS). The gradients of gamma and beta are the exact
    sums of ``dy * unit`` and ``dy`` over the rows, rounded once.

    Parameters
    ----------
    dy : float16 array (rows, channels)
        Gradient of ``found.y``.

    Returns
    -------
    float16 array (rows, channels), float32 arrays (channels,)
    """
    dy = _checked(kind, dy, gamma, gamma)
    with np.errstate(all="ignore"):
        g = narrow(gamma * widen(dy))
    columns, unit = _grouped(kind, g), _grouped(kind, found.unit)
    count = len(columns)
    along = _rounded(column_dots(columns, unit), count << 48)
    mean = _rounded(column_sums(columns), count << 24) if kind != "rmsnorm" else np.zeros_like(along)
    with np.errstate(all="ignore"):
        centred, drift = widen(g) - _across(kind, mean), widen(found.unit) * _across(kind, along)
        dx = narrow(np.subtract(centred, drift, dtype=np.float32) * _across(kind, found.inverse))
    return dx, _rounded(column_dots(dy, found.unit), 1 << 48), _rounded(column_sums(dy), 1 << 24)


def moments(kind: str, x: F16) -> tuple[F32, F32]:
    """(mean, variance) of every group, each rounded to binary32 once; RMS: (0, mean of squares). NaN where x is not
    finite."""
    columns = _grouped(kind, x)
    count = len(columns)
    sums, squares = column_sums(columns), column_dots(columns, columns)
    if kind == "rmsnorm":
        return np.zeros(len(sums), np.float32), _rounded(squares, count << 48)
    spread = [
        None if total is None or square is None else count * square - total * total
        for total, square in zip(sums, squares, strict=True)
    ]
    return _rounded(sums, count << 24), _rounded(spread, count * count << 48)


def column_sums(x: F16) -> list[int | None]:
    """Exact sum of every column, in units of 2^-24; None where an element is not finite."""
    parts = [_units(x[at : at + _ROWS]).sum(axis=0) for at in range(0, len(x), _ROWS)]
    return _where_finite([sum(int(part[column]) for part in parts) for column in range(x.shape[1])], x)


def column_dots(x: F16, y: F16) -> list[int | None]:
    """Exact sum of the products of two arrays' columns, in units of 2^-48; None where an element is not finite."""
    totals = [0] * x.shape[1]
    for at in range(0, len(x), _ROWS):
        a, b = _units(x[at : at + _ROWS]), _units(y[at : at + _ROWS])
        high = ((a >> 20) * (b >> 20)).sum(axis=0)
        middle = ((a >> 20) * (b & _LOW) + (a & _LOW) * (b >> 20)).sum(axis=0)
        low = ((a & _LOW) * (b & _LOW)).sum(axis=0)
        for column in range(len(totals)):
            totals[column] += (int(high[column]) << 40) + (int(middle[column]) << 20) + int(low[column])
    return _where_finite(totals, x, y)


def nearest_ratio(numerator: int, denominator: int) -> np.float32:
    """Binary32 nearest to a quotient of integers, ties to even; the denominator is positive."""
    magnitude = abs(numerator)
    if not magnitude:
        return np.float32(0)
    shift = 28 + denominator.bit_length() - magnitude.bit_length()  # the quotient has 28 or 29 bits, all it needs
    quotient, rest = divmod(magnitude << max(shift, 0), denominator << max(-shift, 0))
    odd = 2 * quotient + (rest > 0)  # a last bit that says "inexact": rounding this rounds the quotient itself
    with np.errstate(over="ignore"):
        return np.float32(copysign(ldexp(odd, -shift - 1), numerator))


def _units(x: F16) -> NDArray[np.int64]:
    """Values as multiples of 2^-24, below 2^40; what is not finite counts 0."""
    finite = np.where(np.isfinite(x), x, np.float16(0))
    return np.ldexp(finite.astype(np.float64), 24).astype(np.int64)


def _where_finite(totals: list[int], *arrays: F16) -> list[int | None]:
    bad = np.any([~np.isfinite(x).all(axis=0) for x in arrays], axis=0)
    return [None if wrong else total for total, wrong in zip(totals, bad.tolist(), strict=True)]


def _rounded(totals: list[int | None], denominator: int) -> F32:
    found = [np.float32(np.nan) if total is None else nearest_ratio(total, denominator) for total in totals]
    return canonical(np.array(found, np.float32))


def _grouped(kind: str, x: F16) -> F16:
    """(elements of a group, groups)."""
    return x if kind == "batchnorm" else x.T


def _across(kind: str, values: F32) -> F32:
    """A value a group, broadcast over (rows, channels)."""
    return values if kind == "batchnorm" else values[:, None]


def _checked(kind: str, x: F16, gamma: F32, beta: F32) -> F16:
    if kind not in KINDS:
        raise NmsatError.rule("golden", "kind", f"one of {', '.join(KINDS)}", kind)
    found = require_dtype("x", x, np.float16)
    for name, values in (("gamma", gamma), ("beta", beta)):
        if require_dtype(name, values, np.float32).shape != found.shape[1:] or found.ndim != 2 or not found.size:
            raise NmsatError.rule("golden", f"{name}.shape", "(channels,) of x (rows, channels)", np.shape(values))
    return found
