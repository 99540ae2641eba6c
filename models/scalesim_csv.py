"""Reader of SCALE-Sim topology files: convolution and GEMM forms."""

from __future__ import annotations

import csv
from pathlib import Path

from .errors import InputFileError, NmsatError
from .workload import Layer, Workload
from .yaml_io import read_text

CONV_COLUMNS = (
    "layer name",
    "ifmap height",
    "ifmap width",
    "filter height",
    "filter width",
    "channels",
    "num filter",
    "strides",
)
GEMM_COLUMNS = ("layer name", "m", "n", "k")


def read_topology(path: Path) -> Workload:
    """Read a topology CSV as a forward-only workload.

    Convolutions use the file's feature-map sizes as given (padding is already in them); a GEMM (m, n, k) becomes a
    linear layer of m tokens, k inputs and n outputs.

    Raises
    ------
    InputFileError
        If the file is unreadable, a column is missing, or a value is not a positive integer.
    """
    rows = [
        [cell.strip() for cell in row]
        for row in csv.reader(read_text(path).splitlines())
        if any(cell.strip() for cell in row)
    ]
    if not rows:
        raise InputFileError(f"{path}: must hold a header line and layers, not nothing")
    header = [cell.lower() for cell in rows[0] if cell]
    wanted = CONV_COLUMNS if "ifmap height" in header or len(header) > len(GEMM_COLUMNS) else GEMM_COLUMNS
    missing = [name for name in wanted if name not in header]
    if missing:
        hint = f"the conv form has {', '.join(CONV_COLUMNS)}; the GEMM form {', '.join(GEMM_COLUMNS)}"
        raise InputFileError(f"{path}: header: must have the column {missing[0]!r}; {hint}")
    places = {name: header.index(name) for name in wanted}
    layers = []
    for number, row in enumerate(rows[1:], 2):
        values = [_number(path, number, name, row, places[name]) for name in wanted[1:]]
        name = row[places["layer name"]] or f"layer{number - 1}"
        layers.append(_layer(path, number, name, values))
    if not layers:
        raise InputFileError(f"{path}: must hold at least one layer below its header")
    try:
        return Workload(name=path.stem, description=f"SCALE-Sim topology {path.name}", layers=tuple(layers))
    except ValueError as error:
        raise InputFileError(f"{path}: {_first(error)}") from None


def _number(path: Path, line: int, name: str, row: list[str], place: int) -> int:
    text = row[place] if place < len(row) else ""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:12]) <= 2**31 - 1):
        raise NmsatError.rule(f"{path}: line {line}", name, "an integer from 1 to 2147483647", text)
    return int(text)


def _layer(path: Path, line: int, name: str, values: list[int]) -> Layer:
    try:
        if len(values) == 3:
            m, n, k = values
            return Layer(name=name, op="linear", ic=k, oc=n, tokens=m)
        h, w, kh, kw, ic, oc, stride = values
        return Layer(name=name, op="conv2d", h=h, w=w, kh=kh, kw=kw, ic=ic, oc=oc, stride=stride)
    except ValueError as error:
        raise InputFileError(f"{path}: line {line}: {_first(error)}") from None


def _first(error: ValueError) -> str:
    """The first complaint of a pydantic error, without its decoration."""
    errors = getattr(error, "errors", None)
    return str(errors()[0]["msg"]).removeprefix("Value error, ") if errors else str(error)
