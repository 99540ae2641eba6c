"""How a density is shared out among layers: uniform, Erdos-Renyi-Kernel, or one global threshold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..golden.floats import F16
from .masks import Mask, keep_largest, kept_count


def uniform(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """The same density in every layer."""
    kept_count(density, 1)
    return dict.fromkeys(shapes, density)


def erk(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Erdos-Renyi-Kernel: a layer's density is eps * sum(shape) / prod(shape), eps chosen so that the total fits.

    Layers that would exceed 1 become dense and eps is solved again for the others (Evci et al., arXiv 1911.11134).

    Parameters
    ----------
    shapes : mapping of layer name to weight shape
        OHWI, or (O, I).
    density : float
        Wanted share of all weights, 0..1.

    Returns
    -------
    dict of layer name to density, 0..1; their mean weighted by size is ``density``.
    """
    kept_count(density, 1)
    sizes = {name: int(np.prod(shape, dtype=np.int64)) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    budget = density * sum(sizes.values())
    while True:
        rest = [name for name in shapes if name not in dense]
        left = budget - sum(sizes[name] for name in dense)
        eps = left / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
        full = [name for name in rest if eps * raw[name] > 1]
        if not full:
            return {name: 1.0 if name in dense else eps * raw[name] for name in shapes}
        dense.update(full)


def global_magnitude(weights: Mapping[str, F16], density: float) -> dict[str, Mask]:
    """Masks of the largest magnitudes over all layers together; ties keep the earlier layer, then the lower index."""
    flat = np.concatenate([np.abs(w).reshape(-1) for w in weights.values()]) if weights else np.zeros(0, np.float16)
    kept = keep_largest(flat, kept_count(density, flat.size))
    found, start = {}, 0
    for name, w in weights.items():
        found[name] = kept[start : start + w.size].reshape(w.shape)
        start += w.size
    return found
