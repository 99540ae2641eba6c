"""The kernels that ship, by name."""

from __future__ import annotations

from dataclasses import replace

from ...models.errors import NmsatError
from ...models.sparsity import Sparsity
from .description import STANDIN, Kernel

SPARSE = Kernel(mr=28, unroll=4, stream="interleaved", order="by_count", panels="copied")
GROUPED = replace(SPARSE, panels="in_place", group=32)
SLICED = Kernel(mr=4, unroll=4, index="sliced", stream="interleaved", order="by_count")

PRESETS: dict[str, tuple[Kernel, str]] = {
    "sparse": (SPARSE, "unstructured binary32, one fused rounding (relaxed SIMD on wasm)"),
    "sparse-in-place": (
        GROUPED,
        "the same without copies, a row of Y in long stretches: for few weights a column",
    ),
    "sparse-simd": (
        replace(SPARSE, arithmetic="mul_add"),
        "unstructured binary32, two roundings: plain SIMD",
    ),
    "sliced": (SLICED, "slices of 4 output channels, one a lane: for fewer than 4 columns"),
    "block2": (Kernel(mr=12, nr=2, unroll=2, panels="copied"), "blocks of 2 output channels that share a column"),
    "block4": (Kernel(mr=4, nr=4, unroll=2, panels="copied"), "blocks of 4 output channels that share a column"),
    "2:4": (Kernel(mr=28, index="packed", pattern=Sparsity(2, 4), panels="copied"), "packed indices, 2 of 4"),
    "2:8": (Kernel(mr=28, index="packed", pattern=Sparsity(2, 8), panels="copied"), "packed indices, 2 of 8"),
    "1:8": (Kernel(mr=28, unroll=2, index="packed", pattern=Sparsity(1, 8), panels="copied"), "packed indices, 1 of 8"),
    "int8": (Kernel(mr=28, unroll=4, values="int8", panels="copied"), "int8 weights, one scale a row"),
    "dense": (Kernel(mr=12, nr=2, unroll=4, index="dense", panels="copied"), "every weight, no index"),
    "16x1": (Kernel(mr=16, arithmetic="mul_add"), "narrow tile in the shipped kernel's layout"),
    "32x1-standin": (STANDIN, "stand-in for the kernel that shipped: 32x1, deltas, two roundings"),
}


def preset(name: str) -> Kernel:
    """The kernel of this name.

    Raises
    ------
    NmsatError
        If there is none.
    """
    if name not in PRESETS:
        raise NmsatError.rule("", "kernel", "one of " + ", ".join(PRESETS), name)
    return PRESETS[name][0]
