"""What the host computes at a HOST descriptor: softmax, losses and their gradients.

Each operation is rounded to binary32 in the order written; exponentials and logarithms are taken in binary64 and
rounded, so that no library's binary32 exponential decides a bit. Results for the array are binary16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import NmsatError
from ...models.golden import canonical, narrow, widen
from ...models.training.loss import cross_entropy_gradient

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]


def softmax(x: F32) -> F32:
    """Softmax over the last axis: largest subtracted, exponential, classes added in ascending order, division."""
    with np.errstate(all="ignore"):
        shifted = x - x.max(axis=-1, keepdims=True)
        powers = np.exp(shifted.astype(np.float64)).astype(np.float32)
        return canonical(powers / _ascending(powers)[..., None])


def probabilities(logits: F16) -> F16:
    """Softmax in binary16, the forward result of cross entropy."""
    return narrow(softmax(widen(logits)))


def losses(logits: F16, labels: NDArray[np.int32]) -> F32:
    """-log softmax at the labels, float32 (rows,), formed in binary64."""
    rows = _rows(logits, labels)
    with np.errstate(all="ignore"):
        wide = rows.astype(np.float64)
        shifted = wide - wide.max(axis=-1, keepdims=True)
        total = np.log(np.exp(shifted).sum(axis=-1))
        return canonical((total - shifted[np.arange(len(rows)), labels]).astype(np.float32))


def loss_gradient(logits: F16, labels: NDArray[np.int32], loss_scale: float) -> F16:
    """binary16((softmax - onehot) * c), c = binary32(loss_scale / rows): gradient of the scaled mean loss."""
    return cross_entropy_gradient(_rows(logits, labels), labels, loss_scale).reshape(logits.shape)


def attention_softmax(scores: F16, head_dim: int) -> F16:
    """Softmax of scores * binary32(1 / sqrt(head_dim)) over the last axis."""
    with np.errstate(all="ignore"):
        return narrow(softmax(widen(scores) * _scale(head_dim)))


def attention_softmax_gradient(probability: F16, gradient: F16, head_dim: int) -> F16:
    """p * (g - sum(p * g)) / sqrt(head_dim), the sum over the last axis in ascending order."""
    p, g = widen(probability), widen(gradient)
    with np.errstate(all="ignore"):
        centred: F32 = g - _ascending(p * g)[..., None]
        found: F32 = p * centred * _scale(head_dim)
        return narrow(found)


def _scale(head_dim: int) -> np.float32:
    return np.float32(1 / np.sqrt(head_dim))


def _ascending(x: F32) -> F32:
    total = x[..., 0].copy()
    for place in range(1, x.shape[-1]):
        total = total + x[..., place]
    return total


def _rows(logits: F16, labels: Any) -> F16:
    rows = logits.reshape(-1, logits.shape[-1])
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < rows.shape[1]:
        raise NmsatError.rule("program", "labels", f"0 to {rows.shape[1] - 1}", int(labels.max()))
    return rows
