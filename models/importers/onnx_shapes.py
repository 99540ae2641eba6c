"""Shapes of an ONNX graph's values: onnx's own inference, helped where sizes are computed from sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputFileError

MAX_VALUES = 64  # of a computed size
MAX_ROUNDS = 256  # a round resolves at least the next layer whose sizes were unknown

Values = NDArray[Any]


def infer_shapes(onnx: Any, model: Any, constants: dict[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    """Static shapes by value name; those that stay unknown are left out.

    Parameters
    ----------
    model : ModelProto
        Without large constants; changed: computed sizes become constants.
    constants : dict of str to TensorProto
        Of the whole graph.

    Raises
    ------
    InputFileError
        If onnx's inference refuses the graph.
    """
    values = {tensor.name: _small(onnx, tensor) for tensor in model.graph.initializer}
    values |= {name: _small(onnx, tensor) for name, tensor in constants.items() if name not in values}
    known = {name: value for name, value in values.items() if value is not None}
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(MAX_ROUNDS):
        shapes = _infer(onnx, model, where)
        fresh = {}
        for node in model.graph.node:
            if len(node.output) == 1 and node.output[0] not in known:
                value = _evaluate(node, known, shapes)
                if value is not None:
                    known[node.output[0]] = fresh[node.output[0]] = value
        if not fresh:
            break
        kept = [node for node in model.graph.node if node.output[:1] != [] and node.output[0] not in fresh]
        if len(kept) == len(model.graph.node):
            break
        del model.graph.node[:]
        model.graph.node.extend(kept)
        for name, value in fresh.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            shapes[name] = value.shape
    return shapes | {name: tuple(value.shape) for name, value in known.items() if value.ndim}


def static_shape(value: Any) -> tuple[int, ...] | None:
    """Shape of a ValueInfoProto, or None where a size is open."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]
    return tuple(sizes) if all(size >= 1 for size in sizes) else None


def _infer(onnx: Any, model: Any, where: str) -> dict[str, tuple[int, ...]]:
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # the C++ side raises its own kinds
        lines = [part for part in str(error).splitlines() if part.strip()]
        reason = (lines[0] if lines else type(error).__name__)[:200]
        raise InputFileError(f"{where}: shapes must be inferable; {reason}") from None
    found = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shape = static_shape(value)
        if shape is not None:
            found[value.name] = shape
    return found


def _small(onnx: Any, tensor: Any) -> Values | None:
    """A short constant of integers or one float; None for anything else."""
    if len(tensor.dims) > 1 or len(tensor.raw_data) > 8 * MAX_VALUES or tensor.data_location == 1:
        return None
    if any(not 0 <= length <= MAX_VALUES for length in tensor.dims) or tensor.data_type not in (1, 6, 7):
        return None
    try:
        return onnx.numpy_helper.to_array(tensor)
    except Exception:  # lengths that lie; whoever needs the constant says so
        return None


def _evaluate(node: Any, known: dict[str, Values], shapes: dict[str, tuple[int, ...]]) -> Values | None:
    if node.op_type == "Shape":
        shape = shapes.get(node.input[0]) if node.input else None
        if shape is None:
            return None
        bounds = {a.name: a.i for a in node.attribute}
        return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)
    rule = _RULES.get(node.op_type)
    if rule is None or not node.input or any(name and name not in known for name in node.input):
        return None
    try:
        found = np.asarray(rule({a.name: a for a in node.attribute}, *[known[name] for name in node.input if name]))
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError):
        return None  # no size the graph needs, or the inference above says why
    return found if found.size <= MAX_VALUES and found.ndim <= 1 else None


def _slice(_: Any, values: Values, starts: Values, ends: Values, *rest: Values) -> Values:
    step = int(rest[1][0]) if len(rest) > 1 else 1
    return values[int(starts[0]) : max(min(int(ends[0]), 2**31), -(2**31)) : step]


def _divide(_: Any, left: Values, right: Values) -> Values:
    if not np.all(right):
        raise ValueError("a size divided by zero")
    return left // right if left.dtype.kind == "i" and right.dtype.kind == "i" else left / right


def _cast(attributes: Any, values: Values) -> Values:
    return values.astype({1: np.float32, 6: np.int32, 7: np.int64}[attributes["to"].i])


_RULES: dict[str, Callable[..., Any]] = {
    "Gather": lambda _, values, places: values[places],
    "Unsqueeze": lambda _, value, *axes: value.reshape(-1),
    "Squeeze": lambda _, value, *axes: value.reshape(()) if value.size == 1 else value,
    "Concat": lambda _, *parts: np.concatenate(parts),
    "Slice": _slice,
    "Cast": _cast,
    "Add": lambda _, left, right: left + right,
    "Sub": lambda _, left, right: left - right,
    "Mul": lambda _, left, right: left * right,
    "Div": _divide,
    "Floor": lambda _, value: np.floor(value),
    "Ceil": lambda _, value: np.ceil(value),
    "Identity": lambda _, value: value,
}
