"""Walking an ONNX graph: products, attention and what the vector lanes do become layers; the rest is free or noted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputFileError, NmsatError
from .network import Network, as_weights, conv_fields, elements, per_sample, window
from .onnx_file import Model, parse
from .onnx_tensors import array_of

FREE = re.compile(
    r"Reshape|Transpose|Flatten|Identity|Dropout|Squeeze|Unsqueeze|Slice|Concat|Split|Cast|Shape|Gather|Expand|"
    r"Pad|Constant|ConstantOfShape|Range|Where|Equal|Not|And|Or|Less|Greater|Trilu|Tile|Size|Sqrt|Floor|Ceil|Min|"
    r"Max|LessOrEqual|GreaterOrEqual|CastLike|GatherND|Neg|Reciprocal|Erf|Exp|Log|Pow|Abs|IsNaN|Add|Sub|Mul|Div|Sum|ReduceMean"
)
ACTIVATIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Gelu": "gelu",
    "Silu": "silu",
    "Swish": "silu",
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
    "BatchNormalization": "batchnorm",
    "LayerNormalization": "layernorm",
    "RMSNormalization": "rmsnorm",
    "SimplifiedLayerNormalization": "rmsnorm",
}
CHARGED_AS = {
    "LeakyRelu": "relu",
    "PRelu": "relu",
    "Clip": "relu",
    "Elu": "relu",
    "Selu": "relu",
    "HardSigmoid": "sigmoid",
    "Tanh": "sigmoid",
    "HardSwish": "silu",
    "Mish": "silu",
    "Softplus": "sigmoid",
    "InstanceNormalization": "batchnorm",
    "GroupNormalization": "layernorm",
}
FOLDED = frozenset({"Identity", "Cast", "Transpose", "DequantizeLinear"})  # of constants, as far as weights need it
REFUSED = re.compile(
    r"ConvTranspose|ConvInteger|QLinearConv|MatMulInteger|QLinearMatMul|QGemm|LSTM|GRU|RNN|If|Loop|Scan|Einsum|"
    r"DeformConv|FusedConv|FusedMatMul"
)
UNTELLING = re.compile(r"(^|/)(onnx::|val_|_?to_copy|t_|permute_|transpose_|[0-9]+$)|::")


def read_onnx(path: Path, dims: Mapping[str, int] | None = None) -> Network:
    """Read the products of an ONNX model, with their weights, and what lies between them.

    Raises
    ------
    InputFileError
        For a file that is no model, a layer that a workload cannot hold, or a weight that lies about its size.
    MissingToolError
        Without the ``onnx`` package.
    """
    return _Walker(parse(path, dims)).walk()


class _Walker:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.where = str(model.path)
        self.net = Network(self.where, tool=model.tool)
        self.folded: dict[str, tuple[str, tuple[int, ...] | None]] = {}  # value -> (constant, permutation)
        self.decoded: dict[str, NDArray[Any]] = {}  # dequantized constants
        self.scores: dict[str, tuple[str, list[str]]] = {}  # value -> (node name, [q, k]): a softmax must follow
        self.chances: dict[str, tuple[str, list[str]]] = {}  # after that softmax: a product with v must follow
        self.fixed: set[str] = set()  # values computed from shapes and constants alone
        self.readers: dict[str, list[Any]] = {}
        self.tags: dict[str, str] = {}  # row statistics of a layer norm written out
        self.handlers: dict[str, Callable[[Any], None]] = {
            "Conv": self._conv,
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "Attention": self._attention_node,
            "MaxPool": self._pool,
            "AveragePool": self._pool,
            "GlobalAveragePool": self._global_pool,
            "GlobalMaxPool": self._global_pool,
            "ReduceMean": self._mean,
            "DequantizeLinear": self._dequantize,
            **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Sum"), self._binary),
        }

    def walk(self) -> Network:
        known = {*self.model.inputs, *self.model.constants, ""}
        for node in self.model.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        for node in self.model.nodes:
            for name in node.input:
                if name not in known:
                    raise InputFileError(f"{self._place(node)}: must read values written before it, not {name!r}")
            known.update(node.output)
            if node.output and node.op_type != "Constant":
                self._node(node)
        for node_name, _ in (*self.scores.values(), *self.chances.values()):
            hint = "only attention multiplies two activations"
            raise InputFileError(f"{self.where}: {node_name}: must be followed by a softmax and a product; {hint}")
        return self.net

    def _node(self, node: Any) -> None:
        op = node.op_type
        fold = op in FOLDED and self._is_constant(node.input[0] if node.input else "")
        if op in ("Shape", "Size") or (not fold and all(self._constant_value(name) for name in node.input)):
            self.fixed.update(node.output)
            return
        if REFUSED.fullmatch(op):
            raise InputFileError(f"{self._place(node)}: {op} is not supported; it holds products nobody would count")
        if op in self.handlers:
            self.handlers[op](node)
        elif op in ("Softmax", "LogSoftmax") and node.input[0] in self.scores:
            self.chances[node.output[0]] = self.scores.pop(node.input[0])
        elif op in ACTIVATIONS:
            self._each(node, ACTIVATIONS[op])
        elif op in CHARGED_AS:
            self.net.notes[f"{op} is charged as {CHARGED_AS[op]}"] += 1
            self._each(node, CHARGED_AS[op])
        elif op == "Erf":
            self._each(node, "gelu")  # its halving and scaling are constants, which are free
        else:
            self._free(node)

    # products

    def _conv(self, node: Any) -> None:
        place, weights = self._place(node), self._weight(node, 1, "OIHW")
        shape = self._shape(node, 0)
        if not 3 <= len(shape) <= 4 or len(shape) != weights.ndim:
            raise NmsatError.rule(place, "input", "(batch, channels, height, width) or 1-D", shape)
        flat = len(shape) == 3
        kernel = tuple(weights.shape[2:])
        strides, dilation = self._ints(node, "strides", [1, 1][flat:]), self._ints(node, "dilations", [1, 1][flat:])
        pads = self._pads(node, shape[2:], kernel, strides, dilation)
        if flat:
            weights = weights[:, :, None, :]
            pads = [0, pads[0], 0, pads[1]]
        weights = as_weights(weights, "OIHW", place)
        groups = self._ints(node, "group", [1])[0]
        op, fields = conv_fields(weights, shape[1], groups, place)
        size, kernel, strides, dilation = (self._pair(x) for x in (shape[2:], kernel, strides, dilation))
        geometry, exact = window(size, kernel, strides, (pads[0], pads[1], pads[2], pads[3]), dilation, place)
        if not exact:
            self.net.notes["convolutions with other padding or dilation are given the input size that fits"] += 1
        self._samples(node, shape)
        self.net.weighted(self._name(node, 1), op, node.output[0], node.input[0], weights, **fields, **geometry)

    def _gemm(self, node: Any) -> None:
        if self._ints(node, "transA", [0])[0]:
            raise NmsatError.rule(self._place(node), "transA", "0", 1)
        layout = "OI" if self._ints(node, "transB", [0])[0] else "IO"
        self._linear(node, as_weights(self._weight(node, 1, layout), layout, self._place(node)))

    def _matmul(self, node: Any) -> None:
        left, right = node.input[0], node.input[1]
        if self._is_constant(right):
            self._linear(node, as_weights(self._weight(node, 1, "IO"), "IO", self._place(node)))
        elif self._is_constant(left):
            raise InputFileError(f"{self._place(node)}: must have its weights on the right")
        elif left in self.chances:
            name, sources = self.chances.pop(left)
            self._attention(node, name, [*sources, right], self._shape(node, 0), self._shape(node, 1))
        else:
            self.scores[node.output[0]] = self._name(node), [left, right]

    def _linear(self, node: Any, weights: NDArray[Any]) -> None:
        shape = self._shape(node, 0)
        oc, ic = weights.shape[0], weights.shape[3]
        if shape[-1] != ic:
            raise NmsatError.rule(self._place(node), "input", f"{ic} features by its weight", shape)
        tokens = self._samples(node, shape) // ic
        name = self._name(node, 1)
        self.net.weighted(name, "linear", node.output[0], node.input[0], weights, ic=ic, oc=oc, tokens=tokens)

    def _attention(self, node: Any, name: str, values: list[str], chances: tuple[int, ...], v: tuple[int, ...]) -> None:
        place = self._place(node)
        if len(chances) < 3 or chances[-1] != chances[-2] or v[-2] != chances[-1]:
            hint = "queries and keys must be as many"
            raise NmsatError.rule(place, "scores", "square, of 3 dimensions or more", chances, hint)
        heads, tokens = elements(chances[:-2]), chances[-1]
        if heads % self.model.batch:
            raise NmsatError.rule(place, "scores", f"of a batch of {self.model.batch}", chances)
        fields = {"heads": heads // self.model.batch, "head_dim": v[-1], "tokens": tokens}
        self.net.add(name.rpartition(".")[0] or "attention", "attention", node.output[0], values, **fields)

    def _attention_node(self, node: Any) -> None:
        shapes = [self._shape(node, place) for place in range(3)]
        heads = self._ints(node, "q_num_heads", [0])[0]
        if len(shapes[0]) == 4:
            _, heads, tokens, dim = shapes[0]
        else:
            if len(shapes[0]) != 3 or heads < 1 or shapes[0][2] % heads:
                raise NmsatError.rule(self._place(node), "q_num_heads", f"a divisor of {shapes[0][-1]}", heads)
            tokens, dim = shapes[0][1], shapes[0][2] // heads
        if shapes[1][-2] != tokens:
            raise NmsatError.rule(self._place(node), "keys", f"{tokens}, as many as queries", shapes[1][-2])
        fields = {"heads": heads, "head_dim": dim, "tokens": tokens}
        self.net.add(self._name(node), "attention", node.output[0], node.input[:3], **fields)

    # vector work

    def _each(self, node: Any, function: str, inputs: list[str] | None = None) -> None:
        output = node.output[0]
        shape = self.model.shapes.get(output) or self._shape(node, 0)
        fields = per_sample(shape, self.model.batch, self._place(node))
        name = self._name(node)
        self.net.add(name, "elementwise", output, inputs or node.input[:1], function=function, **fields)
        for extra in node.output[1:]:
            self.net.alias([extra], node.input[:1])

    def _binary(self, node: Any) -> None:
        moving = [name for name in node.input if not self._constant_value(name)]
        output = node.output[0]
        for held in (self.scores, self.chances):
            found = next((name for name in moving if name in held), None)
            if found:  # scaling and masking of attention scores
                held[output] = held.pop(found)
                return
        if self._norm(node, moving) or len(moving) < 2:
            if output not in self.net.writers:
                self._free(node)
            return
        if node.op_type in ("Add", "Sub", "Sum"):
            self._each(node, "add", moving)
        elif not self.net.gate(output, moving):
            self._each(node, "scale", moving)

    def _norm(self, node: Any, moving: list[str]) -> bool:
        """Layer norm written out: x - mean, squared, its mean, sqrt, the quotient."""
        output, kinds = node.output[0], [self.tags.get(name) for name in moving]
        if node.op_type == "Sub" and kinds[1:] == ["mean"]:
            self.tags[output] = "centred"
        elif node.op_type == "Add" and kinds == ["mean"]:
            self.tags[output] = "mean"
        elif node.op_type in ("Div", "Mul") and kinds[1:] == ["root"]:
            self._each(node, "layernorm" if kinds[0] == "centred" else "rmsnorm", moving[:1])
            return True
        elif node.op_type == "Mul" and len(moving) == 2 and moving[0] == moving[1]:
            pass  # a square
        else:
            return False
        self.net.alias([output], moving[:1])
        return True

    def _pool(self, node: Any) -> None:
        shape, place = self._shape(node, 0), self._place(node)
        if not 3 <= len(shape) <= 4:
            raise NmsatError.rule(place, "input", "(batch, channels, height, width) or 1-D", shape)
        flat = len(shape) == 3
        kernel = self._ints(node, "kernel_shape", [])
        if len(kernel) != len(shape) - 2:
            raise NmsatError.rule(place, "kernel_shape", f"{len(shape) - 2} numbers", kernel)
        strides, dilation = self._ints(node, "strides", [1, 1][flat:]), self._ints(node, "dilations", [1, 1][flat:])
        pads = self._pads(node, shape[2:], tuple(kernel), strides, dilation)
        pads = [0, pads[0], 0, pads[1]] if flat else pads
        size, window_size, strides, dilation = (self._pair(x) for x in (shape[2:], kernel, strides, dilation))
        ceil = bool(self._ints(node, "ceil_mode", [0])[0])
        edges = (pads[0], pads[1], pads[2], pads[3])
        geometry, _ = window(size, window_size, strides, edges, dilation, place, ceil)
        self._samples(node, shape)
        self._pooled(node, "maxpool" if node.op_type == "MaxPool" else "avgpool", shape[1], geometry)

    def _global_pool(self, node: Any) -> None:
        shape = self._shape(node, 0)
        h, w = self._pair(shape[2:])
        function = "maxpool" if "Max" in node.op_type else "avgpool"
        self._pooled(node, function, shape[1], {"h": h, "w": w, "kh": h, "kw": w})

    def _mean(self, node: Any) -> None:
        shape = self._shape(node, 0)
        axes = self._ints(node, "axes", [])
        if not axes and len(node.input) > 1 and self._is_constant(node.input[1]):
            axes = [int(i) for i in self._array(node.input[1]).reshape(-1)]
        axes = sorted(axis % len(shape) for axis in axes if -len(shape) <= axis < len(shape))
        if axes == [len(shape) - 1] and len(shape) != 4:
            self.net.alias(node.output, node.input[:1])
            self.tags[node.output[0]] = "mean"
        elif axes == [2, 3] and len(shape) == 4:
            self._global_pool(node)
        elif axes == [1] and len(shape) == 3:
            self._pooled(node, "avgpool", shape[2], {"h": shape[1], "kh": shape[1]})
        else:
            self._free(node)

    def _pooled(self, node: Any, function: str, channels: int, geometry: dict[str, int]) -> None:
        self.net.add(
            self._name(node), "elementwise", node.output[0], node.input[:1], function=function, oc=channels, **geometry
        )

    def _free(self, node: Any) -> None:
        """What moves or names values; other work is noted as not charged."""
        source = node.input[0] if node.input else ""
        moving = [name for name in node.input if not self._constant_value(name)]
        for held in (self.scores, self.chances):
            found = next((name for name in moving if name in held), None)
            if found:
                held[node.output[0]] = held.pop(found)
                return
        if self._is_constant(source) and node.op_type in ("Identity", "Cast", "Transpose"):
            self._fold(node, source)
        elif moving and not FREE.fullmatch(node.op_type):
            self.net.notes[f"{node.op_type} is not charged"] += 1
        if source in self.tags:
            self.tags[node.output[0]] = "root" if node.op_type in ("Sqrt", "Reciprocal") else self.tags[source]
        self.net.alias(node.output, moving)

    # constants

    def _fold(self, node: Any, source: str) -> None:
        base, order = self.folded.get(source, (source, None))
        if node.op_type == "Transpose":
            rank = len(self._array(base).shape)
            perm = tuple(self._ints(node, "perm", list(range(rank))[::-1]))
            if sorted(perm) != list(range(rank)):
                raise NmsatError.rule(self._place(node), "perm", f"a permutation of {rank} axes", perm)
            order = perm if order is None else tuple(order[i] for i in perm)
        self.folded[node.output[0]] = base, order

    def _is_constant(self, name: str) -> bool:
        return name in self.model.constants or name in self.folded or name in self.decoded

    def _constant_value(self, name: str) -> bool:
        return name == "" or name in self.fixed or self._is_constant(name)

    def _array(self, name: str) -> NDArray[Any]:
        if name in self.decoded:
            return self.decoded[name]
        return array_of(self.model.constants[name], self.model.path.parent, self.where)

    def _weight(self, node: Any, place: int, layout: str) -> NDArray[Any]:
        name = node.input[place] if len(node.input) > place else ""
        base, order = self.folded.get(name, (name, None))
        if not self._is_constant(base):
            raise InputFileError(f"{self._place(node)}: must have constant weights, {name!r} is computed")
        found = self._array(base)
        if order is not None:
            found = found.transpose(order)
        wanted = {"OI": 2, "IO": 2}.get(layout)
        if wanted and found.ndim != wanted:
            raise NmsatError.rule(self._place(node), "weight.shape", "of 2 dimensions", found.shape)
        return found

    def _dequantize(self, node: Any) -> None:
        if not self._is_constant(node.input[0]):
            self.net.alias(node.output, node.input[:1])
            return
        values = [self._array(name).astype(np.float32) for name in node.input if name and self._is_constant(name)]
        axis = self._ints(node, "axis", [1])[0]
        base, scale = values[0], values[1] if len(values) > 1 else np.float32(1)
        zero = values[2] if len(values) > 2 else np.zeros_like(scale)
        if scale.size > 1:
            axis %= max(base.ndim, 1)
            if scale.shape != base.shape[axis : axis + 1] or zero.shape != scale.shape:
                raise NmsatError.rule(
                    self._place(node), "scale", f"one, or {base.shape[axis]} along {axis}", scale.shape
                )
            shape = [-1 if i == axis else 1 for i in range(base.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        self.decoded[node.output[0]] = (base - zero) * scale

    # facts of a node

    def _shape(self, node: Any, place: int) -> tuple[int, ...]:
        name = node.input[place] if len(node.input) > place else ""
        shape = self.model.shapes.get(name)
        if not shape or min(shape) < 1:
            raise InputFileError(f"{self._place(node)}: the shape of its input {name!r} must be known, and is not")
        return shape

    def _samples(self, node: Any, shape: tuple[int, ...]) -> int:
        """Elements of one sample."""
        if elements(shape) % self.model.batch:
            raise NmsatError.rule(self._place(node), "input", f"of a batch of {self.model.batch}", shape)
        return elements(shape) // self.model.batch

    def _ints(self, node: Any, name: str, default: list[int]) -> list[int]:
        for attribute in node.attribute:
            if attribute.name == name:
                found = list(attribute.ints) if attribute.type == 7 else [attribute.i]
                if attribute.type not in (2, 7) or (default and len(found) != len(default)):
                    raise NmsatError.rule(self._place(node), name, f"{len(default) or 'some'} integers", found)
                return found
        return list(default)

    def _pads(
        self, node: Any, size: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], dilation: list[int]
    ) -> list[int]:
        """(begin of every axis, end of every axis)."""
        mode = next((a.s.decode("ascii", "replace") for a in node.attribute if a.name == "auto_pad"), "NOTSET")
        if mode in ("NOTSET", ""):
            return self._ints(node, "pads", [0] * (2 * len(size)))
        if mode == "VALID":
            return [0] * (2 * len(size))
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            raise NmsatError.rule(self._place(node), "auto_pad", "NOTSET, VALID, SAME_UPPER or SAME_LOWER", mode)
        begin, end = [], []
        for length, k, step, spread in zip(size, kernel, strides, dilation, strict=True):
            total = max((-(-length // max(step, 1)) - 1) * step + (k - 1) * spread + 1 - length, 0)
            begin.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
            end.append(total - begin[-1])
        return begin + end

    @staticmethod
    def _pair(values: Any) -> tuple[int, int]:
        """The two image axes; a 1-D value has height 1."""
        found = [int(i) for i in values]
        return (1, found[0]) if len(found) == 1 else (found[0], found[1])

    def _name(self, node: Any, weight: int | None = None) -> str:
        """The name the network's maker gave: its weight's, else its node's, else its operator's."""
        if weight is not None and len(node.input) > weight:
            base = self.folded.get(node.input[weight], (node.input[weight], None))[0]
            if not UNTELLING.search(base):
                return re.sub(r"\.(weight|kernel)$", "", base)
            for reader in self.readers.get(node.output[0], []):
                for name in reader.input:
                    if reader.op_type == "Add" and name in self.model.constants and name.endswith(".bias"):
                        return name.removesuffix(".bias")
        parts = node.name.strip("/").split("/")
        if len(parts) > 1 and parts[-1].split("_")[0] in (node.op_type, *ACTIVATIONS, *CHARGED_AS):
            return ".".join(parts[:-1] if weight is not None else [*parts[:-1], parts[-1].lower()])
        return node.name.removeprefix("node_").strip("/").lower() or node.op_type.lower()

    def _place(self, node: Any) -> str:
        return f"{self.where}: {node.op_type} {(node.name or (node.output[0] if node.output else ''))[:80]}"
