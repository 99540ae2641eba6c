"""Compiled twins of the window products and of their drain; imported on first use, tested equal to the definitions."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

BLOCK = 64  # activation rows handled together


@njit(cache=True, error_model="numpy", nogil=True)
def window_sums(a, values, rows, lsb, high, low, flagged):  # pragma: no cover
    """Add B's product to sums in two words.

    A product of two binary16 values is exact in binary64. Adding a half to its x units is exact below 2^52; above, x is
    a multiple of 2^30 and the half rounds away.

    Parameters
    ----------
    a : float64 array (blocks, k, BLOCK)
        A, transposed inside each block of rows.
    values, rows : float64 and int32 arrays (n, G, N)
        Values of B and the k they meet.
    lsb : int
        L.
    high, low : int64 arrays (n, blocks, BLOCK)
        The sum is high * 2^32 + low, 0 <= low < 2^32; added to.
    flagged : bool array, same shape
        Set where an operand is not finite or a product reaches 2^16.
    """
    tops = np.array([_largest(values[c].reshape(-1)) for c in range(values.shape[0])])
    for block in range(a.shape[0]):
        top = _largest(a[block].reshape(-1))
        for c in range(values.shape[0]):
            most = top * tops[c]  # NaN for Inf times 0
            if most < 65536.0 and most * 2.0**lsb < 2.0**46:
                _small(a[block], values[c], rows[c], 2.0**lsb, most * 2.0**lsb, high[c, block], low[c, block])
            else:
                _any(a[block], values[c], rows[c], lsb, high[c, block], low[c, block], flagged[c, block])


@njit(cache=True, error_model="numpy", nogil=True)
def _largest(values):  # pragma: no cover
    """Greatest magnitude; Inf if there is a NaN."""
    found = 0.0
    for value in values:
        if not abs(value) <= found:
            found = abs(value) if value == value else np.inf
    return found


@njit(cache=True, error_model="numpy", nogil=True)
def _small(a, values, rows, scale, most, high, low):  # pragma: no cover
    """Products of at most ``most`` units: sums of integers stay exact in binary64 below 2^53, and need no branches."""
    room = int(2.0**52 / (most + 1.0))
    part, used = np.zeros(BLOCK, np.float64), 0
    for g in range(values.shape[0]):
        for lane in range(values.shape[1]):
            v = values[g, lane] * scale
            column = a[rows[g, lane]]
            for s in range(BLOCK):
                x = column[s] * v
                part[s] += np.trunc(x + math.copysign(0.5, x))
            used += 1
            if used == room:
                _empty(part, high, low)
                used = 0
    _empty(part, high, low)


@njit(cache=True, error_model="numpy", nogil=True)
def _any(a, values, rows, lsb, high, low, flagged):  # pragma: no cover
    """Any products: an int64 takes 2^(46 - L) of less than 2^(16 + L) units before it is emptied into the two words."""
    scale, room = 2.0**lsb, 1 << (46 - lsb)
    part, used = np.zeros(BLOCK, np.int64), 0
    for g in range(values.shape[0]):
        for lane in range(values.shape[1]):
            v = values[g, lane]
            column = a[rows[g, lane]]
            for s in range(BLOCK):
                p = column[s] * v
                if abs(p) < 65536.0:  # false for NaN
                    r = np.int64(np.floor(abs(p) * scale + 0.5))
                    part[s] += r if p >= 0.0 else -r
                else:
                    flagged[s] = True
            used += 1
            if used == room:
                _empty(part, high, low)
                used = 0
    _empty(part, high, low)


@njit(cache=True)
def _empty(part, high, low):  # pragma: no cover
    """Add whole numbers to sums in two words, and clear them."""
    for s in range(BLOCK):
        whole = np.int64(part[s])
        high[s] += whole >> 32
        low[s] += whole & 0xFFFFFFFF
        high[s] += low[s] >> 32
        low[s] &= 0xFFFFFFFF
        part[s] = 0


@njit(cache=True)
def drain(high, low, flagged, lsb, odd, out):  # pragma: no cover
    """Round sums to binary32: nearest even, or to odd.

    Parameters
    ----------
    high, low, flagged : int64, int64, bool arrays (count,)
    lsb : int
        L.
    odd : bool
        Round to odd: an inexact result has its last bit set.
    out : float32 array (count,)
        Written; NaN where flagged.
    """
    grid, bits = 2.0**-lsb, out.view(np.uint32)
    for i in range(len(high)):
        if flagged[i]:
            out[i] = np.float32(np.nan)
            continue
        if -(1 << 20) <= high[i] < 1 << 20:  # exact in binary64
            exact = (high[i] * 4294967296.0 + low[i]) * grid
            out[i] = exact
            if odd and out[i] != exact:
                bits[i] = bits[i] - (abs(np.float64(out[i])) > abs(exact)) | 1  # toward zero, then odd
            continue
        negative = high[i] < 0
        top, bottom = high[i], low[i]
        if negative:  # -(h * 2^32 + l) = (-h - 1) * 2^32 + (2^32 - l)
            top, bottom = -top, -bottom
            if bottom < 0:
                top, bottom = top - 1, bottom + (1 << 32)
        length = 0
        while top >> length:
            length += 1
        dropped = max(length - 31, 0)  # keep 63 bits
        magnitude = (top << (32 - dropped)) | (bottom >> dropped)
        lost = bottom & ((1 << dropped) - 1)
        shift = length + 32 - dropped - 24
        kept = magnitude >> shift
        rest = magnitude & ((1 << shift) - 1)
        if odd:
            if rest or lost:
                kept |= 1
        else:
            half = 1 << (shift - 1)
            if rest > half or (rest == half and (lost or kept & 1)):
                kept += 1
        value = math.ldexp(float(kept), shift + dropped - lsb)
        out[i] = np.float32(-value if negative else value)
