"""UPDATE and PRUNE descriptors in values: WUVE's arithmetic, SORE's selections, both compressed copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow import program as fmt
from ...dataflow.program import RULE, Descriptor
from ...models.golden import Compressed, UpdateRule, compress, decompress, nm_mask, pack, unpack, wuve_update
from ...models.sparsity import Sparsity
from .image import Memory

Array = NDArray[Any]


def run_update(item: Descriptor, memory: Memory) -> None:
    """Weight update of one layer, then its dense copy and the compressed copies that the descriptor asks for."""
    shape = (item["out_channels"], item["taps"], item["in_channels"])
    count = int(np.prod(shape))
    w32, v32 = memory.at(item["w32_address"], "float32"), memory.at(item["v32_address"], "float32")
    g = memory.at(item["gradient_address"], "float32").first(count)
    old = w32.first(count), v32.first(count)
    rule = read_rule(memory, item["rule_address"])
    mask = _forward_mask(item, memory, shape)
    flat = None if mask is None else mask.reshape(-1)
    new_w, new_v, w16 = wuve_update(g, old[0], old[1], flat, rule)
    w32.first(count)[:], v32.first(count)[:] = new_w, new_v
    if item.flag(fmt.OUT_FP32):
        memory.at(item["w16_address"], "float16").first(count)[:] = w16
    for stage in ("ff", "bp"):
        if item[f"{stage}_keep"]:
            kept = compressed_copy(w16.reshape(shape), _pattern(item, stage), stage, item["groups"])
            _store_planes(memory, item, stage, kept)


def read_rule(memory: Memory, address: int) -> UpdateRule:
    """The coefficients in memory; NmsatError where one is not legal."""
    words = memory.at(address, "float32").first(len(RULE))
    return UpdateRule(**{name: float(word) for name, word in zip(RULE, words, strict=True)})


def compressed_copy(w16: Array, pattern: Sparsity, stage: str, groups: int) -> Compressed:
    """SORE's copy of weights (O, taps, I): forward along I; backward (I, taps, O/M, N), groups outermost."""
    if stage == "ff":
        return compress(np.ascontiguousarray(w16), pattern, -1)
    outer, taps, inner = w16.shape
    split = w16.reshape(groups, outer // groups, taps, inner).transpose(0, 3, 2, 1)
    return compress(np.ascontiguousarray(split.reshape(groups * inner, taps, outer // groups)), pattern, -1)


def _pattern(item: Descriptor, stage: str) -> Sparsity:
    return Sparsity(item[f"{stage}_keep"], item[f"{stage}_group"])


def _forward_mask(item: Descriptor, memory: Memory, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """What the forward stage of this step kept: its index plane, or the selection it makes of the dense copy."""
    if not item["mask_keep"]:
        return None
    pattern = Sparsity(item["mask_keep"], item["mask_group"])
    if not item["ff_keep"]:
        w16 = memory.at(item["w16_address"], "float16").first(int(np.prod(shape)))
        return nm_mask(w16.reshape(shape), pattern, -1)
    groups = int(np.prod(shape)) // pattern.group
    values = memory.at(item["ff_address"], "float16").first(groups * pattern.keep)
    plane = memory.at(item["ff_index_address"], "uint8").first(groups * pattern.index_bytes)
    stored = unpack(values.view(np.uint8), plane, pattern, (*shape[:-1], shape[-1] // pattern.group))
    ones = Compressed(np.ones_like(stored.values), stored.indices, pattern, stored.axis)
    return decompress(ones) != 0


def _store_planes(memory: Memory, item: Descriptor, stage: str, kept: Compressed) -> None:
    values, indices = pack(kept)
    target = memory.at(item[f"{stage}_address"], "float16")
    target.first(len(values) // 2)[:] = values.view(np.float16)
    memory.at(item[f"{stage}_index_address"], "uint8").first(len(indices))[:] = indices


def run_prune(item: Descriptor, memory: Memory) -> None:
    """SDGP: the compressed copy of dY. Weights pruned on their way in are part of their product."""
    if not item.flag(fmt.SWAPPED):
        return
    pattern = _pattern(item, "bp")
    count = item["out_channels"] * item["in_channels"]
    dense = memory.at(item["w16_address"], "float16").first(count)
    _store_planes(memory, item, "bp", compress(dense.reshape(-1, pattern.group), pattern, -1))
