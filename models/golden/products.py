"""The array's matrix products, C[m, n] = sum_k A[m, k] B[k, n], in exactly its summation order.

Every sum is ``acc = float32(acc + float32(a) * float32(v))`` starting at +0 (docs/accelerator.md, section 5):
OS sums each of the N lanes over all groups, then lanes 0..N-1. WS does so inside each k-tile of R groups, then adds the
k-tiles in ascending order. An ``initial`` sum is what the output buffer holds: it is the left operand of the first
addition at the column foot, in WS before k-tile 0, in OS before the finished output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from .floats import F16, F32, canonical, require_dtype
from .nm_format import U8


def product_os(a: F16, values: F16, indices: U8, group: int, *, initial: F32 | None = None) -> F32:
    """Output-stationary product (compiled).

    Parameters
    ----------
    a : float16 array (m, G * group)
        Activations; each tap's channel tail padded with zeros.
    values, indices : float16 and unsigned integer arrays (G, N, n)
        Compressed B; dense: N == group, indices 0..N-1.
    group : int
        M.
    initial : float32 array (m, n), optional
        Sums to continue from; +0 without it.

    Returns
    -------
    float32 array (m, n)
        NaNs canonical.

    Raises
    ------
    NmsatError
        If shapes or dtypes do not fit, or an index is not below ``group``.
    """
    operands = _checked(a, values, indices, group, initial)
    return _compiled(*operands, group, max(values.shape[0], 1))


def product_ws(a: F16, values: F16, indices: U8, group: int, rows: int, *, initial: F32 | None = None) -> F32:
    """Weight-stationary product (compiled) on an array of ``rows`` rows: k-tiles of ``rows`` groups.

    Other parameters, result and errors as :func:`product_os`.
    """
    operands = _checked(a, values, indices, group, initial)
    return _compiled(*operands, group, _checked_rows(rows))


def product_os_reference(a: F16, values: F16, indices: U8, group: int, *, initial: F32 | None = None) -> F32:
    """:func:`product_os` in NumPy: the definition."""
    a, values, indices, total = _checked(a, values, indices, group, initial)
    with np.errstate(all="ignore"):
        return canonical(total + _lane_sums(a, values, indices, group, 0, len(values)))


def product_ws_reference(a: F16, values: F16, indices: U8, group: int, rows: int, *, initial: F32 | None = None) -> F32:
    """:func:`product_ws` in NumPy: the definition."""
    a, values, indices, total = _checked(a, values, indices, group, initial)
    with np.errstate(all="ignore"):
        for first in range(0, len(values), _checked_rows(rows)):
            total = total + _lane_sums(a, values, indices, group, first, min(first + rows, len(values)))
    return canonical(total)


def product_dense(a: F16, b: F16, *, lanes: int = 1, rows: int | None = None, initial: F32 | None = None) -> F32:
    """Product with a dense B, (m, k) by (k, n), as the pattern ``lanes``:``lanes``.

    Parameters
    ----------
    lanes : int
        N of the dense pattern: partial sums of an output; k is padded with zeros to a multiple of it.
    rows : int, optional
        Array rows of a WS product; without it OS.
    """
    values, indices = dense_operand(b, lanes)
    padded = np.zeros((require_dtype("a", a, np.float16).shape[0], len(values) * lanes), np.float16)
    if a.ndim != 2 or a.shape[1] != b.shape[0]:
        raise NmsatError.rule("golden", "a.shape", f"(m, {b.shape[0]})", a.shape)
    padded[:, : a.shape[1]] = a
    if rows is None:
        return product_os(padded, values, indices, lanes, initial=initial)
    return product_ws(padded, values, indices, lanes, rows, initial=initial)


def dense_operand(b: F16, lanes: int = 1) -> tuple[F16, U8]:
    """Dense B (k, n) as groups of the pattern ``lanes``:``lanes``: values and indices (ceil(k / lanes), lanes, n)."""
    found = require_dtype("b", b, np.float16)
    if found.ndim != 2:
        raise NmsatError.rule("golden", "b.shape", "(k, n)", found.shape)
    if not 1 <= lanes <= 32:
        raise NmsatError.rule("golden", "lanes", "1 to 32", lanes)
    k, n = found.shape
    values = np.zeros((-(-k // lanes) * lanes, n), np.float16)
    values[:k] = found
    values = values.reshape(-1, lanes, n)
    return values, np.broadcast_to(np.arange(lanes, dtype=np.uint8)[:, None], values.shape).copy()


def _lane_sums(a: F16, values: F16, indices: U8, group: int, first: int, last: int) -> F32:
    """Sum over groups first..last-1: each lane over g ascending, then lanes 0..N-1."""
    a32, v32 = a.astype(np.float32), values.astype(np.float32)
    lanes = []
    for lane in range(values.shape[1]):
        acc = np.zeros((a.shape[0], values.shape[2]), np.float32)
        for g in range(first, last):
            acc = acc + a32[:, g * group + indices[g, lane].astype(np.intp)] * v32[g, lane]
        lanes.append(acc)
    total = lanes[0]
    for acc in lanes[1:]:
        total = total + acc
    return total


def _compiled(a: F16, values: F16, indices: U8, total: F32, group: int, tile_groups: int) -> F32:
    from .kernels import BLOCK, ordered_product

    m, k = a.shape
    groups, _, n = values.shape
    blocks = -(-m // BLOCK)
    a_blocks = np.zeros((blocks * BLOCK, k), np.float32)
    a_blocks[:m] = a
    a_blocks = np.ascontiguousarray(a_blocks.reshape(blocks, BLOCK, k).transpose(0, 2, 1))
    rows = indices.astype(np.int32) + np.arange(groups, dtype=np.int32)[:, None, None] * group
    out = np.zeros((n, blocks * BLOCK), np.float32)
    out[:, :m] = total.T
    out = out.reshape(n, blocks, BLOCK)
    columns = np.ascontiguousarray(values.astype(np.float32).transpose(2, 0, 1))
    ordered_product(a_blocks, columns, np.ascontiguousarray(rows.transpose(2, 0, 1)), out, tile_groups)
    return canonical(np.ascontiguousarray(out.reshape(n, blocks * BLOCK)[:, :m].T))


def check_operands(a: Any, values: Any, indices: Any, group: int) -> tuple[F16, F16, NDArray[Any]]:
    """Operands of a product as arrays; NmsatError unless their dtypes, shapes and indices fit."""
    a, values = require_dtype("a", a, np.float16), require_dtype("values", values, np.float16)
    indices = np.asarray(indices)
    if values.ndim != 3 or values.shape[1] < 1:
        raise NmsatError.rule("golden", "values.shape", "(G, N, n) with N >= 1", values.shape)
    if indices.dtype.kind != "u" or indices.shape != values.shape:
        shown = (indices.dtype.name, indices.shape)
        raise NmsatError.rule("golden", "indices", f"unsigned integers of shape {values.shape}", shown)
    if int(indices.max(initial=0)) >= group:
        raise NmsatError.rule("golden", "indices", f"below the group size {group}", int(indices.max()))
    if a.ndim != 2 or a.shape[1] != len(values) * group:
        rule = f"(m, {len(values) * group}) for {len(values)} groups of {group}"
        raise NmsatError.rule("golden", "a.shape", rule, a.shape)
    return a, values, indices


def _checked(a: Any, values: Any, indices: Any, group: int, initial: Any) -> tuple[F16, F16, NDArray[Any], F32]:
    a, values, indices = check_operands(a, values, indices, group)
    shape = (a.shape[0], values.shape[2])
    if initial is None:
        return a, values, indices, np.zeros(shape, np.float32)
    if require_dtype("initial", initial, np.float32).shape != shape:
        raise NmsatError.rule("golden", "initial.shape", f"{shape} like the result", initial.shape)
    return a, values, indices, initial


def _checked_rows(rows: int) -> int:
    if rows < 1:
        raise NmsatError.rule("golden", "rows", "at least 1", rows)
    return rows
