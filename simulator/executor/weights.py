"""Initial weights: the master copy and every copy that products read, as WUVE and SORE would write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow.program import Program, Tensor
from ...models.errors import NmsatError
from ...models.golden import narrow, pack
from ...models.sparsity import Sparsity
from .image import U8, load_tensors
from .update import compressed_copy


def load_weights(program: Program, image: U8, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Write master weights and what is derived from them into the image, in place; momenta become zero.

    Parameters
    ----------
    weights : mapping of str to float32 array
        Layer name to OHWI weights; (O, I) of a linear layer; (2, channels), scale and shift, of a normalisation.

    Raises
    ------
    NmsatError
        For a layer without weights in the program, a wrong shape or dtype, or a NaN in pruned weights. Nothing is then
        written.
    """
    places = {item.name: item for item in program.tensors}
    found: dict[str, NDArray[Any]] = {}
    for layer, given in weights.items():
        names = [name for name in places if name.rpartition(".")[0] in (layer, f"{layer}.ff", f"{layer}.bp")]
        w32 = np.asarray(given)
        if w32.dtype != np.float32:
            raise NmsatError.rule("program", f"{layer}.dtype", "float32", w32.dtype.name)
        if f"{layer}.affine" in names:
            found[f"{layer}.affine"] = _affine(places[f"{layer}.affine"], w32)
            continue
        if not any(name.endswith((".w32", ".w16", ".values")) for name in names):
            raise NmsatError.rule("program", "weights", "of layers with weights", layer)
        if w32.ndim not in (2, 4):
            raise NmsatError.rule("program", f"{layer}.shape", "(O, kh, kw, I) or (O, I)", w32.shape)
        shape = (w32.shape[0], int(np.prod(w32.shape[1:-1], dtype=np.int64)), w32.shape[-1])
        for name in names:
            if name.endswith(".w32"):
                found[name] = w32
            elif name.endswith(".v32"):
                found[name] = np.zeros_like(w32)
            elif name.endswith(".w16"):
                found[name] = narrow(w32)
            elif name in (f"{layer}.ff.values", f"{layer}.bp.values"):
                found |= _copies(places[name], narrow(w32).reshape(shape))
    load_tensors(program, image, found)


def _affine(item: Tensor, given: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale and shift with zero momenta, gradients and statistics."""
    if given.shape != (2, item.shape[1]):
        raise NmsatError.rule("program", f"{item.name}.shape", f"(2, {item.shape[1]}), scale and shift", given.shape)
    return np.concatenate([given, np.zeros((item.shape[0] - 2, item.shape[1]), np.float32)])


def _copies(item: Tensor, w16: NDArray[np.float16]) -> dict[str, NDArray[Any]]:
    """Both planes of the compressed copy whose values tensor is ``item``."""
    prefix = item.name.removesuffix(".values")
    stage = prefix.rpartition(".")[2]
    outer, inner = w16.shape[0], w16.shape[2]
    groups = 1 if stage == "ff" else item.shape[0] // inner
    length = inner if stage == "ff" else outer // max(groups, 1)
    if not groups or length % item.shape[-2]:
        raise NmsatError.rule("program", f"{prefix}.shape", f"that of {item.shape}", w16.shape)
    kept = compressed_copy(w16, Sparsity(item.shape[-1], length // item.shape[-2]), stage, groups)
    values, indices = pack(kept)
    return {item.name: values.view("<f2").astype(np.float16), f"{prefix}.indices": indices}
