"""What a program read from a file must be before anything walks it: names that exist, tensors that are arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..models.errors import NmsatError
from .program import FUNCTIONS, Kind, Mode, Order, Program, Stage, Tensor

DTYPES = ("float16", "float32", "int32", "uint8")
ADDRESSES = 1 << 48
"""Tensors lie below this byte address; memory of that size is not allocated anywhere."""


def check_program(program: Program) -> None:
    """Raise NmsatError unless every enumerated field has a meaning and every tensor is an array at an address.

    Sizes, strides and addresses of descriptors are the executor's to check: it holds every access to a tensor.
    """
    for tensor in program.tensors:
        _tensor(tensor)
    if not all(isinstance(name, str) for name in program.layers):
        raise NmsatError.rule("program", "layers", "names", list(program.layers))
    for place, item in enumerate(program.descriptors):
        where = f"descriptor {place}"
        _below(f"{where}: layer", item["layer"], len(program.layers))
        _below(f"{where}: stage", item["stage"], len(Stage))
        if item.kind is Kind.END:
            raise NmsatError.rule("program", where, "before the only END, the last", "END")
        if item.kind is Kind.PRODUCT:
            _below(f"{where}: mode", item["mode"], len(Mode))
            _below(f"{where}: order", item["order"], len(Order))
        if item.kind in (Kind.VECTOR, Kind.HOST):
            _below(f"{where}: steps", max(item["steps"].to_bytes(8, "little")), len(FUNCTIONS) + 1)


def _below(field: str, value: int, limit: int) -> None:
    if value >= limit:
        raise NmsatError.rule("program", field, f"below {limit}", value)


def _tensor(tensor: Tensor) -> None:
    where = f"tensor {tensor.name!r}"
    if tensor.dtype not in DTYPES:
        raise NmsatError.rule("program", f"{where}: dtype", f"one of {', '.join(DTYPES)}", tensor.dtype)
    for name, value in (("address", tensor.address), ("bytes", tensor.bytes)):
        if not (_whole(value) and value < ADDRESSES):
            raise NmsatError.rule(
                "program", f"{where}: {name}", f"a whole number from 0 to below {ADDRESSES:#x}", value
            )
    size = np.dtype(tensor.dtype).itemsize
    if not all(map(_whole, tensor.shape)) or math.prod(tensor.shape) * size != tensor.bytes:
        rule = f"of {tensor.bytes // size} elements, {tensor.bytes} bytes"
        raise NmsatError.rule("program", f"{where}: shape", rule, list(tensor.shape))
    if tensor.address % size:
        raise NmsatError.rule("program", f"{where}: address", f"a multiple of {size}", tensor.address)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
