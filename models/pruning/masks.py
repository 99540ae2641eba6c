"""Masks of one tensor: which weights a rule keeps. True is kept; ties keep the lower index, everywhere."""

from __future__ import annotations

from math import isfinite

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..golden import nm_mask
from ..golden.floats import F16, require_dtype
from ..sparsity import Sparsity

Mask = NDArray[np.bool_]


def keep_largest(scores: NDArray[np.floating], count: int) -> Mask:
    """Keep the ``count`` largest scores of a tensor of any shape; ties keep the lower index in C order.

    Raises
    ------
    NmsatError
        If a score is NaN or ``count`` is not between 0 and the number of scores.
    """
    flat = np.asarray(scores).reshape(-1)
    if np.isnan(flat).any():
        raise NmsatError.rule("pruning", "scores", "numbers", float("nan"), "a NaN has no magnitude")
    if not 0 <= count <= flat.size:
        raise NmsatError.rule("pruning", "count", f"0 to {flat.size}", count)
    kept = np.zeros(flat.size, np.bool_)
    kept[np.argsort(-flat, kind="stable")[:count]] = True
    return kept.reshape(np.shape(scores))


def kept_count(density: float, size: int) -> int:
    """Weights kept of ``size``: nearest to density * size, halves upward, at least 1 where there are any."""
    if not (isfinite(density) and 0 < density <= 1):
        raise NmsatError.rule("pruning", "density", "above 0, at most 1", density)
    return min(size, max(1, int(density * size + 0.5))) if size else 0


def magnitude_nm(w16: F16, pattern: Sparsity, axis: int = -1) -> Mask:
    """N:M of the largest magnitudes along ``axis``; errors as :func:`nmsat.models.golden.compress`."""
    return np.ones(w16.shape, np.bool_) if pattern.is_dense else nm_mask(w16, pattern, axis)


def magnitude(w16: F16, density: float) -> Mask:
    """Unstructured: the largest magnitudes of the whole tensor."""
    return keep_largest(np.abs(require_dtype("w16", w16, np.float16)), kept_count(density, w16.size))


def random_mask(shape: tuple[int, ...], density: float, seed: int | tuple[int, ...]) -> Mask:
    """Unstructured: exactly :func:`kept_count` places drawn without replacement."""
    size = int(np.prod(shape, dtype=np.int64))
    kept = np.zeros(size, np.bool_)
    kept[np.random.default_rng(seed).permutation(size)[: kept_count(density, size)]] = True
    return kept.reshape(shape)


def block_mask(w16: F16, density: float, height: int = 4) -> Mask:
    """Blocks of ``height`` consecutive output channels (axis 0) that share their place on all other axes.

    A block's score is the sum of its magnitudes in binary32. Fewer than ``height`` channels may remain at the end.
    """
    if height < 1:
        raise NmsatError.rule("pruning", "height", "at least 1", height)
    found = np.abs(require_dtype("w16", w16, np.float16)).astype(np.float32)
    scores = np.add.reduceat(found, range(0, len(found), height), axis=0)
    kept = keep_largest(scores, kept_count(density, scores.size))
    return np.repeat(kept, height, axis=0)[: len(found)]


def channel_mask(w16: F16, density: float) -> Mask:
    """Whole output channels (axis 0), scored by the sum of their magnitudes in binary32."""
    found = np.abs(require_dtype("w16", w16, np.float16)).astype(np.float32)
    scores = found.reshape(len(found), -1).sum(axis=1)
    kept = keep_largest(scores, kept_count(density, scores.size))
    return np.broadcast_to(kept.reshape(-1, *[1] * (found.ndim - 1)), found.shape).copy()
