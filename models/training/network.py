"""A workload's layer graph with values: forward, backward, weight gradients, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..golden import Normalised, apply_mask, nm_mask, normalise, normalise_gradient, relu, relu_mask
from ..golden.floats import F16, F32
from ..pruning.recipes import Operands
from ..sparsity import DENSE
from ..workload import Layer, Workload
from .geometry import backward_phases, forward_columns, phase_columns, phase_taps
from .products import Products


@dataclass(frozen=True, slots=True)
class Stack:
    """A chain of convolutions and linear layers that ends in a cross-entropy.

    Each is followed by a batch normalisation, a ReLU, both in this order, or nothing.

    Attributes
    ----------
    workload : Workload
        Where it comes from.
    layers : tuple of Layer
        The products, in forward order.
    relus : tuple of bool
        Whether a ReLU follows.
    norms : tuple of Layer or None
        The batch normalisation between product and ReLU.
    """

    workload: Workload
    layers: tuple[Layer, ...]
    relus: tuple[bool, ...]
    norms: tuple[Layer | None, ...]

    @classmethod
    def of(cls, workload: Workload) -> Stack:
        """Read the graph of a workload.

        Raises
        ------
        NmsatError
            For anything but a chain of conv2d (one group), linear, batchnorm and relu layers that ends in
            cross_entropy.
        """
        workload = workload.expanded()
        layers: list[Layer] = []
        relus: list[bool] = []
        norms: list[Layer | None] = []
        inputs, before = workload.inputs_of(), ()
        for layer in workload.layers:
            if inputs[layer.name] != before:
                raise _unsupported(workload, layer, "a layer that reads the one before it")
            before = (layer.name,)
            if layer.op == "linear" or (layer.op == "conv2d" and layer.groups == 1):
                layers.append(layer)
                relus.append(False)
                norms.append(None)
            elif layer.function == "batchnorm" and layers and norms[-1] is None and not relus[-1]:
                norms[-1] = layer
            elif layer.function == "relu" and layers and not relus[-1]:
                relus[-1] = True
            elif layer.function != "cross_entropy" or layer is not workload.layers[-1]:
                known = "conv2d with one group, linear, batchnorm before relu, relu or a last cross_entropy"
                raise _unsupported(workload, layer, known)
        if workload.layers[-1].function != "cross_entropy":
            raise _unsupported(workload, workload.layers[-1], "a last cross_entropy")
        return cls(workload, tuple(layers), tuple(relus), tuple(norms))

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """OHWI shape of every convolution, (O, I) of every linear layer."""
        return {layer.name: weight_shape(layer) for layer in self.layers}

    def initial_weights(self, seed: int) -> dict[str, F32]:
        """He-normal master weights, float32; a layer's stream depends on the seed and its place.

        A normalisation has (2, channels): scale 1, shift 0.
        """
        found: dict[str, F32] = {}
        for index, (name, shape) in enumerate(self.weight_shapes().items()):
            deviation = np.sqrt(2 / np.prod(shape[1:]))
            drawn = np.random.default_rng((seed, index)).standard_normal(shape) * deviation
            found[name] = drawn.astype(np.float32)
        for norm in filter(None, self.norms):
            found[norm.name] = np.stack([np.ones(norm.oc, np.float32), np.zeros(norm.oc, np.float32)])
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What the forward stage leaves behind.

    Attributes
    ----------
    columns : tuple of float16 arrays (rows, taps, channels)
        im2col of every product's input.
    masks : tuple of bool arrays or None
        Where the ReLU after a product passes the gradient.
    logits : float16 array (rows, classes)
    norms : dict of Normalised
        By the normalisation's name.
    inputs : tuple of float16 arrays
        What every product reads.
    """

    columns: tuple[F16, ...]
    masks: tuple[NDArray[np.bool_] | None, ...]
    logits: F16
    norms: dict[str, Normalised]
    inputs: tuple[F16, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """Result of the backward and weight-update products.

    Attributes
    ----------
    weights : dict of float32 arrays
        dW in the shape of the weights, (2, channels) of a normalisation, multiplied by the loss scale. Layers behind an
        overflow are missing.
    outputs : dict of float16 arrays
        dY of every product (after ReLU mask and normalisation), as the array reads it: (batch, oh, ow, oc) or
        (rows, oc).
    overflow : bool
        A gradient is infinite or NaN: the loss scale is too large, the step must be skipped.
    """

    weights: dict[str, F32]
    outputs: dict[str, F16]
    overflow: bool


def weight_shape(layer: Layer) -> tuple[int, ...]:
    """(O, kh, kw, I) of a convolution, (O, I) of a linear layer."""
    return (layer.oc, layer.ic) if layer.op == "linear" else (layer.oc, layer.kh, layer.kw, layer.ic)


def forward(
    stack: Stack,
    operands: Mapping[str, Operands],
    x: F16,
    products: Products,
    affine: Mapping[str, F32] | None = None,
    running: Mapping[str, F32] | None = None,
) -> Trace:
    """Forward stage: product, binary16, normalisation, ReLU.

    Parameters
    ----------
    x : float16 array
        (batch, h, w, ic) for a convolution, (batch, ic) for a linear layer.
    affine : mapping of float32 arrays (2, channels), where the stack normalises
        Scale and shift by the normalisation's name.
    running : mapping of float32 arrays (2, channels), optional
        Mean and variance to use in place of the batch's own.
    """
    columns, masks, norms, inputs = [], [], {}, []
    for layer, has_relu, norm in zip(stack.layers, stack.relus, stack.norms, strict=True):
        a, y = layer_product(layer, operands[layer.name], x, products)
        columns.append(a)
        inputs.append(x)
        if norm is not None:
            gamma, beta = (affine or {})[norm.name]
            known = None if running is None else (running[norm.name][0], running[norm.name][1])
            norms[norm.name] = normalise("batchnorm", y, gamma, beta, known)
            y = norms[norm.name].y
        masks.append(relu_mask(y) if has_relu else None)
        y = relu(y) if has_relu else y
        x = y.reshape(-1, layer.oh, layer.ow, layer.oc) if layer.op == "conv2d" else y
    return Trace(tuple(columns), tuple(masks), x.reshape(-1, stack.layers[-1].oc), norms, tuple(inputs))


def layer_product(layer: Layer, used: Operands, x: F16, products: Products) -> tuple[F16, F16]:
    """Forward product of one layer.

    Returns
    -------
    columns : float16 array (rows, taps, channels)
        im2col of ``x``, which :func:`weight_gradient` takes.
    y : float16 array (rows, oc)
    """
    from .kernels import fast_narrow

    columns = forward_columns(x, layer)
    weights = used.ff.reshape(layer.oc, -1, layer.ic).transpose(1, 2, 0)
    return columns, fast_narrow(products.multiply(layer.name, "ff", 0, columns, weights, used.ff_pattern, False))


def backward(
    stack: Stack,
    operands: Mapping[str, Operands],
    trace: Trace,
    gradient: F16,
    products: Products,
    affine: Mapping[str, F32] | None = None,
) -> Gradients:
    """Backward and weight-update stages, last layer first.

    Parameters
    ----------
    gradient : float16 array (rows, classes)
        dY of the last product, multiplied by the loss scale.
    affine
        As in :func:`forward`.
    """
    weights: dict[str, F32] = {}
    outputs: dict[str, F16] = {}
    dy = gradient
    for index in range(len(stack.layers) - 1, -1, -1):
        layer, norm = stack.layers[index], stack.norms[index]
        if norm is not None:
            gamma = (affine or {})[norm.name][0]
            dy, *found = normalise_gradient("batchnorm", dy.reshape(-1, layer.oc), trace.norms[norm.name], gamma)
            weights[norm.name] = np.stack(found)
        dy = dy.reshape(-1, layer.oh, layer.ow, layer.oc) if layer.op == "conv2d" else dy.reshape(-1, layer.oc)
        outputs[layer.name] = dy
        if not np.isfinite(dy).all():
            return Gradients(weights, outputs, True)
        weights[layer.name] = weight_gradient(layer, trace.columns[index], dy, products)
        if index and stack.workload.input_gradient(layer):
            dx = input_gradient(layer, operands[layer.name], dy, products)
            mask = trace.masks[index - 1]
            dy = dx if mask is None else apply_mask(dx.reshape(mask.shape), mask)
    overflow = not all(np.isfinite(g).all() for g in weights.values())
    return Gradients(weights, outputs, overflow)


def weight_gradient(layer: Layer, columns: F16, dy: F16, products: Products) -> F32:
    """dW = X^T dY, float32 in the shape of the weights: k runs through images, then y, then x."""
    rows = len(columns)
    a = columns.reshape(rows, -1).T[:, None, :]
    b = dy.reshape(1, rows, layer.oc)
    found = products.multiply(layer.name, "wu", 0, a, b, DENSE, False)
    return np.ascontiguousarray(found.T).reshape(weight_shape(layer))


def input_gradient(layer: Layer, used: Operands, dy: F16, products: Products) -> F16:
    """dX = dY W^T in binary16; dY is pruned on its way in where the operands say so (SDGP)."""
    from .kernels import fast_narrow

    swapped = not used.gradient_pattern.is_dense
    pattern = used.gradient_pattern if swapped else used.bp_pattern
    if swapped:
        dy = np.where(nm_mask(dy, pattern, -1), dy, np.float16(0))
    w = used.bp.reshape(layer.oc, -1, layer.ic).transpose(1, 0, 2)  # taps, O, I
    if layer.op == "linear":
        return fast_narrow(products.multiply(layer.name, "bp", 0, dy[:, None, :], w, pattern, swapped))
    dx = np.zeros((len(dy), layer.h, layer.w, layer.ic), np.float16)
    for part, (y, x) in enumerate(backward_phases(layer)):
        a, b = phase_columns(dy, y, x), w[phase_taps(y, x, layer.kw)]
        found = fast_narrow(products.multiply(layer.name, "bp", part, a, b, pattern, swapped))
        dx[:, y.first :: layer.stride, x.first :: layer.stride] = found.reshape(-1, y.count, x.count, layer.ic)
    return dx


def _unsupported(workload: Workload, layer: Layer, rule: str) -> NmsatError:
    shown = layer.function or f"{layer.op} with groups={layer.groups}"
    return NmsatError.rule(
        workload.name, f"layer {layer.name!r}", rule, shown, "the reference trainer runs chains only"
    )
