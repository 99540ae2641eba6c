"""The engines beside the array: SORE (N:M of new weights), WUVE (weight update) and the output epilogues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..sparsity import Sparsity
from .floats import F16, F32, canonical, from_bits, ftz_add, ftz_multiply, narrow, require_dtype, to_bits
from .nm_format import U8, Compressed, compress

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """Coefficients of the weight update; WUVE holds them in binary32.

    Attributes
    ----------
    lr, momentum, weight_decay : float
        Plain SGD with momentum: v = momentum * v + g, w = w - lr * v.
    lam : float
        SR-STE decay of the weights that the forward mask drops; 2e-4 is usual, 0 switches it off.
    loss_scale : float
        Power of two by which the loss, hence g, was multiplied: WUVE multiplies by its exact reciprocal.

    Raises
    ------
    NmsatError
        If a coefficient is negative or not finite, or loss_scale is not a power of two from 2^-126 to 2^126.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    lam: float = 0.0
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay", "lam"):
            value = getattr(self, name)
            if not (isfinite(value) and 0 <= value <= float(np.finfo(np.float32).max)):
                raise NmsatError.rule("golden", name, "finite in binary32 and not negative", value)
        scale = self.loss_scale
        if not (isfinite(scale) and scale > 0 and frexp(scale)[0] == 0.5 and 2.0**-126 <= scale <= 2.0**126):
            hint = "the engine multiplies by its exact reciprocal"
            raise NmsatError.rule("golden", "loss_scale", "a power of two from 2^-126 to 2^126", scale, hint)


def wuve_update(g: F32, w32: F32, v32: F32, mask: Mask | None, rule: UpdateRule) -> tuple[F32, F32, F16]:
    """Update weights and momenta.

    Nine products and sums in this order, each rounded to binary32 and flushed to zero, none fused::

        g = g / loss_scale + weight_decay * w + (lam * (1 - mask)) * w
        v = momentum * v + g
        w = w - lr * v

    Parameters
    ----------
    g, w32, v32 : float32 arrays, one shape
        Gradient (scaled by the loss scale), master weight, momentum.
    mask : bool array of that shape, or None
        Forward mask, True where the weight is kept; None keeps all (dense).
    rule : UpdateRule
        Coefficients.

    Returns
    -------
    w32, v32 : float32 arrays
        New weight and momentum, free of subnormals.
    w16 : float16 array
        New weight rounded to binary16 (its subnormals are kept: the array takes them).

    Raises
    ------
    NmsatError
        If shapes or dtypes differ.
    """
    g, w, v = (require_dtype(name, x, np.float32) for name, x in (("g", g), ("w32", w32), ("v32", v32)))
    kept = np.ones(w.shape, np.bool_) if mask is None else require_dtype("mask", mask, np.bool_)
    for name, array in (("g", g), ("v32", v), ("mask", kept)):
        if array.shape != w.shape:
            raise NmsatError.rule("golden", f"{name}.shape", f"{w.shape} like w32", array.shape)
    lr, momentum, decay, lam = (np.array(x, np.float32) for x in (rule.lr, rule.momentum, rule.weight_decay, rule.lam))
    scaled = ftz_multiply(g, np.array(1.0 / rule.loss_scale, np.float32))
    decayed = ftz_add(scaled, ftz_multiply(decay, w))
    dropped = np.where(kept, np.float32(0), lam)
    gradient = ftz_add(decayed, ftz_multiply(dropped, w))
    v = ftz_add(ftz_multiply(momentum, v), gradient)
    w = ftz_add(w, -ftz_multiply(lr, v))
    return w, v, narrow(w)


def sore_forward(w16: F16, pattern: Sparsity) -> Compressed:
    """Compress OHWI weights for the forward product: groups along I.

    Parameters
    ----------
    w16 : float16 array (O, kh, kw, I), or (O, I) of a linear layer
        New weights.

    Returns
    -------
    Compressed
        Shape (O, kh, kw, I/M, N), the memory order of the forward copy. Errors as :func:`.nm_format.compress`.
    """
    return compress(_weights(w16), pattern, -1)


def sore_backward(w16: F16, pattern: Sparsity) -> Compressed:
    """Compress OHWI weights for the backward product: groups along O, after the transpose buffer.

    Returns
    -------
    Compressed
        Shape (I, kh, kw, O/M, N), the memory order of the backward copy. Errors as :func:`.nm_format.compress`.
    """
    return compress(np.ascontiguousarray(np.swapaxes(_weights(w16), 0, -1)), pattern, -1)


def product_operand(weights: Compressed, taps: Sequence[int] | None = None) -> tuple[F16, U8]:
    """Order SORE's output as the B of a product.

    Parameters
    ----------
    weights : Compressed
        Of :func:`sore_forward` or :func:`sore_backward`, (n, kh, kw, G, N) or (n, G, N).
    taps : sequence of int, optional
        Stored taps (kh * width + kw) in the product's order; all without it. Phases of a strided backward
        product use some.

    Returns
    -------
    values, indices : float16 and uint8 arrays (taps * G, N, n)
        k runs taps outer, channels inner.
    """
    if weights.axis != weights.values.ndim - 2 or weights.values.ndim < 3:
        raise NmsatError.rule("golden", "weights", "compressed along the last axis", weights.values.shape)
    n, *kernel, groups, keep = weights.values.shape
    count = int(np.prod(kernel, dtype=np.int64))
    chosen = list(range(count)) if taps is None else list(taps)
    if any(not 0 <= tap < count for tap in chosen):
        raise NmsatError.rule("golden", "taps", f"0 to {count - 1}", chosen)

    def ordered(array: NDArray[Any]) -> NDArray[Any]:
        picked = array.reshape(n, count, groups, keep)[:, chosen]
        return np.ascontiguousarray(picked.transpose(1, 2, 3, 0).reshape(len(chosen) * groups, keep, n))

    return ordered(weights.values), ordered(weights.indices)


def relu(x16: F16) -> F16:
    """ReLU on binary16: a set sign bit gives +0 (also -0), a NaN stays the canonical NaN."""
    bits = to_bits(canonical(require_dtype("x16", x16, np.float16)))
    return from_bits(bits & ((bits >> 15) - np.uint16(1)))  # all ones where the sign bit is clear


def relu_mask(x16: F16) -> Mask:
    """Where the gradient passes: True where ReLU's result is not zero (so for NaN too)."""
    return to_bits(relu(x16)) != 0


def pack_mask(mask: Mask) -> U8:
    """Mask bits in memory: C order, first element in the lowest bit, padded with zero bits to whole bytes."""
    return np.packbits(require_dtype("mask", mask, np.bool_).reshape(-1), bitorder="little")


def unpack_mask(plane: U8, shape: tuple[int, ...]) -> Mask:
    """Read :func:`pack_mask`'s bytes back; NmsatError if their number does not fit ``shape``."""
    count = int(np.prod(shape, dtype=np.int64))
    if require_dtype("plane", plane, np.uint8).shape != (-(-count // 8),):
        raise NmsatError.rule("golden", "plane.shape", f"({-(-count // 8)},) for {count} bits", plane.shape)
    return np.unpackbits(plane, count=count, bitorder="little").astype(np.bool_).reshape(shape)


def apply_mask(x16: F16, mask: Mask) -> F16:
    """Gradients where the mask bit is set, +0 elsewhere."""
    found = canonical(require_dtype("x16", x16, np.float16))
    if require_dtype("mask", mask, np.bool_).shape != found.shape:
        raise NmsatError.rule("golden", "mask.shape", f"{found.shape} like x16", mask.shape)
    return from_bits(to_bits(found) * np.asarray(mask))


def _weights(w16: Any) -> F16:
    found = require_dtype("w16", w16, np.float16)
    if found.ndim not in (2, 4):
        raise NmsatError.rule("golden", "w16.shape", "(O, kh, kw, I) or (O, I)", found.shape)
    return found
