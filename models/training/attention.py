"""Causal self-attention and RMS normalisation between the products, forward and backward.

The products read binary16 and go through the trainer's :class:`.products.Products` head by head, or through BLAS all
heads at once; what the vector lanes do is computed in binary32 and rounded to binary16 once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from ..golden.floats import F16, F32
from ..sparsity import DENSE
from .kernels import fast_narrow, fast_widen
from .products import BlasProducts, Products

EPSILON = np.float32(1e-5)


@dataclass(frozen=True, slots=True, eq=False)
class AttentionTrace:
    """What attention's backward pass needs.

    Attributes
    ----------
    q, k, v : float32 arrays (batch, heads, tokens, dim), values of binary16
    chances : float32 array (batch, heads, tokens, tokens), values of binary16
        Softmax of the scores; 0 above the diagonal.
    """

    q: F32
    k: F32
    v: F32
    chances: F32


def attention(
    qkv: F16, heads: int, name: str = "attention", products: Products | None = None
) -> tuple[F16, AttentionTrace]:
    """Every token attends to itself and those before it.

    Parameters
    ----------
    qkv : float16 array (batch, tokens, 3 * width)
        Queries, keys, values; inside each, heads are outermost.
    name : str
        The layer's, under which ``products`` knows QK^T (ff, part 0) and AV (ff, part 1) of every head.
    products : Products, optional
        BLAS by default.

    Returns
    -------
    float16 array (batch, tokens, width), AttentionTrace
    """
    batch, tokens, wide = qkv.shape
    split = qkv.reshape(batch, tokens, 3, heads, wide // 3 // heads).transpose(2, 0, 3, 1, 4)
    q, k, v = fast_widen(split)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = _rounded(_product(q, k.swapaxes(-1, -2), (name, "ff", 0), products)) * _scale(q)
        scores[..., _future(tokens)] = -np.inf
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        chances = _rounded(powers / powers.sum(axis=-1, keepdims=True))
        out = fast_narrow(_product(chances, v, (name, "ff", 1), products))
    return out.transpose(0, 2, 1, 3).reshape(batch, tokens, wide // 3), AttentionTrace(q, k, v, chances)


def attention_gradient(
    dy: F16, trace: AttentionTrace, name: str = "attention", products: Products | None = None
) -> F16:
    """Gradient of ``qkv``, float16 (batch, tokens, 3 * width), from that of attention's output.

    To ``products`` its four products are stage bp, parts 0 to 3: dV, the scores' gradient, dQ, dK.
    """
    batch, heads, tokens, dim = trace.q.shape
    grad = fast_widen(dy.reshape(batch, tokens, heads, dim).transpose(0, 2, 1, 3))
    with np.errstate(over="ignore", invalid="ignore"):
        dv = _product(trace.chances.swapaxes(-1, -2), grad, (name, "bp", 0), products)
        dchances = _rounded(_product(grad, trace.v.swapaxes(-1, -2), (name, "bp", 1), products))
        inner = (dchances * trace.chances).sum(axis=-1, keepdims=True)
        dscores = _rounded(trace.chances * (dchances - inner) * _scale(trace.q))
        dq = _product(dscores, trace.k, (name, "bp", 2), products)
        dk = _product(dscores.swapaxes(-1, -2), trace.q, (name, "bp", 3), products)
        found = fast_narrow(np.stack([dq, dk, dv]))
    return found.transpose(1, 3, 0, 2, 4).reshape(batch, tokens, 3 * heads * dim)


def rms_norm(x: F16) -> tuple[F16, F32]:
    """x divided by the root mean square of its last axis, and the factor of every row (keepdims, float32)."""
    wide = fast_widen(x)
    with np.errstate(over="ignore", invalid="ignore"):
        factor = 1 / np.sqrt((wide * wide).mean(axis=-1, keepdims=True) + EPSILON)
        return fast_narrow(wide * factor), factor


def rms_norm_gradient(dy: F16, y: F16, factor: F32) -> F32:
    """Gradient of the input, float32: factor * (dy - y * mean(dy * y))."""
    grad, wide = fast_widen(dy), fast_widen(y)
    with np.errstate(over="ignore", invalid="ignore"):
        return factor * (grad - wide * (grad * wide).mean(axis=-1, keepdims=True))


def _product(a: F32, b: F32, place: tuple[str, str, int], products: Products | None) -> F32:
    """A B of every head of every window: (batch, heads, m, k) and (batch, heads, k, n), values of binary16."""
    if products is None or isinstance(products, BlasProducts):
        return a @ b
    batch, heads, m, _ = a.shape
    found = np.empty((batch, heads, m, b.shape[-1]), np.float32)
    left, right = fast_narrow(a), fast_narrow(b)
    for i, j in np.ndindex(batch, heads):
        found[i, j] = products.multiply(*place, left[i, j][:, None, :], right[i, j][None], DENSE, False)
    return found


def _rounded(values: NDArray[np.float32]) -> F32:
    """Rounded to binary16, as the array stores its results."""
    return fast_widen(fast_narrow(values))


def _scale(q: F32) -> np.float32:
    return np.float32(1 / sqrt(q.shape[-1]))


def _future(tokens: int) -> NDArray[np.bool_]:
    return np.triu(np.ones((tokens, tokens), np.bool_), 1)
