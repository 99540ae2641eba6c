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
    a multiple of 2^30 and the half rounds away. An int64 takes 2^(46 - L) products of less than 2^(16 + L) units before
    it is emptied into the two words.

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
    n, groups, keep = values.shape
    scale = 2.0**lsb
    room = 1 << (46 - lsb)
    part = np.zeros(BLOCK, np.int64)
    for block in range(a.shape[0]):
        for c in range(n):
            used = 0
            part[:] = 0
            for g in range(groups):
                for lane in range(keep):
                    v = values[c, g, lane]
                    column = a[block, rows[c, g, lane]]
                    for s in range(BLOCK):
                        p = column[s] * v
                        if abs(p) < 65536.0:  # false for NaN
                            r = np.int64(np.floor(abs(p) * scale + 0.5))
                            part[s] += r if p >= 0.0 else -r
                        else:
                            flagged[c, block, s] = True
                    used += 1
                    if used == room:
                        _empty(part, high[c, block], low[c, block])
                        used = 0
            _empty(part, high[c, block], low[c, block])


@njit(cache=True)
def _empty(part, high, low):  # pragma: no cover
    for s in range(BLOCK):
        high[s] += part[s] >> 32
        low[s] += part[s] & 0xFFFFFFFF
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
    for i in range(len(high)):
        if flagged[i]:
            out[i] = np.float32(np.nan)
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
        bits = length + 32 - dropped
        if length == 0:
            bits = 0
            while magnitude >> bits:
                bits += 1
        shift = max(bits - 24, 0)
        kept = magnitude >> shift
        rest = magnitude & ((1 << shift) - 1)
        if odd:
            if rest or lost:
                kept |= 1
        elif shift:
            half = 1 << (shift - 1)
            if rest > half or (rest == half and (lost or kept & 1)):
                kept += 1
        value = math.ldexp(float(kept), shift + dropped - lsb)
        out[i] = np.float32(-value if negative else value)
