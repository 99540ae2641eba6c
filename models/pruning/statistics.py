"""What masks do over a training run: how many flip, how forward and backward masks overlap, densities."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import NmsatError
from .masks import Mask


def flip_rate(before: Mask, after: Mask) -> float:
    """Share of places whose bit differs, 0..1: the sum of absolute differences (SAD) over the size."""
    _same_shape(before, after)
    return float((before != after).mean()) if before.size else 0.0


def overlap(ff: Mask, bp: Mask) -> float:
    """P(BP keeps | FF keeps), 0..1; 0 where the forward mask keeps nothing.

    Independent masks would give the density N/M; both select large magnitudes, so it lies far above.
    """
    _same_shape(ff, bp)
    kept = int(ff.sum())
    return float((ff & bp).sum() / kept) if kept else 0.0


def densities(masks: Mapping[str, Mask]) -> dict[str, float]:
    """Share of weights kept, layer by layer, 0..1."""
    return {name: float(mask.mean()) if mask.size else 0.0 for name, mask in masks.items()}


def _same_shape(one: Mask, other: Mask) -> None:
    if one.shape != other.shape:
        raise NmsatError.rule("pruning", "mask.shape", f"{one.shape} like the other mask", other.shape)
