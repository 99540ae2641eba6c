"""Millions of CSV rows from columns, in compiled code: Python's own writer would take longer than the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

DIGITS = 9  # significant, of a floating-point figure
_WIDTH = 20  # bytes of the longest number, with its comma
_POWERS = 10.0 ** np.arange(-300, 301)
_TENS = 10 ** np.arange(DIGITS + 1, dtype=np.int64)


def csv_rows(
    texts: Sequence[tuple[NDArray[np.int64], Sequence[str]]],
    integers: Sequence[NDArray[np.int64]],
    floats: Sequence[NDArray[np.float64]],
) -> bytes:
    """Rows of an integer column, the text columns, the other integer columns, the float columns.

    Parameters
    ----------
    texts : sequence of (codes int64 (rows,), values)
        Each column as indices into its few values, written as they are (quoted where CSV needs it).
    integers : sequence of int64 (rows,)
        Not negative; the first leads the row.
    floats : sequence of float64 (rows,)
        Finite, not negative, below 1e290; written with 9 significant digits.
    """
    rows = len(integers[0])
    encoded = [[_quoted(value).encode() for value in values] for _, values in texts]
    codes = np.array([column for column, _ in texts], np.int64).reshape(len(texts), rows)
    starts = np.cumsum([0, *(len(values) for values in encoded)])[:-1].astype(np.int64)
    flat = [value for values in encoded for value in values]
    ends = np.cumsum([len(value) for value in flat], dtype=np.int64)
    widest = sum(max(map(len, values), default=0) + 1 for values in encoded)
    room = rows * (widest + _WIDTH * (len(integers) + len(floats)) + 1)
    out = np.empty(room, np.uint8)
    size = _fill(
        out,
        codes,
        starts,
        np.frombuffer(b"".join(flat) or b" ", np.uint8),
        np.concatenate([[0], ends]),
        np.ascontiguousarray(integers, np.int64),
        np.ascontiguousarray(floats, np.float64).reshape(len(floats), rows),
        _POWERS,
        _TENS,
    )
    return out[:size].tobytes()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text


@njit(cache=True)
def _fill(out, codes, starts, text, ends, integers, floats, powers, tens):  # type: ignore[no-untyped-def]
    at = 0
    for row in range(integers.shape[1]):
        at = _integer(out, at, integers[0, row])
        for column in range(len(codes)):
            out[at] = 44
            at += 1
            index = starts[column] + codes[column, row]
            for position in range(ends[index], ends[index + 1]):
                out[at] = text[position]
                at += 1
        for column in range(1, len(integers)):
            out[at] = 44
            at = _integer(out, at + 1, integers[column, row])
        for column in range(len(floats)):
            out[at] = 44
            at = _float(out, at + 1, floats[column, row], powers, tens)
        out[at] = 10
        at += 1
    return at


@njit(cache=True)
def _integer(out, at, value):  # type: ignore[no-untyped-def]
    first = at
    while True:
        out[at] = 48 + value % 10
        value //= 10
        at += 1
        if value == 0:
            break
    low, high = first, at - 1
    while low < high:
        out[low], out[high] = out[high], out[low]
        low += 1
        high -= 1
    return at


@njit(cache=True)
def _float(out, at, value, powers, tens):  # type: ignore[no-untyped-def]
    if value <= 0.0:
        out[at] = 48
        return at + 1
    exponent = int(np.floor(np.log10(value)))
    mantissa = int(np.rint(value * powers[300 + 8 - exponent]))
    if mantissa >= tens[9]:
        exponent += 1
        mantissa = int(np.rint(value * powers[300 + 8 - exponent]))
    elif mantissa < tens[8]:
        exponent -= 1
        mantissa = int(np.rint(value * powers[300 + 8 - exponent]))
    plain = -5 < exponent < 9
    whole = exponent if plain and exponent >= 0 else 0  # digits after the first before the point
    if plain and exponent < 0:
        out[at], out[at + 1] = 48, 46
        at += 2
        for _ in range(-exponent - 1):
            out[at] = 48
            at += 1
        whole = -1
    for digit in range(9):
        out[at] = 48 + mantissa // tens[8 - digit] % 10
        at += 1
        if digit == whole and digit < 8:
            out[at] = 46
            at += 1
    if not plain:
        out[at], out[at + 1] = 101, 43 if exponent >= 0 else 45
        at += 2
        size = abs(exponent)
        if size < 10:
            out[at] = 48
            at += 1
        at = _integer(out, at, size)
    return at
