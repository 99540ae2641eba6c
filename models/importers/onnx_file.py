"""Reading an ONNX file: parse, fix the batch, infer shapes; the graph is walked by :mod:`.onnx_graph`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputFileError, MissingToolError, NmsatError
from ..stages import SIZE_LIMIT
from .onnx_shapes import infer_shapes, static_shape
from .onnx_tensors import shape_of

MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit; larger weights travel as external data
INLINE_ELEMENTS = 1024  # constants up to here stay in the model that shapes are inferred on


@dataclass
class Model:
    """A parsed model.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Static shapes of values, the batch included.
    batch : int
        First dimension of the inputs: 1 where the file leaves it open.
    constants : dict of str to TensorProto
        Initializers and the values of Constant nodes.
    """

    path: Path
    nodes: list[Any]
    inputs: list[str]
    batch: int
    tool: str
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)


def parse(path: Path, dims: Mapping[str, int] | None = None) -> Model:
    """Read a model and the shapes of its values.

    Parameters
    ----------
    dims : mapping of str to int
        Values of symbolic dimensions other than the batch.

    Raises
    ------
    InputFileError
        If the file is no ONNX model, its shapes cannot be inferred, or an input leaves more than its batch open.
    MissingToolError
        Without the ``onnx`` package.
    """
    try:
        import onnx
    except ImportError:
        raise MissingToolError("ONNX files need the onnx package; pip install 'nmsat[onnx]'") from None
    where = str(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(_content(path))
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise InputFileError(f"{where}: must be an ONNX model; {_line(error)}") from None
    if not model.graph.node:
        raise InputFileError(f"{where}: must be an ONNX model with nodes, not an empty one")
    _check_text(model, where)
    if model.functions:
        model = _inlined(model, where)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.HasField("t"):
                    constants[node.output[0]] = attribute.t
    inputs = [value for value in model.graph.input if value.name not in constants]
    batch = _fix_batch(inputs, dims or {}, where)
    known = {value.name: static_shape(value) for value in model.graph.value_info}
    light = _light(onnx, model, inputs, where)
    shapes = {name: shape for name, shape in known.items() if shape}
    shapes |= infer_shapes(onnx, light, constants, where)
    shapes |= {name: shape_of(tensor, where) for name, tensor in constants.items()}
    tool = f"{model.producer_name} {model.producer_version}".strip()[:256]
    return Model(path, list(model.graph.node), [v.name for v in inputs], batch, tool, shapes, constants)


def _check_text(model: Any, where: str) -> None:
    """Refuse names that are no UTF-8, which protobuf hands on as bytes or fails on when they are read."""
    graph = model.graph
    try:
        texts = [model.producer_name, model.producer_version, *(entry.domain for entry in model.opset_import)]
        for node in graph.node:
            texts += [node.op_type, node.name, node.domain, *node.input, *node.output]
            texts += [attribute.name for attribute in node.attribute]
        for tensor in graph.initializer:
            texts.append(tensor.name)
            texts += [text for entry in tensor.external_data for text in (entry.key, entry.value)]
        for value in (*graph.input, *graph.output, *graph.value_info):
            texts += [value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)]
    except UnicodeDecodeError:
        texts = [b""]
    if not all(isinstance(text, str) for text in texts):
        raise InputFileError(f"{where}: must be an ONNX model; a name in it is not UTF-8")


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputFileError(f"{path}: must be at most {MAX_FILE_BYTES} bytes, not {size}; use external data")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputFileError(f"{path}: must be an existing file; there is none of that name") from None
    except OSError as error:
        raise InputFileError(f"{path}: must be readable; {error.strerror}") from None


def _inlined(model: Any, where: str) -> Any:
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        raise InputFileError(f"{where}: functions must be inlinable; {_line(error)}") from None


def _fix_batch(inputs: list[Any], dims: Mapping[str, int], where: str) -> int:
    """Give every open dimension a number; the first one of every input is the batch."""
    fixed: set[int] = set()
    for value in inputs:
        shape = value.type.tensor_type.shape.dim
        if len(shape) > 1 and shape[0].HasField("dim_value"):
            fixed.add(shape[0].dim_value)
    if len(fixed) > 1:
        raise NmsatError.rule(where, "inputs", "of one batch size", sorted(fixed))
    batch = fixed.pop() if fixed else 1
    if not 1 <= batch <= 2**20:
        raise NmsatError.rule(where, "inputs", "of a batch from 1 to 1048576", batch)
    for value in inputs:
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                if not 1 <= dim.dim_value <= SIZE_LIMIT:
                    raise NmsatError.rule(where, f"input {value.name}", f"sizes from 1 to {SIZE_LIMIT}", dim.dim_value)
                continue
            name = dim.dim_param
            if place == 0:
                dim.dim_value = batch
            elif name in dims:
                dim.dim_value = dims[name]
            else:
                shown = name or "unnamed"
                hint = f"give it with --dim {name or 'NAME'}=NUMBER" if name else "export with static sizes"
                raise NmsatError.rule(where, f"input {value.name}", "open in its batch alone", shown, hint)
    return batch


def _light(onnx: Any, model: Any, inputs: list[Any], where: str) -> Any:
    """The model without its large constants and its own shapes, which may speak of an open batch."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.graph.name = "shapes"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(inputs)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) <= 8 * INLINE_ELEMENTS and tensor.data_location != 1:
            light.graph.initializer.append(tensor)
        else:
            shape = shape_of(tensor, where)
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    for value in model.graph.output:
        light.graph.output.append(onnx.ValueInfoProto(name=value.name))
    return light


def _line(error: Exception) -> str:
    lines = [part for part in str(error).splitlines() if part.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
