"""Compiled twins of the slow loops; imported on first use, tested equal to their NumPy originals bit for bit."""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 64  # activation rows handled together: 8 AVX registers, a block of k = 4608 rows stays in the L2 cache


@njit(cache=True)
def compress_groups(weights, values, indices, keep, group):  # pragma: no cover
    """Select and compress along the middle axis.

    Parameters
    ----------
    weights : uint16 array (outer, G * group, inner)
        binary16 bit patterns.
    values, indices : uint16 and uint8 arrays (outer, G, keep, inner)
        Written, ascending index.

    Returns
    -------
    bool
        False if a NaN was met; the outputs are then incomplete.
    """
    keys = np.empty(group, np.int32)
    for o in range(weights.shape[0]):
        for g in range(values.shape[1]):
            for x in range(weights.shape[2]):
                # magnitude, then lower index first: all keys differ, so the keep-th largest is a sharp threshold
                for i in range(group):
                    magnitude = np.int32(weights[o, g * group + i, x]) & 0x7FFF
                    if magnitude > 0x7C00:
                        return False
                    keys[i] = magnitude * 32 + (31 - i)
                threshold = np.int32(0x7FFFFFFF)
                for _ in range(keep):
                    best = np.int32(-1)
                    for i in range(group):
                        if keys[i] < threshold:
                            best = max(best, keys[i])
                    threshold = best
                lane = 0
                for i in range(group):
                    if keys[i] >= threshold:
                        values[o, g, lane, x] = weights[o, g * group + i, x]
                        indices[o, g, lane, x] = i
                        lane += 1
    return True


@njit(cache=True)
def narrow_bits_into(bits, out):  # pragma: no cover
    """:func:`nmsat.models.golden.floats.narrow_bits` without branches, so that it is vectorised.

    Parameters
    ----------
    bits : uint32 array (n,)
    out : uint16 array (n,)
        Written.
    """
    one = np.uint32(1)
    for i in range(bits.size):
        magnitude = bits[i] & np.uint32(0x7FFFFFFF)
        exponent = magnitude >> np.uint32(23)
        odd = (magnitude >> np.uint32(13)) & one  # nearest even: half of the lowest kept bit, less one if that is even
        normal = (magnitude + np.uint32(0xFFF) + odd - np.uint32(112 << 23)) >> np.uint32(13)
        fraction = (magnitude & np.uint32(0x7FFFFF)) | np.uint32(0x800000)
        shift = min(np.uint32(126) - exponent, np.uint32(25)) if exponent < 113 else one
        below = (one << (shift - one)) - one
        subnormal = (fraction + below + ((fraction >> shift) & one)) >> shift
        found = subnormal if exponent < 113 else normal
        found = np.uint32(0x7C00) if magnitude >= np.uint32(0x477FF000) else found  # 65520 and above
        found |= (bits[i] >> np.uint32(16)) & np.uint32(0x8000)
        out[i] = np.uint16(0x7E00) if magnitude > np.uint32(0x7F800000) else np.uint16(found)


@njit(cache=True)
def look_up(bits, table, out):  # pragma: no cover
    """out[i] = table[bits[i]]: uint16 (n,), any (65536,), the same (n,); written."""
    for i in range(bits.size):
        out[i] = table[bits[i]]


# Contraction to fused multiply-add is safe here and only here: the product of two binary16 values is exact in
# binary32, so fusing removes no rounding.
@njit(cache=True, error_model="numpy", fastmath={"contract"}, nogil=True)
def ordered_product(a, values, rows, out, tile_groups):  # pragma: no cover
    """Add B's product to ``out``: lanes over g inside a k-tile, then lanes, then k-tiles.

    Parameters
    ----------
    a : float32 array (blocks, k, BLOCK)
        A, transposed inside each block of rows.
    values, rows : float32 and int32 arrays (n, G, N)
        Values of B and the k they meet.
    out : float32 array (n, blocks, BLOCK)
        Sums so far; updated.
    tile_groups : int
        Groups of a k-tile.
    """
    n, groups, keep = values.shape
    lanes = np.empty((keep, BLOCK), np.float32)
    for block in range(a.shape[0]):
        for c in range(n):
            for first in range(0, groups, tile_groups):
                lanes[:, :] = np.float32(0)
                for g in range(first, min(first + tile_groups, groups)):
                    for lane in range(keep):
                        v = values[c, g, lane]
                        k = rows[c, g, lane]
                        for s in range(BLOCK):
                            lanes[lane, s] += v * a[block, k, s]
                for lane in range(1, keep):
                    for s in range(BLOCK):
                        lanes[0, s] += lanes[lane, s]
                for s in range(BLOCK):
                    out[c, block, s] += lanes[0, s]
