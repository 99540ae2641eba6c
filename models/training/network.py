"""A workload's layer graph with values: forward, backward, weight gradients, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..golden import apply_mask, nm_mask, relu, relu_mask
from ..golden.floats import F16, F32
from ..pruning.recipes import Operands
from ..sparsity import DENSE
from ..workload import Layer, Workload
from .geometry import backward_phases, forward_columns, phase_columns, phase_taps
from .products import Products


@dataclass(frozen=True, slots=True)
class Stack:
    """A chain of convolutions and linear layers, each with or without a ReLU, ending in a cross-entropy.

    Attributes
    ----------
    workload : Workload
        Where it comes from.
    layers : tuple of Layer
        The products, in forward order.
    relus : tuple of bool
        Whether a ReLU follows.
    """

    workload: Workload
    layers: tuple[Layer, ...]
    relus: tuple[bool, ...]

    @classmethod
    def of(cls, workload: Workload) -> Stack:
        """Read the graph of a workload.

        Raises
        ------
        NmsatError
            For anything but a chain of conv2d (one group), linear and relu layers that ends in cross_entropy.
        """
        layers: list[Layer] = []
        relus: list[bool] = []
        inputs, before = workload.inputs_of(), ()
        for layer in workload.layers:
            if inputs[layer.name] != before:
                raise _unsupported(workload, layer, "a layer that reads the one before it")
            before = (layer.name,)
            if layer.op == "linear" or (layer.op == "conv2d" and layer.groups == 1):
                layers.append(layer)
                relus.append(False)
            elif layer.function == "relu" and layers and not relus[-1]:
                relus[-1] = True
            elif layer.function != "cross_entropy" or layer is not workload.layers[-1]:
                raise _unsupported(workload, layer, "conv2d with one group, linear, relu or a last cross_entropy")
        if workload.layers[-1].function != "cross_entropy":
            raise _unsupported(workload, workload.layers[-1], "a last cross_entropy")
        return cls(workload, tuple(layers), tuple(relus))

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """OHWI shape of every convolution, (O, I) of every linear layer."""
        return {layer.name: weight_shape(layer) for layer in self.layers}

    def initial_weights(self, seed: int) -> dict[str, F32]:
        """He-normal master weights, float32; a layer's stream depends on the seed and its place."""
        found: dict[str, F32] = {}
        for index, (name, shape) in enumerate(self.weight_shapes().items()):
            deviation = np.sqrt(2 / np.prod(shape[1:]))
            drawn = np.random.default_rng((seed, index)).standard_normal(shape) * deviation
            found[name] = drawn.astype(np.float32)
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
    """

    columns: tuple[F16, ...]
    masks: tuple[NDArray[np.bool_] | None, ...]
    logits: F16


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """Result of the backward and weight-update products.

    Attributes
    ----------
    weights : dict of float32 arrays
        dW in the shape of the weights, multiplied by the loss scale. Layers behind an overflow are missing.
    outputs : dict of float16 arrays
        dY of every product (after the ReLU mask), as the array reads it: (batch, oh, ow, oc) or (rows, oc).
    overflow : bool
        A gradient is infinite or NaN: the loss scale is too large, the step must be skipped.
    """

    weights: dict[str, F32]
    outputs: dict[str, F16]
    overflow: bool


def weight_shape(layer: Layer) -> tuple[int, ...]:
    """(O, kh, kw, I) of a convolution, (O, I) of a linear layer."""
    return (layer.oc, layer.ic) if layer.op == "linear" else (layer.oc, layer.kh, layer.kw, layer.ic)


def forward(stack: Stack, operands: Mapping[str, Operands], x: F16, products: Products) -> Trace:
    """Forward stage: product, binary16, ReLU.

    Parameters
    ----------
    x : float16 array
        (batch, h, w, ic) for a convolution, (batch, ic) for a linear layer.
    """
    columns, masks = [], []
    for layer, has_relu in zip(stack.layers, stack.relus, strict=True):
        a, y = layer_product(layer, operands[layer.name], x, products)
        columns.append(a)
        masks.append(relu_mask(y) if has_relu else None)
        y = relu(y) if has_relu else y
        x = y.reshape(-1, layer.oh, layer.ow, layer.oc) if layer.op == "conv2d" else y
    return Trace(tuple(columns), tuple(masks), x.reshape(-1, stack.layers[-1].oc))


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
    stack: Stack, operands: Mapping[str, Operands], trace: Trace, gradient: F16, products: Products
) -> Gradients:
    """Backward and weight-update stages, last layer first.

    Parameters
    ----------
    gradient : float16 array (rows, classes)
        dY of the last product, multiplied by the loss scale.
    """
    weights: dict[str, F32] = {}
    outputs: dict[str, F16] = {}
    dy = gradient
    for index in range(len(stack.layers) - 1, -1, -1):
        layer = stack.layers[index]
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
