"""Millions of CSV rows from columns, in compiled code: Python's own writer would take longer than the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

DIGITS = 9  # significant, of a floating-point figure
_WIDTH = 20  # bytes of the longest number, with its comma
_POWERS = 10.0 ** np.arange(-300, 301)
_TENS = 10 ** np.arange(19, dtype=np.uint64)
_PAIRS = np.frombuffer("".join(f"{pair:02d}" for pair in range(100)).encode(), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """A column's few values as CSV writes them, packed.

    Attributes
    ----------
    content : uint8 (bytes,)
        One after the other.
    ends : int64 (values,)
        Where each ends.
    widest : int
        Bytes of the longest.
    """

    content: NDArray[np.uint8]
    ends: NDArray[np.int64]
    widest: int

    @classmethod
    def of(cls, values: Sequence[str]) -> Texts:
        """Quote what CSV needs quoted, and pack."""
        encoded = [_quoted(value).encode() for value in values]
        sizes = [len(value) for value in encoded]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum(sizes, dtype=np.int64), max(sizes, default=0))


def csv_rows(
    texts: Sequence[tuple[NDArray[np.int64], Texts]],
    integers: Sequence[NDArray[np.int64]],
    floats: Sequence[NDArray[np.float64]],
) -> bytes:
    """Rows of an integer column, the text columns, the other integer columns, the float columns.

    Parameters
    ----------
    texts : sequence of (codes int64 (rows,), Texts)
        Each column as indices into its few values.
    integers : sequence of int64 (rows,)
        Not negative; the first leads the row.
    floats : sequence of float64 (rows,)
        Finite, not negative, below 1e290; written with 9 significant digits.
    """
    rows = len(integers[0])
    codes = np.array([column for column, _ in texts], np.int64).reshape(len(texts), rows)
    starts = np.cumsum([0, *(len(values.ends) for _, values in texts)])[:-1].astype(np.int64)
    offsets = np.cumsum([0, *(len(values.content) for _, values in texts)])
    ends = [np.zeros(1, np.int64), *(values.ends + at for (_, values), at in zip(texts, offsets, strict=False))]
    content = np.concatenate([np.zeros(0, np.uint8), *(values.content for _, values in texts)])
    widest = sum(values.widest + 1 for _, values in texts)
    out = np.empty(rows * (widest + _WIDTH * (len(integers) + len(floats)) + 1), np.uint8)
    size = _fill(
        out,
        codes,
        starts,
        content,
        np.concatenate(ends),
        np.ascontiguousarray(integers, np.int64),
        np.ascontiguousarray(floats, np.float64).reshape(len(floats), rows),
        _POWERS,
        _TENS,
        _PAIRS,
    )
    return out[:size].tobytes()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text


@njit(cache=True)
def _fill(out, codes, starts, text, ends, integers, floats, powers, tens, pairs):  # type: ignore[no-untyped-def]
    at = 0
    for row in range(integers.shape[1]):
        at = _integer(out, at, integers[0, row], tens, pairs)
        for column in range(len(codes)):
            out[at] = 44
            at += 1
            index = starts[column] + codes[column, row]
            for position in range(ends[index], ends[index + 1]):
                out[at] = text[position]
                at += 1
        for column in range(1, len(integers)):
            out[at] = 44
            at = _integer(out, at + 1, integers[column, row], tens, pairs)
        for column in range(len(floats)):
            out[at] = 44
            at = _float(out, at + 1, floats[column, row], powers, tens, pairs)
        out[at] = 10
        at += 1
    return at


@njit(cache=True)
def _integer(out, at, value, tens, pairs):  # type: ignore[no-untyped-def]
    rest, size = np.uint64(value), 1
    while size < 19 and rest >= tens[size]:
        size += 1
    return _digits(out, at, rest, size, pairs)


@njit(cache=True)
def _digits(out, at, value, size, pairs):  # type: ignore[no-untyped-def]
    """The lowest ``size`` digits of an unsigned integer, two at a time."""
    place = at + size
    while place > at + 1:
        place -= 2
        tail = value // np.uint64(100)
        pair = np.int64(value - tail * np.uint64(100)) * 2
        out[place], out[place + 1] = pairs[pair], pairs[pair + 1]
        value = tail
    if place > at:
        out[at] = 48 + value % np.uint64(10)
    return at + size


@njit(cache=True)
def _float(out, at, value, powers, tens, pairs):  # type: ignore[no-untyped-def]
    if value <= 0.0:
        out[at] = 48
        return at + 1
    exponent = int(np.floor(np.log10(value)))
    mantissa = np.uint64(np.rint(value * powers[300 + 8 - exponent]))
    if mantissa >= tens[9]:
        exponent += 1
        mantissa = np.uint64(np.rint(value * powers[300 + 8 - exponent]))
    elif mantissa < tens[8]:
        exponent -= 1
        mantissa = np.uint64(np.rint(value * powers[300 + 8 - exponent]))
    if -5 < exponent < 0:
        out[at], out[at + 1] = 48, 46
        at += 2
        for _ in range(-exponent - 1):
            out[at] = 48
            at += 1
        return _digits(out, at, mantissa, 9, pairs)
    if exponent == 8:
        return _digits(out, at, mantissa, 9, pairs)
    plain = 0 <= exponent < 9
    whole = exponent + 1 if plain else 1  # digits before the point
    _digits(out, at + 1, mantissa, 9, pairs)
    for place in range(at, at + whole):
        out[place] = out[place + 1]
    out[at + whole] = 46
    at += 10
    if not plain:
        out[at], out[at + 1] = 101, 43 if exponent >= 0 else 45
        size = abs(exponent)
        at = _digits(out, at + 2, np.uint64(size), 2 if size < 100 else 3, pairs)
    return at
