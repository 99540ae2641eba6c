"""N:M selection, compression and the two DRAM planes (docs/accelerator.md, section 2).

A group is M consecutive values along one axis. Selection keeps the N of largest magnitude: ties keep the lower index,
-0 equals 0, NaN is an error. Kept values are copied bit for bit, so a kept -0 stays -0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..sparsity import Sparsity
from .floats import F16, from_bits, require_dtype, to_bits

U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """An N:M compressed tensor: the grouped axis of the dense shape is replaced by the pair (G, N).

    Attributes
    ----------
    values : float16 array (..., G, N, ...)
        Kept values, ascending index.
    indices : uint8 array, same shape
        Place of each value inside its group, 0..M-1.
    pattern : Sparsity
        N:M; a dense pattern keeps everything and its indices are 0..N-1.
    axis : int
        Where G stands in the shape, N follows; not negative.
    """

    values: F16
    indices: U8
    pattern: Sparsity
    axis: int

    def __post_init__(self) -> None:
        require_dtype("values", self.values, np.float16)
        require_dtype("indices", self.indices, np.uint8)
        if self.indices.shape != self.values.shape:
            raise NmsatError.rule("golden", "indices.shape", f"{self.values.shape} like values", self.indices.shape)
        if not 0 <= self.axis < self.values.ndim - 1:
            raise NmsatError.rule("golden", "axis", f"0 to {self.values.ndim - 2}", self.axis)
        if self.values.shape[self.axis + 1] != self.pattern.keep:
            rule = f"{self.pattern.keep} long on axis {self.axis + 1}, the N of {self.pattern}"
            raise NmsatError.rule("golden", "values.shape", rule, self.values.shape)

    @property
    def dense_shape(self) -> tuple[int, ...]:
        """Shape of the dense tensor."""
        shape = self.values.shape
        return (*shape[: self.axis], shape[self.axis] * self.pattern.group, *shape[self.axis + 2 :])


def compress(weights: F16, pattern: Sparsity, axis: int = -1) -> Compressed:
    """Select and compress (compiled).

    Parameters
    ----------
    weights : float16 array
        Dense tensor; its length along ``axis`` must be a multiple of M.
    pattern : Sparsity
        N:M.
    axis : int
        Axis along which groups lie.

    Raises
    ------
    NmsatError
        For another dtype, an axis out of range, a tail that fills no group, or a NaN.
    """
    from .kernels import compress_groups

    found, axis = _checked(weights, pattern, axis)
    outer, inner = prod(found.shape[:axis]), prod(found.shape[axis + 1 :])
    shape = _compressed_shape(found.shape, pattern, axis)
    flat = (outer, shape[axis], pattern.keep, inner)
    values, indices = np.empty(flat, np.uint16), np.empty(flat, np.uint8)
    dense = to_bits(found).reshape(outer, found.shape[axis], inner)
    if not compress_groups(dense, values, indices, pattern.keep, pattern.group):
        raise _nan_error(found)
    return Compressed(from_bits(values).reshape(shape), indices.reshape(shape), pattern, axis)


def compress_reference(weights: F16, pattern: Sparsity, axis: int = -1) -> Compressed:
    """:func:`compress` in NumPy: the definition."""
    found, axis = _checked(weights, pattern, axis)
    if np.isnan(found).any():
        raise _nan_error(found)
    groups = _grouped(found, pattern, axis)
    order = np.argsort(-np.abs(groups), axis=axis + 1, kind="stable")
    kept = np.sort(order.take(range(pattern.keep), axis=axis + 1), axis=axis + 1)
    return Compressed(np.take_along_axis(groups, kept, axis + 1), kept.astype(np.uint8), pattern, axis)


def compress_masked(weights: F16, mask: NDArray[np.bool_], pattern: Sparsity, axis: int = -1) -> Compressed:
    """Compress what a given mask keeps, at most N a group.

    Short groups are padded with +0 at their lowest unused indices.

    Raises
    ------
    NmsatError
        As :func:`compress`, for a mask of another shape or dtype, a kept NaN, or more than N kept in a group.
    """
    found, axis = _checked(weights, pattern, axis)
    kept = _grouped(_checked_mask(mask, found), pattern, axis)
    if np.isnan(found[np.asarray(mask)]).any():
        raise _nan_error(found)
    counts = kept.sum(axis=axis + 1, keepdims=True)
    most = int(counts.max(initial=0))
    if most > pattern.keep:
        raise NmsatError.rule("golden", "mask", f"at most {pattern.keep} kept in a group", most)
    padding = ~kept & (np.cumsum(~kept, axis=axis + 1) <= pattern.keep - counts)
    chosen = np.argsort(~(kept | padding), axis=axis + 1, kind="stable").take(range(pattern.keep), axis=axis + 1)
    values = np.take_along_axis(np.where(kept, _grouped(found, pattern, axis), np.float16(0)), chosen, axis + 1)
    return Compressed(values, chosen.astype(np.uint8), pattern, axis)


def select(weights: F16, pattern: Sparsity, axis: int = -1) -> U8:
    """Indices that selection keeps: uint8 array (..., G, N, ...), ascending. Errors as :func:`compress`."""
    return compress(weights, pattern, axis).indices


def nm_mask(weights: F16, pattern: Sparsity, axis: int = -1) -> NDArray[np.bool_]:
    """True where selection keeps a weight: bool array of the shape of ``weights``. Errors as :func:`compress`."""
    kept = compress(weights, pattern, axis)
    return _scatter(kept, np.ones(kept.values.shape, np.bool_))


def decompress(compressed: Compressed) -> F16:
    """Dense float16 tensor, +0 where nothing is stored."""
    return _scatter(compressed, compressed.values)


def pack(compressed: Compressed) -> tuple[U8, U8]:
    """Lay a compressed tensor out in memory.

    Groups follow each other in C order of the tensor with its (G, N) pair moved last, so a tensor compressed along
    its last axis is stored as it stands.

    Returns
    -------
    values : uint8 array (2 * N * groups,)
        binary16, little endian.
    indices : uint8 array (index_bytes * groups,)
        A group's indices, first one in the lowest bits, padded with zero bits to whole bytes; empty if dense.
    """
    pattern, pair = compressed.pattern, (compressed.axis, compressed.axis + 1)
    values = np.moveaxis(compressed.values, pair, (-2, -1)).astype("<f2").reshape(-1, pattern.keep)
    indices = np.moveaxis(compressed.indices, pair, (-2, -1)).reshape(-1, pattern.keep)
    bits = indices[:, :, None] >> np.arange(pattern.index_bits, dtype=np.uint8) & 1
    plane = np.packbits(bits.reshape(len(bits), pattern.keep * pattern.index_bits), axis=1, bitorder="little")
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1), plane.reshape(-1)


def unpack(values: U8, indices: U8, pattern: Sparsity, shape: tuple[int, ...]) -> Compressed:
    """Read :func:`pack`'s planes back.

    Parameters
    ----------
    values, indices : uint8 arrays
        The two planes; ``indices`` is empty for a dense pattern.
    shape : tuple of int
        Shape (..., G) of the tensor in groups, in memory order.

    Raises
    ------
    NmsatError
        If a plane has another length or dtype, or a group's indices do not ascend, or a padding bit is set.
    """
    groups, keep, bits = prod(shape), pattern.keep, pattern.index_bits
    for name, plane, size in (("values", values, 2 * keep), ("indices", indices, pattern.index_bytes)):
        if require_dtype(name, plane, np.uint8).shape != (groups * size,):
            rule = f"({groups * size},), {size} bytes for each of {groups} groups"
            raise NmsatError.rule("golden", f"{name}.shape", rule, plane.shape)
    full = (*shape, keep)
    stored = np.frombuffer(values.tobytes(), "<f2").astype(np.float16).reshape(full)
    if pattern.is_dense:
        places = np.broadcast_to(np.arange(keep, dtype=np.uint8), full).copy()
        return Compressed(stored, places, pattern, len(shape) - 1)
    field = np.unpackbits(indices.reshape(groups, -1), axis=1, bitorder="little")
    if field[:, keep * bits :].any():
        raise NmsatError.rule("golden", "indices", "zero in the padding bits of every group", "a set bit")
    places = np.packbits(field[:, : keep * bits].reshape(groups, keep, bits), axis=2, bitorder="little")
    places = places.reshape(groups, keep)
    descents = np.flatnonzero((places[:, 1:] <= places[:, :-1]).any(axis=1))
    if descents.size:
        group = int(descents[0])
        raise NmsatError.rule("golden", f"indices of group {group}", "ascending", places[group].tolist())
    return Compressed(stored, places.reshape(full), pattern, len(shape) - 1)


def _scatter(compressed: Compressed, values: NDArray[Any]) -> NDArray[Any]:
    shape, axis = compressed.values.shape, compressed.axis
    dense = np.zeros((*shape[: axis + 1], compressed.pattern.group, *shape[axis + 2 :]), values.dtype)
    np.put_along_axis(dense, compressed.indices.astype(np.intp), values, axis + 1)
    return dense.reshape(compressed.dense_shape)


def _compressed_shape(shape: tuple[int, ...], pattern: Sparsity, axis: int) -> tuple[int, ...]:
    return (*shape[:axis], shape[axis] // pattern.group, pattern.keep, *shape[axis + 1 :])


def _grouped(array: NDArray[Any], pattern: Sparsity, axis: int) -> NDArray[Any]:
    shape = array.shape
    return array.reshape(*shape[:axis], shape[axis] // pattern.group, pattern.group, *shape[axis + 1 :])


def _checked(weights: Any, pattern: Sparsity, axis: int) -> tuple[F16, int]:
    found = require_dtype("weights", weights, np.float16)
    if not -found.ndim <= axis < found.ndim:
        raise NmsatError.rule("golden", "axis", f"an axis of the {found.ndim}-dimensional weights", axis)
    axis %= found.ndim
    if found.shape[axis] % pattern.group:
        rule = f"a multiple of {pattern.group} along axis {axis} for {pattern}"
        raise NmsatError.rule("golden", "weights.shape", rule, found.shape[axis], "leave such a layer dense or pad it")
    return found, axis


def _checked_mask(mask: Any, weights: F16) -> NDArray[np.bool_]:
    found = require_dtype("mask", mask, np.bool_)
    if found.shape != weights.shape:
        raise NmsatError.rule("golden", "mask.shape", f"{weights.shape} like weights", found.shape)
    return found


def _nan_error(weights: F16) -> NmsatError:
    where = tuple(int(i) for i in np.argwhere(np.isnan(weights))[0])
    return NmsatError.rule("golden", f"weights{list(where)}", "a number", float("nan"), "a NaN has no magnitude")
