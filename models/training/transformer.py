"""A byte-level transformer with values: forward and backward through the products of a workload's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..golden import apply_mask, relu
from ..golden.floats import F16, F32, to_bits
from ..pruning.recipes import Operands
from ..workload import Layer, Workload
from .attention import AttentionTrace, attention, attention_gradient, rms_norm, rms_norm_gradient
from .kernels import fast_narrow, fast_widen
from .network import Gradients, input_gradient, layer_product, weight_gradient, weight_shape
from .products import Products

EMBEDDINGS = ("embedding.bytes", "embedding.places")
BLOCK = ("norm1", "qkv", "attention", "proj", "add1", "norm2", "fc1", "relu", "fc2", "add2")
BYTE_VALUES = 256


@dataclass(frozen=True, slots=True)
class Transformer:
    """Pre-norm decoder blocks over learned byte and place embeddings, no biases, an untied head.

    Attributes
    ----------
    workload : Workload
        Where it comes from.
    layers : tuple of Layer
        The products with weights, in forward order: qkv, proj, fc1, fc2 of every block, head.
    depth, width, heads, context : int
        Blocks, features, attention heads, tokens.
    """

    workload: Workload
    layers: tuple[Layer, ...]
    depth: int
    width: int
    heads: int
    context: int

    @classmethod
    def of(cls, workload: Workload) -> Transformer:
        """Read a workload like the zoo's ``bytes-lm``: its blocks may be more, wider and longer.

        Raises
        ------
        NmsatError
            For other layers than ``blockN.`` norm1, qkv, attention, proj, add1, norm2, fc1, relu, fc2, add2, then
            norm, head of 256 outputs, loss; or sizes that do not fit each other.
        """
        names = [layer.name for layer in workload.layers]
        depth = (len(names) - 3) // len(BLOCK)
        wanted = [f"block{i}.{part}" for i in range(depth) for part in BLOCK] + ["norm", "head", "loss"]
        if names != wanted or depth < 1:
            raise NmsatError.rule(workload.name, "layers", "blocks like those of bytes-lm, norm, head, loss", names[:4])
        found = {layer.name: layer for layer in workload.layers}
        first, head = found["block0.attention"], found["head"]
        width = first.heads * first.head_dim
        for i in range(depth):
            sizes = {"qkv": (width, 3 * width), "proj": (width, width), "fc1": (width, None), "fc2": (None, width)}
            for part, (ic, oc) in sizes.items():
                layer = found[f"block{i}.{part}"]
                if layer.op != "linear" or ic not in (None, layer.ic) or oc not in (None, layer.oc):
                    rule = f"linear, {ic or 'any'} to {oc or 'any'}"
                    raise NmsatError.rule(workload.name, layer.name, rule, f"{layer.op}, {layer.ic} to {layer.oc}")
            if found[f"block{i}.fc1"].oc != found[f"block{i}.fc2"].ic:
                raise NmsatError.rule(workload.name, f"block{i}.fc2.ic", "fc1's oc", found[f"block{i}.fc2"].ic)
        if (head.ic, head.oc) != (width, BYTE_VALUES):
            raise NmsatError.rule(workload.name, "head", f"{width} to {BYTE_VALUES}", f"{head.ic} to {head.oc}")
        products = tuple(layer for layer in workload.layers if layer.has_weights)
        return cls(workload, products, depth, width, first.heads, first.tokens)

    def initial_weights(self, seed: int) -> dict[str, F32]:
        """Normal master weights, float32; what writes into the residual stream is smaller by sqrt(2 * depth)."""
        shapes = {layer.name: weight_shape(layer) for layer in self.layers}
        shapes |= {EMBEDDINGS[0]: (BYTE_VALUES, self.width), EMBEDDINGS[1]: (self.context, self.width)}
        found: dict[str, F32] = {}
        for index, (name, shape) in enumerate(shapes.items()):
            deviation = 0.5 if name in EMBEDDINGS else np.sqrt(1 / shape[1])
            if name.endswith((".proj", ".fc2")):
                deviation = deviation / np.sqrt(2 * self.depth)
            drawn = np.random.default_rng((seed, index)).standard_normal(shape) * deviation
            found[name] = drawn.astype(np.float32)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Norm:
    y: F16
    factor: F32


@dataclass(frozen=True, slots=True, eq=False)
class BlockTrace:
    """What one block's forward pass leaves behind; columns are im2col of each product's input by part name."""

    norm1: _Norm
    norm2: _Norm
    attention: AttentionTrace
    relu: NDArray[np.bool_]
    columns: dict[str, F16]


@dataclass(frozen=True, slots=True, eq=False)
class LanguageTrace:
    """What the forward stage leaves behind; ``logits`` is float16 (batch * tokens, 256)."""

    tokens: NDArray[np.integer]
    blocks: tuple[BlockTrace, ...]
    norm: _Norm
    columns: F16
    logits: F16


def language_forward(
    net: Transformer,
    operands: Mapping[str, Operands],
    embeddings: Mapping[str, F16],
    tokens: NDArray[np.integer],
    products: Products,
) -> LanguageTrace:
    """Forward stage: every product and every vector result is rounded to binary16.

    Parameters
    ----------
    embeddings : mapping with float16 arrays (256, width) and (context, width)
        Under the names of :data:`EMBEDDINGS`.
    tokens : integer array (batch, tokens)
        Bytes; at most ``net.context`` tokens.
    """
    batch, length = tokens.shape
    layers = {layer.name: layer for layer in net.layers}
    x = _sum(embeddings[EMBEDDINGS[0]][tokens], embeddings[EMBEDDINGS[1]][:length])
    blocks = []
    for i in range(net.depth):
        columns: dict[str, F16] = {}

        def run(part: str, value: F16, block: int = i, held: dict[str, F16] = columns) -> F16:
            name = f"block{block}.{part}"
            held[part], y = layer_product(layers[name], operands[name], value, products)
            return y.reshape(batch, length, -1)

        norm1 = _Norm(*rms_norm(x))
        mixed, seen = attention(run("qkv", norm1.y), net.heads, f"block{i}.attention", products)
        x = _sum(x, run("proj", mixed))
        norm2 = _Norm(*rms_norm(x))
        hidden = relu(run("fc1", norm2.y))
        x = _sum(x, run("fc2", hidden))
        blocks.append(BlockTrace(norm1, norm2, seen, to_bits(hidden) != 0, columns))
    norm = _Norm(*rms_norm(x))
    last, logits = layer_product(layers["head"], operands["head"], norm.y, products)
    return LanguageTrace(tokens, tuple(blocks), norm, last, logits)


def language_backward(
    net: Transformer, operands: Mapping[str, Operands], trace: LanguageTrace, gradient: F16, products: Products
) -> Gradients:
    """Backward and weight-update stages, last layer first.

    Parameters
    ----------
    gradient : float16 array (batch * tokens, 256)
        dY of the head, multiplied by the loss scale.

    Returns
    -------
    Gradients
        ``weights`` holds the embeddings' gradients too; after an overflow those of earlier layers are missing.
    """
    weights: dict[str, F32] = {}
    outputs: dict[str, F16] = {}
    layers = {layer.name: layer for layer in net.layers}
    batch, length = trace.tokens.shape

    def through(name: str, dy: F16, columns: F16) -> F16:
        """dX of one product, after taking its dW."""
        dy = dy.reshape(batch * length, -1)
        outputs[name] = dy
        weights[name] = weight_gradient(layers[name], columns, dy, products)
        return input_gradient(layers[name], operands[name], dy, products).reshape(batch, length, -1)

    dx = _norm_gradient(through("head", gradient, trace.columns), trace.norm)
    for i in range(net.depth - 1, -1, -1):
        held = trace.blocks[i]
        if not np.isfinite(dx).all():
            return Gradients(weights, outputs, True)
        hidden = apply_mask(through(f"block{i}.fc2", dx, held.columns["fc2"]), held.relu)
        inner = through(f"block{i}.fc1", hidden, held.columns["fc1"])
        dx = _sum(dx, _norm_gradient(inner, held.norm2))
        mixed = through(f"block{i}.proj", dx, held.columns["proj"])
        mixed = attention_gradient(mixed, held.attention, f"block{i}.attention", products)
        inner = through(f"block{i}.qkv", mixed, held.columns["qkv"])
        dx = _sum(dx, _norm_gradient(inner, held.norm1))
    wide = fast_widen(dx)
    weights[EMBEDDINGS[0]] = _by_byte(trace.tokens, wide)
    places = np.zeros((net.context, net.width), np.float32)
    places[:length] = wide.sum(axis=0)
    weights[EMBEDDINGS[1]] = places
    overflow = not all(np.isfinite(g).all() for g in weights.values())
    return Gradients(weights, outputs, overflow)


def _sum(x: F16, y: F16) -> F16:
    """Sum in binary32, rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):
        return fast_narrow(fast_widen(x) + fast_widen(y))


def _norm_gradient(dy: F16, norm: _Norm) -> F16:
    with np.errstate(over="ignore", invalid="ignore"):
        return fast_narrow(rms_norm_gradient(dy, norm.y, norm.factor))


def _by_byte(tokens: NDArray[np.integer], rows: F32) -> F32:
    """Sum of the rows that belong to every byte value: a product with a one-hot matrix."""
    onehot = np.zeros((tokens.size, BYTE_VALUES), np.float32)
    onehot[np.arange(tokens.size), tokens.reshape(-1)] = 1
    with np.errstate(over="ignore", invalid="ignore"):
        return onehot.T @ rows.reshape(tokens.size, -1)
