"""Seeded weights for kernels without a trained network: the same for every engine and every run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...models.errors import NmsatError
from .description import Kernel
from .shapes import Shape

F32 = NDArray[np.float32]


def sample_weights(kernel: Kernel, shape: Shape, sparsity: float, seed: int = 0) -> F32:
    """Normal weights W (n, k), zeroed to the kernel's structure.

    N:M kernels keep ``keep`` random columns a group whatever ``sparsity`` says; kernels with nr rows a block keep or
    drop whole blocks; others single weights. Dropping is independent with probability ``sparsity``.

    Raises
    ------
    NmsatError
        If a size is below 1 or ``sparsity`` is not in 0..1.
    """
    _, n, k = checked_shape(shape)
    if not 0 <= sparsity <= 1:
        raise NmsatError.rule("", "sparsity", "a share of zeros from 0 to 1", sparsity)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(n, k)).astype(np.float32)
    if kernel.pattern is not None:
        size = kernel.pattern.group
        rank = rng.random((n, -(-k // size), size)).argsort(axis=2).argsort(axis=2)
        weights[(rank >= kernel.pattern.keep).reshape(n, -1)[:, :k]] = 0
        return weights
    dropped = rng.random((-(-n // kernel.nr), k)) < sparsity
    weights[np.repeat(dropped, kernel.nr, axis=0)[:n]] = 0
    return weights


def checked_shape(shape: Shape) -> Shape:
    """(m, n, k) itself, every size at least 1."""
    for key, size in zip("mnk", shape, strict=True):
        if size < 1:
            raise NmsatError.rule("", f"shape: {key}", "at least 1", size)
    return shape


def sample_input(shape: Shape, seed: int = 0) -> F32:
    """Normal X (k, m)."""
    m, _, k = checked_shape(shape)
    return np.random.default_rng([seed, 1]).normal(size=(k, m)).astype(np.float32)
