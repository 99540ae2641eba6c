"""Weights of a workload file as the matrices that kernels take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...models.errors import NmsatError
from ...models.workload import Layer
from ...models.workload_file import WorkloadFile
from .description import Kernel
from .packing import choose_block
from .presets import SPARSE

F32 = NDArray[np.float32]


def kept_weights(file: WorkloadFile, layer: str) -> F32:
    """A layer's weights (OHWI) as binary32, zero where its forward mask drops them.

    Raises
    ------
    NmsatError
        If the file holds no weights for the layer.
    """
    if layer not in file.weights:
        raise NmsatError.rule(file.workload.name, f"{layer}.weights", "in the file", None, "export it with its weights")
    weights, mask = file.weights[layer].astype(np.float32), file.mask(layer, "ff")
    return weights if mask is None else np.asarray(np.where(mask, weights, 0), np.float32)


def is_matrix(layer: Layer) -> bool:
    """True for layers whose weights are one W (n, k): linear, and ungrouped 1x1 convolutions."""
    sizes = (layer.kh, layer.kw, layer.stride, layer.pad, layer.groups)
    return layer.op == "linear" or (layer.op == "conv2d" and sizes == (1, 1, 1, 0, 1))


def columns(layer: Layer) -> int:
    """Columns m of such a layer for one sample."""
    return layer.tokens if layer.op == "linear" else layer.oh * layer.ow


def matrices(file: WorkloadFile) -> dict[str, F32]:
    """W (n, k) of every layer that kernels can run, masks applied, in network order.

    Raises
    ------
    NmsatError
        If there is none, or one has no weights in the file.
    """
    layers = file.workload.expanded().layers
    found = {x.name: kept_weights(file, x.name).reshape(x.oc, x.ic) for x in layers if is_matrix(x)}
    if not found:
        raise NmsatError.rule(file.workload.name, "layers", "linear or 1x1 convolutions, at least one", 0)
    return found


def kernel_for(weights: F32) -> Kernel:
    """The kernel whose blocks the weights fill: 4, 2 or single rows by the fill rule."""
    height = choose_block(weights)
    if height == 1:
        return SPARSE
    return Kernel(mr={2: 12, 4: 4}[height], nr=height, unroll=2, panels="copied")
