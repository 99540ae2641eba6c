"""Operands of a product in memory: addresses and strides of a descriptor, in elements.

A convolution's mapped operand is a feature map, its strided operand the weights (or, for dW, the output gradient).
Weights are OHWI; their compressed copies are (O, kh, kw, I/M, N) forward and (I, kh, kw, O/M, N) backward, and strides
count the elements that a copy stands for.
"""

from __future__ import annotations

from ..models.sparsity import DENSE
from ..models.workload import Layer
from .lowering import Product
from .memory_map import MemoryMap
from .program import Stage

Fields = dict[str, int]


def operands(item: Product, memory: MemoryMap, *, online: bool) -> Fields:
    """Address and stride fields of a product descriptor."""
    if item.layer.op == "attention":
        return _attention(item, memory)
    if item.stage is Stage.WU:
        return _update(item, memory)
    return _weighted(item, memory, online)


def _weighted(item: Product, memory: MemoryMap, online: bool) -> Fields:
    """Forward: X and weights to Y. Backward: dY and weights to dX."""
    layer, forward = item.layer, item.stage is Stage.FF
    taps, block = layer.kh * layer.kw, item.block
    inner, outer = layer.ic // layer.groups, layer.oc // layer.groups
    if forward:
        source, target = memory.input(layer), memory.output(layer.name)
        from_channels, to_channels, read, written = layer.ic, layer.oc, inner, outer
    else:
        source, target = memory.gradient(layer.name), memory.handed_back(layer)
        from_channels, to_channels, read, written = layer.oc, layer.ic, outer, inner
    stored_dense = item.swapped or online or item.pattern.is_dense or block > 1
    weights, indices = memory.weights(layer, item.stage, DENSE if stored_dense else item.pattern)
    if layer.op == "depthwise":
        read = written = block
        strides = {"b_stride_k": taps, "b_stride_tap": 1, "b_stride_n": taps, "b_repeat": block * taps}
    elif forward or not stored_dense:
        strides = {"b_stride_k": 1, "b_stride_tap": read, "b_stride_n": taps * read, "b_repeat": written * taps * read}
    else:  # dense OHWI weights, read with the output channel along k
        strides = {"b_stride_k": taps * inner, "b_stride_tap": inner, "b_stride_n": 1}
        strides["b_repeat"] = outer * taps * inner
    found = strides | {"a_pixel": from_channels, "a_repeat": read, "c_repeat": written, "c_address": target}
    if not item.swapped:
        addresses = {"a_address": source, "b_address": weights, "index_address": indices}
        return found | addresses | {"c_stride_m": to_channels, "c_stride_n": 1}
    values, places = memory.pruned_gradient(layer, item.pattern)
    found |= {"a_repeat": strides["b_repeat"], "b_repeat": read, "c_stride_m": 1, "c_stride_n": to_channels}
    return found | {"a_address": weights, "b_address": values, "index_address": places}


def _update(item: Product, memory: MemoryMap) -> Fields:
    """X^T and dY to dW, which has the order of the weights; of a depthwise block only the diagonal is kept."""
    layer, block = item.layer, item.block
    taps, inner, outer = layer.kh * layer.kw, layer.ic // layer.groups, layer.oc // layer.groups
    if block > 1:
        inner = outer = block
    per_column = taps if layer.op == "depthwise" else taps * inner
    return {
        "a_address": memory.input(layer),
        "b_address": memory.gradient(layer.name),
        "c_address": memory.weight_gradient(layer),
        "a_pixel": layer.ic,
        "a_repeat": inner,
        "b_stride_k": layer.oc,
        "b_stride_n": 1,
        "b_repeat": outer,
        "c_stride_m": 1,
        "c_stride_n": per_column,
        "c_repeat": outer * per_column,
    }


def _attention(item: Product, memory: MemoryMap) -> Fields:
    """The input and its gradient are (image, token, q | k | v, head, element); a repeat is a head of an image."""
    layer = item.layer
    rows, wide = layer.heads * layer.head_dim, 3 * layer.heads * layer.head_dim
    x = memory.input(layer)
    scores = memory.scores(layer, Stage.FF)
    places = {
        "q": (x, wide),
        "k": (x + 2 * rows, wide),
        "v": (x + 4 * rows, wide),
        "scores": (scores, layer.tokens),
        "y": (memory.output(layer.name), rows),
    }
    if item.stage is not Stage.FF:
        dx, dy, ds = memory.handed_back(layer), memory.gradient(layer.name), memory.scores(layer, Stage.BP)
        places |= {"dq": (dx, wide), "dk": (dx + 2 * rows, wide), "dv": (dx + 4 * rows, wide)}
        places |= {"dscores": (ds, layer.tokens), "dy": (dy, rows)}
    a, b, c, along_rows = {
        "qk": ("q", "k", "scores", True),
        "av": ("scores", "v", "y", False),
        "d_scores": ("dy", "v", "dscores", True),
        "dq": ("dscores", "k", "dq", False),
        "dv": ("scores", "dy", "dv", False),
        "dk": ("dscores", "q", "dk", False),
    }[item.part]
    found = {"inner": layer.heads, "a_pixel": places[a][1]}
    found |= (
        {"b_stride_k": 1, "b_stride_n": places[b][1]}
        if along_rows
        else {
            "b_stride_k": places[b][1],
            "b_stride_n": 1,
        }
    )
    found |= {"c_stride_m": places[c][1], "c_stride_n": 1}
    for side, name in (("a", a), ("b", b), ("c", c)):
        found[f"{side}_address"] = places[name][0]
        found |= _repeat(side, layer, square="scores" in name, width=places[name][1])
    return found


def _repeat(side: str, layer: Layer, *, square: bool, width: int) -> Fields:
    """Steps from head to head and from image to image."""
    if square:
        size = layer.tokens * layer.tokens
        return {f"{side}_repeat": size, f"{side}_outer": layer.heads * size}
    return {f"{side}_repeat": layer.head_dim, f"{side}_outer": layer.tokens * width}
