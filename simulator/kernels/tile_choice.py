"""The tile of every layer, chosen by the cycle model and cached."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ...dataflow.kernels.description import LANES, Kernel
from ...dataflow.kernels.packing import Packed
from ...dataflow.kernels.presets import GROUPED, SLICED, SPARSE
from ...models.core import Core
from ...models.errors import NmsatError
from ...models.sparsity import Sparsity
from .predict import Prediction, Shape, predict, sample

_ARM = tuple(Kernel(mr=4 * v, unroll=u) for v in (2, 4, 6, 8) for u in (1, 4))
_WASM = tuple(
    replace(SPARSE, mr=4 * v, panels=panels) for v in (4, 5, 6, 7) for panels in ("in_place", "copied")
) + tuple(replace(GROUPED, group=group) for group in (4, 32))


def candidates(
    core: Core, *, dense: bool = False, pattern: Sparsity | None = None, m: int = LANES
) -> tuple[Kernel, ...]:
    """Kernels that a core may choose from: unstructured, dense, or packed N:M (wasm; ARM reads N:M by steps).

    Unstructured products of fewer than 4 columns ``m`` may take the sliced kernel (wasm).
    """
    if core.isa == "aarch64":
        dense_tiles = (Kernel(mr=16, nr=4, index="dense"), Kernel(mr=32, index="dense"), Kernel(mr=8, index="dense"))
        return dense_tiles if dense else _ARM
    if dense:
        return tuple(Kernel(mr=mr, nr=nr, unroll=4, index="dense", panels="copied") for mr, nr in ((12, 2), (16, 1)))
    if pattern is not None:
        unroll = 2 if pattern.keep == 1 else 1
        return tuple(
            Kernel(mr=mr, unroll=unroll, index="packed", pattern=pattern, panels="copied") for mr in (20, 24, 28)
        )
    return _WASM if m >= LANES else (*_WASM, SLICED)


@lru_cache(maxsize=4096)
def choose(
    core: Core, shape: Shape, zeros: float = 0.0, pattern: Sparsity | None = None, height: int = 1, seed: int = 0
) -> tuple[Kernel, Prediction]:
    """The fastest kernel of a product by the model, and its prediction; the first of equals.

    Parameters
    ----------
    core : Core
        Where it runs.
    shape : (m, n, k)
        The product.
    zeros : float
        Share of zero weights, independent and seeded; 0 chooses among the dense kernels.
    pattern : Sparsity or None
        N:M weights instead.
    height : int
        Rows of a block that are zero together (1, 2 or 4).
    """
    tiles = candidates(core, dense=not zeros and pattern is None, pattern=pattern, m=LANES if height > 1 else shape[0])
    if height > 1:
        tiles = tuple(replace(t, nr=height, mr=max(LANES, t.mr // height // LANES * LANES), unroll=1) for t in tiles)
    best: tuple[Kernel, Prediction] | None = None
    for kernel in dict.fromkeys(tiles):
        packed = _weights(core, kernel, shape, zeros, pattern, seed)
        found = predict(core, packed, shape[0])
        if best is None or found.cycles < best[1].cycles:
            best = kernel, found
    if best is None:
        raise NmsatError.rule("tile", "core", "one with kernels", core.name)
    return best


def _weights(core: Core, kernel: Kernel, shape: Shape, zeros: float, pattern: Sparsity | None, seed: int) -> Packed:
    _, n, k = shape
    if pattern is not None and core.isa == "aarch64":  # N:M weights through index steps
        zeros = 1 - pattern.keep / pattern.group
    return sample(kernel, n, k, zeros, seed)
