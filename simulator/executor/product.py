"""PRODUCT descriptors in values: operands gathered by their strides, golden products in the stated order, epilogues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow import program as fmt
from ...dataflow.program import Descriptor, Mode
from ...models.errors import NmsatError
from ...models.golden import (
    apply_mask,
    compress,
    dense_operand,
    narrow,
    product_os,
    product_window,
    product_ws,
    relu,
    relu_mask,
    unpack,
)
from ...models.sparsity import Sparsity
from ...models.window import MAX_TERMS_LOG2, Window
from .image import Memory

Ints = NDArray[np.int64]
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Implicit im2col of a descriptor: rows are output pixels, columns are taps, entries are input pixels."""

    pixels: Ints  # (rows, taps): input pixel, image included; 0 where outside
    inside: NDArray[np.bool_]  # (rows, taps)
    target: Ints  # (rows,): output pixel

    @classmethod
    def of(cls, item: Descriptor) -> Geometry:
        """Read the geometry fields."""
        y, y_inside = _axis(item, "y", "h")
        x, x_inside = _axis(item, "x", "w")
        images = np.arange(item["images"], dtype=np.int64)
        rows = item["images"] * item["out_h"] * item["out_w"]
        shape = (item["images"], item["out_h"], item["out_w"], item["taps_y"], item["taps_x"])
        plane = (y * item["in_w"])[None, :, None, :, None] + x[None, None, :, None, :]
        start = (images * item["in_h"] * item["in_w"])[:, None, None, None, None]
        inside = np.broadcast_to(y_inside[None, :, None, :, None] & x_inside[None, None, :, None, :], shape)
        pixels = np.where(inside, plane + start, 0)
        out_y = np.arange(item["out_h"], dtype=np.int64) * item["c_step_y"] + item["c_first_y"]
        out_x = np.arange(item["out_w"], dtype=np.int64) * item["c_step_x"] + item["c_first_x"]
        target = (images[:, None, None] * item["c_h"] + out_y[:, None]) * item["c_w"] + out_x
        if (out_y >= item["c_h"]).any() or (out_x >= item["c_w"]).any():
            raise NmsatError.rule("program", "output pixel", f"inside {item['c_h']}x{item['c_w']}", "one outside")
        return cls(pixels.reshape(rows, -1), inside.reshape(rows, -1), target.reshape(-1))


def _axis(item: Descriptor, axis: str, size: str) -> tuple[Ints, NDArray[np.bool_]]:
    out = np.arange(item[f"out_{size}"], dtype=np.int64)[:, None] * item[f"step_{axis}"]
    place = out + np.arange(item[f"taps_{axis}"]) * item[f"tap_step_{axis}"] + item[f"origin_{axis}"]
    inside = (place >= 0) & (place < item[f"in_{size}"])
    return np.where(inside, place, 0), inside


def run_product(item: Descriptor, memory: Memory) -> None:
    """Execute one PRODUCT descriptor: every repeat, then nothing is left pending."""
    geometry = Geometry.of(item)
    if item["block"] > 1:
        _check_block(item)
    for repeat in range(item["count"]):
        start = {side: _repeat(item, side, repeat) for side in "abc"}
        if item.flag(fmt.SWAPPED):
            a = _strided(item, memory, "a_address", start["a"], item["m"]).transpose(2, 0, 1)
            values, indices = _mapped_compressed(item, memory, geometry, start["b"])
        else:
            a = _mapped(item, memory, geometry, start["a"])
            values, indices = _sparse_side(item, memory, start["b"])
        found = _multiply(item, _padded(a, item["group"]), values, indices)
        _store(item, memory, geometry, start["c"], found)


def _repeat(item: Descriptor, side: str, repeat: int) -> int:
    """Elements from an operand's address to its repeat."""
    inner, outer = repeat % item["inner"], repeat // item["inner"]
    return inner * item[f"{side}_repeat"] + outer * item[f"{side}_outer"]


def _multiply(item: Descriptor, a: Array, values: Array, indices: Array) -> Array:
    """Binary32 results; those of a window are rounded to odd where the epilogue rounds them once more."""
    if item["window_lsb"]:
        lsb = item["window_lsb"]
        sums = product_window(a, values, indices, item["group"], Window(lsb, lsb + 17 + MAX_TERMS_LOG2))
        return sums.to_binary32(odd=not item.flag(fmt.OUT_FP32))
    if item["mode"] == Mode.OS:
        return product_os(a, values, indices, item["group"])
    return product_ws(a, values, indices, item["group"], item["k_tile"])


def _padded(a: Array, group: int) -> Array:
    """(m, taps, kc) as (m, taps * groups * group), every tap's tail filled with +0."""
    m, taps, channels = a.shape
    whole = -(-channels // group) * group
    found = np.zeros((m, taps, whole), np.float16)
    found[:, :, :channels] = a
    return found.reshape(m, taps * whole)


def _mapped(item: Descriptor, memory: Memory, geometry: Geometry, start: int) -> Array:
    """A by im2col: (m, taps, kc), or of a transposed A (taps * channels, 1, pixels)."""
    window = memory.at(item["a_address"], "float16")
    channels = np.arange(item["in_c"], dtype=np.int64)
    offsets = geometry.pixels[:, :, None] * item["a_pixel"] + channels + start
    found = np.where(geometry.inside[:, :, None], window.read(offsets), np.float16(0))
    if item.flag(fmt.TRANSPOSED_A):
        return found.reshape(len(found), -1).T[:, None, :]
    return found


def _taps(item: Descriptor) -> Ints:
    """Stored taps of a product, in its order."""
    y = item["b_first_y"] + np.arange(item["taps_y"], dtype=np.int64) * item["b_step_y"]
    x = item["b_first_x"] + np.arange(item["taps_x"], dtype=np.int64) * item["b_step_x"]
    return (y[:, None] * item["b_taps_x"] + x).reshape(-1)


def _strided(item: Descriptor, memory: Memory, address: str, start: int, columns: int, kc: int | None = None) -> Array:
    """The strided operand: (taps, kc, columns); a transposed A has no taps in B."""
    window = memory.at(item[address], "float16")
    return window.read(_strided_offsets(item, start, columns, item["kc"] if kc is None else kc, 1))


def _strided_offsets(item: Descriptor, start: int, columns: int, kc: int, step: int) -> Ints:
    taps = np.zeros(1, np.int64) if item.flag(fmt.TRANSPOSED_A) else _taps(item)
    k = np.arange(0, kc, step, dtype=np.int64) * item["b_stride_k"]
    n = np.arange(columns, dtype=np.int64) * item["b_stride_n"]
    return (taps * item["b_stride_tap"])[:, None, None] + k[:, None] + n + start


def _sparse_side(item: Descriptor, memory: Memory, start: int) -> tuple[Array, Array]:
    """B as (groups, N, n): dense groups, a stored compressed copy, SORE's selection on the way in, or a diagonal."""
    pattern, n = Sparsity(item["keep"], item["group"]), item["n"]
    if item["block"] > 1 and not pattern.is_dense:
        stored = _strided(item, memory, "b_address", start, n, kc=1)  # (taps, 1, n): the diagonal
        indices = np.broadcast_to(np.arange(n, dtype=np.uint8), stored.shape).copy()
        return stored, indices
    if pattern.is_dense:
        stored = _strided(item, memory, "b_address", start, n)
        taps, kc, _ = stored.shape
        whole = np.zeros((taps, -(-kc // pattern.group) * pattern.group, n), np.float16)
        whole[:, :kc] = stored
        return dense_operand(whole.reshape(-1, n), pattern.group)
    if item.flag(fmt.ONLINE_PRUNE):
        kept = compress(_strided(item, memory, "b_address", start, n), pattern, axis=1)
        values, indices = kept.values, kept.indices
        return values.reshape(-1, pattern.keep, n), indices.reshape(-1, pattern.keep, n)
    groups = _strided_offsets(item, start, n, item["kc"], pattern.group)
    values, indices = _groups(item, memory, pattern, groups)
    order = (0, 1, 3, 2)  # (taps, G, n, N) to (taps, G, N, n)
    return (
        np.ascontiguousarray(values.transpose(order)).reshape(-1, pattern.keep, n),
        np.ascontiguousarray(indices.transpose(order)).reshape(-1, pattern.keep, n),
    )


def _mapped_compressed(item: Descriptor, memory: Memory, geometry: Geometry, start: int) -> tuple[Array, Array]:
    """SDGP's pruned dY as B: (taps * G, N, pixels); groups outside the image are +0 at the lowest indices."""
    pattern = Sparsity(item["keep"], item["group"])
    k = np.arange(0, item["kc"], pattern.group, dtype=np.int64)
    elements = geometry.pixels.T[:, None, :] * item["a_pixel"] + k[:, None] + start  # (taps, G, pixels)
    values, indices = _groups(item, memory, pattern, elements)
    inside = geometry.inside.T[:, None, :, None]
    values = np.where(inside, values, np.float16(0))
    indices = np.where(inside, indices, np.arange(pattern.keep, dtype=np.uint8))
    shape = (-1, pattern.keep, elements.shape[2])
    return (
        np.ascontiguousarray(values.transpose(0, 1, 3, 2)).reshape(shape),
        np.ascontiguousarray(indices.transpose(0, 1, 3, 2)).reshape(shape),
    )


def _groups(item: Descriptor, memory: Memory, pattern: Sparsity, elements: Ints) -> tuple[Array, Array]:
    """Values and indices (..., N) of the groups that begin at uncompressed ``elements``."""
    if (elements % pattern.group).any():
        raise NmsatError.rule("program", "strides", f"whole groups of {pattern.group}", "a part of one")
    groups = elements // pattern.group
    lanes, size = np.arange(pattern.keep, dtype=np.int64), pattern.index_bytes
    values = memory.at(item["b_address"], "float16").read(groups[..., None] * pattern.keep + lanes)
    plane = memory.at(item["index_address"], "uint8").read(groups[..., None] * size + np.arange(size, dtype=np.int64))
    flat = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    found = unpack(flat, np.ascontiguousarray(plane).reshape(-1), pattern, groups.shape)
    return found.values, found.indices


def _store(item: Descriptor, memory: Memory, geometry: Geometry, start: int, found: Array) -> None:
    """Epilogue and store: binary32, or binary16 with ReLU, its mask, or a stored mask applied."""
    rows, columns = np.arange(item["m"], dtype=np.int64), np.arange(item["n"], dtype=np.int64)
    if item["block"] > 1 and item.flag(fmt.TRANSPOSED_A):  # dW of a depthwise block: the diagonal
        block = item["block"]
        found = found.reshape(-1, block, block).diagonal(axis1=1, axis2=2)
        rows = np.arange(len(found), dtype=np.int64)
    elif item.flag(fmt.SWAPPED):
        columns = geometry.target
    elif not item.flag(fmt.TRANSPOSED_A):
        rows = geometry.target
    offsets = (rows * item["c_stride_m"])[:, None] + columns * item["c_stride_n"] + start
    if item.flag(fmt.OUT_FP32):
        memory.at(item["c_address"], "float32").write(offsets, found)
        return
    result = narrow(found)
    if item.flag(fmt.WRITE_MASK):
        _write_bits(memory, item["mask_address"], offsets, relu_mask(result))
    if item.flag(fmt.RELU):
        result = relu(result)
    if item.flag(fmt.APPLY_MASK):
        plane = memory.at(item["mask_address"], "uint8").read(offsets // 8)
        result = apply_mask(result, (plane >> (offsets % 8).astype(np.uint8) & 1).astype(np.bool_))
    memory.at(item["c_address"], "float16").write(offsets, result)


def _write_bits(memory: Memory, address: int, offsets: Ints, mask: NDArray[np.bool_]) -> None:
    """Set or clear the bits of a plane; its other bits stay."""
    window = memory.at(address, "uint8")
    plane = window.first(len(window.elements))
    if offsets.size and int(offsets.max()) >= 8 * len(plane):
        raise NmsatError.rule("program", "mask", f"inside {8 * len(plane)} bits", int(offsets.max()))
    bits = np.unpackbits(plane, bitorder="little")
    bits[offsets] = mask
    plane[:] = np.packbits(bits, bitorder="little")


def _check_block(item: Descriptor) -> None:
    if item["n"] != item["block"]:
        raise NmsatError.rule("program", "block", f"n = {item['n']}", item["block"])
