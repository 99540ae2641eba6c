"""Constants of an ONNX model: decoded only after their lengths have been held to their shapes and to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputFileError, NmsatError
from .network import elements

FLOAT, UINT8, INT8, INT32, INT64, FLOAT16, DOUBLE, BFLOAT16 = 1, 2, 3, 6, 7, 10, 11, 16
DTYPES = {
    FLOAT: "<f4",
    UINT8: "u1",
    INT8: "i1",
    INT32: "<i4",
    INT64: "<i8",
    FLOAT16: "<f2",
    DOUBLE: "<f8",
    BFLOAT16: "<u2",
}
MAX_RANK = 8


def shape_of(tensor: Any, where: str) -> tuple[int, ...]:
    """Shape of a TensorProto; a negative or absurd one is an InputFileError."""
    shape = tuple(tensor.dims)
    if len(shape) > MAX_RANK or any(length < 0 for length in shape) or elements(shape) > 2**40:
        raise NmsatError.rule(
            f"{where}: {tensor.name}", "dims", f"at most {MAX_RANK} lengths, at most 2^40 values", shape
        )
    return shape


def array_of(tensor: Any, folder: Path, where: str) -> NDArray[Any]:
    """Values of a TensorProto.

    Raises
    ------
    InputFileError
        For another data type, a length that is not the shape's, or external data that is missing, too short or
        outside the model's folder.
    """
    place = f"{where}: {tensor.name}"
    shape = shape_of(tensor, where)
    if tensor.data_type not in DTYPES:
        raise NmsatError.rule(place, "data_type", "float, float16, bfloat16, double, int8 to int64", tensor.data_type)
    dtype = np.dtype(DTYPES[tensor.data_type])
    count = elements(shape)
    if tensor.data_location == 1:
        raw = _external(tensor, folder, count * dtype.itemsize, place)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        return _typed(tensor, count, dtype, place).reshape(shape)
    if len(raw) != count * dtype.itemsize:
        raise InputFileError(f"{place}: must hold the {count * dtype.itemsize} bytes of its shape, not {len(raw)}")
    return _decoded(np.frombuffer(raw, dtype), tensor.data_type).reshape(shape)


def _typed(tensor: Any, count: int, dtype: np.dtype[Any], place: str) -> NDArray[Any]:
    fields = {FLOAT: "float_data", DOUBLE: "double_data", INT64: "int64_data"}
    values = getattr(tensor, fields.get(tensor.data_type, "int32_data"))
    if len(values) != count:
        raise InputFileError(f"{place}: must hold the {count} values of its shape, not {len(values)}")
    if tensor.data_type in (FLOAT, DOUBLE, INT64, INT32):
        return np.array(values, dtype)
    bits = np.array(values, np.int64)  # float16 and bytes travel as integers
    limits = {1: (-128, 255), 2: (0, 65535)}[dtype.itemsize]
    if count and not limits[0] <= int(bits.min()) <= int(bits.max()) <= limits[1]:
        raise InputFileError(f"{place}: must hold {dtype.itemsize}-byte values")
    plain = bits.astype(f"<u{dtype.itemsize}")
    return _decoded(plain.view(dtype), tensor.data_type)


def _decoded(values: NDArray[Any], data_type: int) -> NDArray[Any]:
    if data_type == BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _external(tensor: Any, folder: Path, size: int, place: str) -> bytes:
    facts = {entry.key: entry.value for entry in tensor.external_data}
    name = facts.get("location", "")
    base = folder.resolve()
    try:
        path = (base / name).resolve()
        inside = bool(name) and path.is_relative_to(base) and path.is_file()
    except (OSError, ValueError, RuntimeError):
        inside, path = False, base
    if not inside:
        raise NmsatError.rule(place, "external data", "a file in the model's folder", name)
    numbers = {}
    for key, default in (("offset", 0), ("length", size)):
        text = facts.get(key, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise NmsatError.rule(place, f"external data {key}", "a number of bytes", text)
        numbers[key] = int(text)
    held = path.stat().st_size
    if numbers["length"] != size or numbers["offset"] + size > held:
        rule = f"the {size} bytes of the shape, inside the {held} of {path.name}"
        raise NmsatError.rule(place, "external data", rule, f"{numbers['length']} at {numbers['offset']}")
    with open(path, "rb") as file:
        file.seek(numbers["offset"])
        return file.read(size)
