"""Walking an exported ATen graph, as traced or decomposed: products, attention and vector work become layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import InputFileError, NmsatError
from .aten_ops import ACTIVATIONS, CHARGED_AS, MOVES, NUMBERS, POOLS, REFUSED, SIMPLE
from .network import Network, as_weights, conv_fields, elements, per_sample, window
from .pt2_file import Program, parse, tensor_names


def read_pt2(path: Path) -> Network:
    """Read the products of an exported program, with their weights, and what lies between them.

    Raises
    ------
    InputFileError
        For a file that is no archive of torch.export, a layer that a workload cannot hold, or sizes that lie.
    """
    return _Walker(parse(path)).walk()


class _Walker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.where = str(program.archive.path)
        self.net = Network(self.where, tool=program.tool)
        self.folded: dict[str, tuple[str, tuple[int, ...] | None]] = {}  # value -> (constant, permutation)
        self.scores: dict[str, tuple[str, list[str]]] = {}  # value -> (name, [q, k]): a softmax must follow
        self.chances: dict[str, tuple[str, list[str]]] = {}  # after that softmax: a product with v must follow
        self.fixed: set[str] = set()
        self.handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            **dict.fromkeys(("conv1d", "conv2d", "convolution"), self._conv),
            "linear": self._linear_node,
            **dict.fromkeys(("addmm", "mm", "bmm", "matmul"), self._matmul),
            "scaled_dot_product_attention": self._attention_node,
            "_scaled_dot_product_flash_attention_for_cpu": self._attention_node,
            **dict.fromkeys(POOLS, self._pool),
            "mean": self._mean,
        }

    def walk(self) -> Network:
        known = {*self.program.inputs, *self.program.tensors}
        for expression in self.program.opened:
            self.net.notes[f"open size {expression} is what it was at the export"] += 1
        for node in self.program.nodes:
            node["op"] = _operator(node["target"])
            place = self._place(node)
            node["tensors"] = [name for arg in node["inputs"].values() for name in tensor_names(arg, place)]
            for name in node["tensors"]:
                if name not in known:
                    raise InputFileError(f"{place}: must read values written before it, not {name!r}")
            known.update(node["outputs"])
            if node["outputs"]:
                self._node(node)
        for name, _ in (*self.scores.values(), *self.chances.values()):
            hint = "only attention multiplies two activations"
            raise InputFileError(f"{self.where}: {name}: must be followed by a softmax and a product; {hint}")
        return self.net

    def _node(self, node: dict[str, Any]) -> None:
        op, tensors = node["op"], node["tensors"]
        if REFUSED.fullmatch(op) or "higher_order" in node["target"] or "quantized" in node["target"]:
            raise InputFileError(f"{self._place(node)}: {op} is not supported; it holds products nobody would count")
        if MOVES.fullmatch(op) and tensors and self._is_constant(tensors[0]):
            self._fold(node)
        elif NUMBERS.fullmatch(op) or all(self._constant_value(name) for name in tensors):
            self.fixed.update(node["outputs"])
        elif op in self.handlers:
            self.handlers[op](node)
        elif "softmax" in op and tensors[0] in self.scores:
            self.chances[node["outputs"][0]] = self.scores.pop(tensors[0])
        elif op in ACTIVATIONS:
            self._each(node, ACTIVATIONS[op], tensors[:1])
        elif op in CHARGED_AS:
            self.net.notes[f"{op} is charged as {CHARGED_AS[op]}"] += 1
            self._each(node, CHARGED_AS[op], tensors[:1])
        elif SIMPLE.fullmatch(op):
            self._simple(node)
        else:
            if not MOVES.fullmatch(op):
                self.net.notes[f"{op} is not charged"] += 1
            self._moved(node)

    # products

    def _conv(self, node: dict[str, Any]) -> None:
        place = self._place(node)
        if self._value(node, "transposed", False):
            raise InputFileError(f"{place}: a transposed convolution is not supported")
        x, w = self._tensor(node, "input"), self._tensor(node, "weight")
        weights, shape = self._weight(node, w), self._shape(node, x)
        if not 3 <= len(shape) <= 4 or len(shape) != weights.ndim:
            raise NmsatError.rule(place, "input", "(batch, channels, height, width) or 1-D", shape)
        axes = len(shape) - 2
        kernel, size = tuple(weights.shape[2:]), shape[2:]
        strides, dilation = (self._spread(node, key, 1, axes) for key in ("stride", "dilation"))
        mode = self._value(node, "padding", 0)
        if isinstance(mode, str):
            if mode not in ("same", "valid"):
                raise NmsatError.rule(place, "padding", "same, valid or integers", mode)
            total = [d * (k - 1) if mode == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
            pads = [t // 2 for t in total] + [t - t // 2 for t in total]  # torch pads the end where it is odd
        else:
            pads = self._spread(node, "padding", 0, axes) * 2
        if axes == 1:
            weights, pads = weights[:, :, None, :], [0, pads[0], 0, pads[1]]
        weights = as_weights(weights, "OIHW", place)
        op, fields = conv_fields(weights, shape[1], self._integer(node, "groups", 1), place)
        pairs = [_pair(values) for values in (size, kernel, strides, dilation)]
        geometry, exact = window(pairs[0], pairs[1], pairs[2], (pads[0], pads[1], pads[2], pads[3]), pairs[3], place)
        if not exact:
            self.net.notes["convolutions with other padding or dilation are given the input size that fits"] += 1
        self._samples(node, shape)
        self.net.weighted(self._weight_name(w), op, node["outputs"][0], x, weights, **fields, **geometry)

    def _linear_node(self, node: dict[str, Any]) -> None:
        x, w = self._tensor(node, "input"), self._tensor(node, "weight")
        self._linear(node, x, w, as_weights(self._weight(node, w), "OI", self._place(node)))

    def _matmul(self, node: dict[str, Any]) -> None:
        keys = ("mat1", "mat2") if node["op"] == "addmm" else ("self", "mat2" if node["op"] != "matmul" else "other")
        left, right = (self._tensor(node, key) for key in keys)
        if self._is_constant(right):
            self._linear(node, left, right, as_weights(self._weight(node, right), "IO", self._place(node)))
        elif self._is_constant(left):
            raise InputFileError(f"{self._place(node)}: must have its weights on the right")
        elif left in self.chances:
            name, sources = self.chances.pop(left)
            self._attention(node, name, [*sources, right], self._shape(node, left), self._shape(node, right))
        else:
            self.scores[node["outputs"][0]] = node["outputs"][0], [left, right]

    def _linear(self, node: dict[str, Any], x: str, w: str, weights: NDArray[Any]) -> None:
        shape = self._shape(node, x)
        oc, ic = weights.shape[0], weights.shape[3]
        if shape[-1] != ic:
            raise NmsatError.rule(self._place(node), "input", f"{ic} features by its weight", shape)
        tokens = self._samples(node, shape) // ic
        fields = {"ic": ic, "oc": oc, "tokens": tokens}
        self.net.weighted(self._weight_name(w), "linear", node["outputs"][0], x, weights, **fields)

    def _attention(
        self, node: dict[str, Any], name: str, values: list[str], chances: tuple[int, ...], v: tuple[int, ...]
    ) -> None:
        place = self._place(node)
        if len(chances) < 3 or len(v) < 2 or chances[-1] != chances[-2] or v[-2] != chances[-1]:
            hint = "queries and keys must be as many"
            raise NmsatError.rule(place, "scores", "square, of 3 dimensions or more", chances, hint)
        heads, tokens = elements(chances[:-2]), chances[-1]
        if heads % self.program.batch:
            raise NmsatError.rule(place, "scores", f"of a batch of {self.program.batch}", chances)
        fields = {"heads": heads // self.program.batch, "head_dim": v[-1], "tokens": tokens}
        self.net.add(f"attention.{name}", "attention", node["outputs"][0], values, **fields)

    def _attention_node(self, node: dict[str, Any]) -> None:
        q, k, v = (self._tensor(node, key) for key in ("query", "key", "value"))
        shape, keys = self._shape(node, q), self._shape(node, k)
        if len(shape) < 3 or len(keys) < 3 or keys[-2] != shape[-2]:
            raise NmsatError.rule(self._place(node), "keys", "as many as queries, of 3 dimensions or more", keys)
        chances = (*shape[:-1], shape[-2])
        self._attention(node, node["outputs"][0], [q, k, v], chances, self._shape(node, v))

    # vector work

    def _each(self, node: dict[str, Any], function: str, inputs: list[str]) -> None:
        output = node["outputs"][0]
        fields = per_sample(self._shape(node, output), self.program.batch, self._place(node))
        self.net.add(output, "elementwise", output, inputs, function=function, **fields)
        self.net.alias(node["outputs"][1:], inputs)

    def _simple(self, node: dict[str, Any]) -> None:
        moving = [name for name in node["tensors"] if not self._constant_value(name)]
        if self._held(node, moving):
            return
        output, op = node["outputs"][0], node["op"].removesuffix("_")
        if len(moving) < 2 or op not in ("add", "sub", "mul", "div") or moving[0] == moving[1]:
            self._moved(node)
        elif op in ("add", "sub"):
            self._each(node, "add", moving)
        elif not self.net.gate(output, moving):
            self._each(node, "scale", moving)

    def _held(self, node: dict[str, Any], moving: list[str]) -> bool:
        """Scaling, masking and reshaping of attention's scores or chances keeps them what they are."""
        for held in (self.scores, self.chances):
            found = next((name for name in moving if name in held), None)
            if found:
                held[node["outputs"][0]] = held.pop(found)
                return True
        return False

    def _moved(self, node: dict[str, Any]) -> None:
        moving = [name for name in node["tensors"] if not self._constant_value(name)]
        if not self._held(node, moving):
            self.net.alias(node["outputs"], moving)

    def _pool(self, node: dict[str, Any]) -> None:
        x = self._tensor(node, "self")
        shape, place, function = self._shape(node, x), self._place(node), POOLS[node["op"]]
        if not 3 <= len(shape) <= 4:
            raise NmsatError.rule(place, "input", "(batch, channels, height, width) or 1-D", shape)
        axes, size = len(shape) - 2, _pair(shape[2:])
        if "adaptive" in node["op"]:
            out = _pair(self._shape(node, node["outputs"][0])[2:])
            if min(out) < 1 or any(s % o for s, o in zip(size, out, strict=True)):
                raise NmsatError.rule(place, "output_size", f"a divisor of {size}", out)
            kernel = (size[0] // out[0], size[1] // out[1])
            strides, pads, dilation, ceil = kernel, (0, 0, 0, 0), (1, 1), False
            if strides[0] != strides[1]:  # one window an axis: any stride will do
                strides = (max(strides), max(strides)) if 1 in out else strides
        else:
            kernel = _pair(self._spread(node, "kernel_size", None, axes))
            strides = _pair(self._spread(node, "stride", None, axes)) if self._given(node, "stride") else kernel
            pad = self._spread(node, "padding", 0, axes)
            pads = (pad[0], pad[1], pad[0], pad[1]) if axes == 2 else (0, pad[0], 0, pad[0])
            dilation = _pair(self._spread(node, "dilation", 1, axes))
            ceil = bool(self._value(node, "ceil_mode", False))
        geometry, _ = window(size, kernel, strides, pads, dilation, place, ceil)
        self._samples(node, shape)
        self._pooled(node, function, x, shape[1], geometry)

    def _mean(self, node: dict[str, Any]) -> None:
        x = self._tensor(node, "self")
        shape = self._shape(node, x)
        axes = sorted(axis % len(shape) for axis in self._integers(node, "dim", []) if -8 <= axis < 8)
        if axes == [2, 3] and len(shape) == 4:
            h, w = shape[2:]
            self._pooled(node, "avgpool", x, shape[1], {"h": h, "w": w, "kh": h, "kw": w})
        elif axes == [1] and len(shape) == 3:
            self._pooled(node, "avgpool", x, shape[2], {"h": shape[1], "kh": shape[1]})
        else:
            self.net.notes["mean over other axes is not charged"] += 1
            self._moved(node)

    def _pooled(self, node: dict[str, Any], function: str, x: str, channels: int, geometry: dict[str, int]) -> None:
        output = node["outputs"][0]
        self.net.add(output, "elementwise", output, [x], function=function, oc=channels, **geometry)
        self.net.alias(node["outputs"][1:], [x])

    # constants

    def _fold(self, node: dict[str, Any]) -> None:
        """A weight that is only transposed, or repeated for a batched product, is still that weight."""
        source, output = node["tensors"][0], node["outputs"][0]
        base, order = self.folded.get(source, (source, None))
        rank = len(self._shape(node, base))
        if node["op"] in ("t", "numpy_t", "mT", "transpose", "permute"):
            if order is not None and len(self.program.shapes.get(source, ())) != rank:
                raise InputFileError(f"{self._place(node)}: must not transpose a weight that was reshaped")
            perm = self._permutation(node, rank)
            order = perm if order is None else tuple(order[i] for i in perm)
        elif self.program.shapes.get(output, ())[-2:] != self.program.shapes.get(source, ())[-2:]:
            self.fixed.add(output)
            return
        self.folded[output] = base, order

    def _permutation(self, node: dict[str, Any], rank: int) -> tuple[int, ...]:
        places = list(range(rank))
        if node["op"] == "permute":
            places = [axis + rank if axis < 0 else axis for axis in self._integers(node, "dims", [])]
        elif node["op"] == "transpose":
            one, two = (self._integer(node, key, 0) for key in ("dim0", "dim1"))
            if -rank <= min(one, two) and max(one, two) < rank:
                places[one], places[two] = places[two], places[one]
        else:
            places = places[:-2] + places[-2:][::-1]
        if sorted(places) != list(range(rank)):
            raise NmsatError.rule(self._place(node), "dims", f"a permutation of {rank} axes", places)
        return tuple(places)

    def _is_constant(self, name: str) -> bool:
        return name in self.program.tensors or name in self.folded

    def _constant_value(self, name: str) -> bool:
        return name in self.fixed or self._is_constant(name)

    def _weight(self, node: dict[str, Any], name: str) -> NDArray[Any]:
        base, order = self.folded.get(name, (name, None))
        if base not in self.program.tensors:
            raise InputFileError(f"{self._place(node)}: must have constant weights, {name!r} is computed")
        found = self.program.archive.array(self.program.tensors[base])
        if found.shape != self.program.shapes.get(base):
            rule = f"of shape {self.program.shapes.get(base)}, as the program says"
            raise NmsatError.rule(self._place(node), "weight", rule, found.shape)
        return found if order is None else found.transpose(order)

    def _weight_name(self, value: str) -> str:
        base = self.folded.get(value, (value, None))[0]
        return self.program.tensors[base].removesuffix(".weight")

    # facts of a node

    def _tensor(self, node: dict[str, Any], key: str) -> str:
        found = tensor_names(node["inputs"].get(key, {}), self._place(node))
        if len(found) != 1:
            raise NmsatError.rule(self._place(node), key, "one tensor", found)
        return found[0]

    def _shape(self, node: dict[str, Any], name: str) -> tuple[int, ...]:
        shape = self.program.shapes.get(name)
        if not shape or min(shape) < 1:
            raise InputFileError(f"{self._place(node)}: the shape of {name!r} must be known and not empty")
        return shape

    def _samples(self, node: dict[str, Any], shape: tuple[int, ...]) -> int:
        """Elements of one sample."""
        if elements(shape) % self.program.batch:
            raise NmsatError.rule(self._place(node), "input", f"of a batch of {self.program.batch}", shape)
        return elements(shape) // self.program.batch

    def _given(self, node: dict[str, Any], key: str) -> bool:
        return self._value(node, key, None) not in (None, [])

    def _value(self, node: dict[str, Any], key: str, default: Any) -> Any:
        arg = node["inputs"].get(key)
        if arg is None or "as_none" in arg:
            return default
        return next((arg[k] for k in ("as_int", "as_ints", "as_bool", "as_float", "as_string") if k in arg), default)

    def _integers(self, node: dict[str, Any], key: str, default: list[int]) -> list[int]:
        found = self._value(node, key, default)
        found = [found] if isinstance(found, int) else found
        if not isinstance(found, list) or not all(type(i) is int and -(2**31) < i < 2**31 for i in found):
            raise NmsatError.rule(self._place(node), key, "integers", str(found)[:80])
        return found

    def _integer(self, node: dict[str, Any], key: str, default: int) -> int:
        found = self._integers(node, key, [default])
        if len(found) != 1:
            raise NmsatError.rule(self._place(node), key, "one integer", found)
        return found[0]

    def _spread(self, node: dict[str, Any], key: str, default: int | None, axes: int) -> list[int]:
        """One number an axis; a single number stands for all."""
        found = self._integers(node, key, [] if default is None else [default])
        found = found * axes if len(found) == 1 else found
        if len(found) != axes:
            raise NmsatError.rule(self._place(node), key, f"{axes} integers", found)
        return found

    def _place(self, node: dict[str, Any]) -> str:
        return f"{self.where}: {node['op']} {node['outputs'][0][:80] if node['outputs'] else ''}".rstrip()


def _operator(target: str) -> str:
    """``torch.ops.aten.conv2d.default`` is conv2d; Python operators are their names."""
    parts = target.split(".")
    return parts[3] if len(parts) > 3 and parts[:2] == ["torch", "ops"] else parts[-1]


def _pair(values: Any) -> tuple[int, int]:
    """The two image axes; a 1-D value has height 1."""
    found = [int(i) for i in values]
    return (1, found[0]) if len(found) == 1 else (found[0], found[1])
