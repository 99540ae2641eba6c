"""Softmax cross-entropy: a host (vector) step in binary32, one stated order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..golden import narrow
from ..golden.floats import F16, F32, require_dtype


def softmax(logits: F16) -> F32:
    """Softmax over the last axis.

    In this order, each operation rounded to binary32: the largest logit is subtracted; the exponential is taken in
    binary64 and rounded, so that it does not depend on whose binary32 exponential it is; classes are added in
    ascending order, starting with class 0; a division.
    """
    wide = require_dtype("logits", logits, np.float16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        shifted = wide - wide.max(axis=-1, keepdims=True)
    powers = np.exp(shifted.astype(np.float64)).astype(np.float32)
    total = powers[..., 0].copy()
    for index in range(1, powers.shape[-1]):
        total = total + powers[..., index]
    return powers / total[..., None]


def cross_entropy(logits: F16, labels: NDArray[np.integer]) -> float:
    """Mean of -log softmax at the labels, in binary64 (a report, not an operand)."""
    wide = _checked(logits, labels).astype(np.float64)
    with np.errstate(invalid="ignore"):
        shifted = wide - wide.max(axis=-1, keepdims=True)
    right = np.take_along_axis(shifted, np.asarray(labels)[:, None], axis=-1)[:, 0]
    return float((np.log(np.exp(shifted).sum(axis=-1)) - right).mean())


def cross_entropy_gradient(logits: F16, labels: NDArray[np.integer], loss_scale: float = 1.0) -> F16:
    """Gradient of the scaled mean loss with respect to the logits.

    ``binary16((softmax - onehot) * c)`` with ``c = binary32(loss_scale / rows)``: the subtraction and the product are
    rounded to binary32 each, the result once more to binary16.

    Parameters
    ----------
    logits : float16 array (rows, classes)
    labels : integer array (rows,)
        0 to classes - 1.
    loss_scale : float
        Power of two.

    Returns
    -------
    float16 array (rows, classes)
        Infinite where the scale is too large.
    """
    _checked(logits, labels)
    found = softmax(logits)
    found[np.arange(len(logits)), labels] -= np.float32(1)
    with np.errstate(over="ignore"):
        return narrow(found * np.float32(loss_scale / len(logits)))


def _checked(logits: F16, labels: NDArray[np.integer]) -> F16:
    found = require_dtype("logits", logits, np.float16)
    if found.ndim != 2:
        raise NmsatError.rule("training", "logits.shape", "(rows, classes)", found.shape)
    places = np.asarray(labels)
    if places.shape != found.shape[:1] or places.dtype.kind not in "iu":
        raise NmsatError.rule("training", "labels", f"{len(found)} integers", (places.dtype.name, places.shape))
    if places.size and not 0 <= int(places.min()) <= int(places.max()) < found.shape[1]:
        raise NmsatError.rule("training", "labels", f"0 to {found.shape[1] - 1}", int(places.max()))
    return found
