"""Weights without a graph: a safetensors or NPZ file and the YAML that gives its layers their shapes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ..errors import InputFileError, NmsatError
from ..npz import NpzReader
from ..workload import Layer, Workload
from ..yaml_io import read_yaml, validate
from .network import Network, as_weights, elements, sibling_yaml

METADATA_KEY = "nmsat-workload"  # string metadata of a safetensors file that holds the YAML
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}


def read_tensors(path: Path) -> Network:
    """Read the layers from the YAML and their weights from the tensor file.

    The YAML is a workload: the file of the same stem or, in safetensors, the metadata string ``nmsat-workload``. A
    layer's tensor is what its ``weights`` names, else ``NAME.weight`` or ``NAME``; its layout is what ``weights``
    says, else OIHW or OI, the order PyTorch writes.

    Raises
    ------
    InputFileError
        If either file is unreadable, a tensor is missing or does not fit its layer, or lengths lie.
    """
    if path.suffix.lower() == ".npz":
        with NpzReader(path) as arrays:
            return _network(path, _workload(path, None), list(arrays), arrays.__getitem__)
    header, text = _safetensors_header(path)
    return _network(path, _workload(path, text), list(header), lambda name: _tensor(path, header, name))


def _network(path: Path, workload: Workload, names: list[str], read: Callable[[str], NDArray[Any]]) -> Network:
    found, known = _Given(str(path), workload), set(names)
    for layer in workload.expanded().layers:
        if not layer.has_weights:
            continue
        stated = layer.weights
        choices = [stated.tensor] if stated else [f"{layer.name}.weight", layer.name]
        name = next((choice for choice in choices if choice in known), None)
        if name is None:
            if stated or layer.prune:
                raise NmsatError.rule(str(path), layer.name, f"given a tensor {' or '.join(choices)}", _some(names))
            continue
        array, layout = read(name), stated.layout if stated else "OIHW"
        if layer.op == "linear" and array.ndim == 2 and layout in ("OHWI", "OIHW"):
            layout = "OI"
        weights = as_weights(array, layout, f"{path}: {name}")
        if weights.shape != layer.weight_shape:
            hint = "say weights: {tensor: ..., layout: OHWI} (or OIHW, HWIO, OI, IO) in the YAML if its order differs"
            rule = f"of shape {layer.weight_shape} (OHWI), read as {layout}"
            raise NmsatError.rule(str(path), name, rule, weights.shape, hint)
        found.weights[layer.name] = weights
    if not found.weights:
        raise NmsatError.rule(str(path), "", "a file with the weights of its YAML's layers", _some(names))
    return found


class _Given(Network):
    """A network whose layers a YAML gives."""

    def __init__(self, where: str, workload: Workload) -> None:
        super().__init__(where)
        self._workload = workload

    def workload(self, name: str, description: str = "") -> Workload:
        """The YAML's layers; what it says of masks and tensors is found anew."""
        layers = tuple(_plain(layer) for layer in self._workload.layers)
        header = {"tensors": None, "source": None, "batch": None, "mode": None, "notes": ()}
        return self._workload.model_copy(update={"layers": layers, **header})


def _plain(layer: Layer) -> Layer:
    extra = tuple(item.model_copy(update={"stored": False}) for item in layer.extra)
    return layer.model_copy(update={"stages": None, "weights": None, "extra": extra})


def _workload(path: Path, text: str | None) -> Workload:
    if text is not None:
        try:
            data = yaml.safe_load(text) if len(text) < 2**24 and "&" not in text else None
        except (yaml.YAMLError, ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise InputFileError(f"{path}: metadata {METADATA_KEY}: must be a workload's YAML")
        return validate(Workload, data, f"{path}: metadata {METADATA_KEY}")
    beside = sibling_yaml(path)
    if beside is None:
        hint = "copy one from the zoo (nmsat list) and change its layers"
        raise InputFileError(f"{path}: must have a workload YAML {path.with_suffix('.yaml').name} beside it; {hint}")
    return validate(Workload, read_yaml(beside), str(beside))


def _safetensors_header(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...], int, int]], str | None]:
    """({name: (dtype, shape, first byte, bytes)}, YAML or None), every length held to the file's."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(8)
            if len(head) < 8:
                raise InputFileError(f"{path}: must be a safetensors file, not {size} bytes")
            (length,) = struct.unpack("<Q", head)
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise InputFileError(f"{path}: header must fit the file of {size} bytes, not be {length} long")
            data = json.loads(file.read(length))
    except FileNotFoundError:
        raise InputFileError(f"{path}: must be an existing file; there is none of that name") from None
    except OSError as error:
        raise InputFileError(f"{path}: must be readable; {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputFileError(f"{path}: header must be JSON") from None
    if not isinstance(data, dict):
        raise InputFileError(f"{path}: header must be a JSON object")
    metadata = data.pop("__metadata__", {})
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if text is not None and not isinstance(text, str):
        raise InputFileError(f"{path}: metadata {METADATA_KEY}: must be a string")
    return {str(name): _entry(path, str(name), item, 8 + length, size) for name, item in data.items()}, text


def _entry(path: Path, name: str, item: Any, base: int, size: int) -> tuple[str, tuple[int, ...], int, int]:
    place = f"{path}: {name}"
    if not isinstance(item, Mapping):
        raise InputFileError(f"{place}: must be an object of dtype, shape and data_offsets")
    dtype, shape, offsets = item.get("dtype"), item.get("shape"), item.get("data_offsets")
    numbers = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2 and len(shape) <= 8
    if not (isinstance(dtype, str) and numbers and all(_natural(i) for i in [*(shape or []), *(offsets or [])])):
        raise NmsatError.rule(place, "", "an entry of dtype, shape and two data_offsets", item)
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    first, last = offsets
    if not first <= last <= size - base:
        raise NmsatError.rule(place, "data_offsets", f"inside the {size - base} bytes of data", offsets)
    if dtype in DTYPES and elements(shape) * np.dtype(DTYPES[dtype]).itemsize != last - first:
        raise NmsatError.rule(place, "data_offsets", f"the bytes of shape {shape}", last - first)
    return dtype, tuple(shape), base + first, last - first


def _tensor(path: Path, header: Mapping[str, tuple[str, tuple[int, ...], int, int]], name: str) -> NDArray[Any]:
    dtype, shape, first, length = header[name]
    if dtype not in DTYPES:
        raise NmsatError.rule(f"{path}: {name}", "dtype", f"one of {', '.join(DTYPES)}", dtype)
    try:
        with open(path, "rb") as file:
            file.seek(first)
            values = np.frombuffer(file.read(length), DTYPES[dtype])
        if dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.reshape(shape)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: {name}: must be readable; {error}") from None


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
