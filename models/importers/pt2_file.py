"""Reading a torch.export archive (.pt2): a zip of JSON and raw tensors. Nothing is unpickled, torch is not needed."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputFileError, NmsatError
from ..stages import SIZE_LIMIT
from .network import elements

MAX_JSON_BYTES = 128 * 2**20
MAX_MEMBERS = 100_000
MAX_RATIO = 100  # a compressed member may grow so far, as in NPZ files
DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f2", 7: "<f4", 8: "<f8", 12: "?", 13: "<u2"}
BFLOAT16 = 13
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, NotImplementedError, RuntimeError)
OLD = "serialized_exported_program.json"  # torch before 2.8: its weights are a pickle

Json = Mapping[str, Any]


@dataclass
class Program:
    """An exported program.

    Attributes
    ----------
    nodes : list of dict
        In order: ``target``, ``inputs`` by argument name, ``outputs`` (names of tensors).
    shapes : dict of str to tuple of int
        Sizes of tensors by value name; open ones as they were at the export.
    tensors : dict of str to str
        Value name to the name of its parameter, buffer or constant.
    batch : int
        First dimension of the inputs.
    opened : list of str
        Sizes that the export left open, the batch apart.
    """

    archive: Archive
    nodes: list[dict[str, Any]]
    shapes: dict[str, tuple[int, ...]]
    inputs: list[str]
    tensors: dict[str, str]
    batch: int
    tool: str
    opened: list[str] = field(default_factory=list)


class Archive:
    """Members of the zip, each bounded before it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise InputFileError(f"{path}: must be an existing file; there is none of that name") from None
        except _BROKEN as error:
            raise InputFileError(f"{path}: must be a torch.export archive; {_line(error)}") from None
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            raise InputFileError(f"{path}: must hold at most {MAX_MEMBERS} members, not {len(members)}")
        top = {item.filename.split("/")[0] for item in members}
        if any(item.filename.endswith(OLD) for item in members):
            hint = "export again with torch 2.9 or newer"
            raise InputFileError(f"{path}: must hold raw weights; an archive of old torch holds a pickle; {hint}")
        if len(top) != 1:
            raise NmsatError.rule(str(path), "", "a torch.export archive with one top folder", sorted(top)[:3])
        self._members = {item.filename.partition("/")[2]: item for item in members}
        order = self.read("byteorder", 16).strip() if "byteorder" in self._members else b"little"
        if order != b"little":
            raise NmsatError.rule(str(path), "byteorder", "little", order.decode("ascii", "replace"))
        self._entries: dict[str, tuple[str, Json]] = {}
        for folder, config in (("weights", "model_weights_config.json"), ("constants", "model_constants_config.json")):
            if f"data/{folder}/{config}" in self._members:
                for name, entry in _mapping(self.json(f"data/{folder}/{config}").get("config"), path, config).items():
                    self._entries[name] = folder, _mapping(entry, path, name)

    def names(self, folder: str) -> list[str]:
        """Members below a folder."""
        return [name for name in self._members if name.startswith(folder)]

    def json(self, name: str) -> Json:
        """A member that holds a JSON object."""
        try:
            found = json.loads(self.read(name, MAX_JSON_BYTES))
        except (ValueError, RecursionError):
            raise InputFileError(f"{self.path}: {name}: must be JSON") from None
        return _mapping(found, self.path, name)

    def read(self, name: str, most: int) -> bytes:
        """A member of at most ``most`` bytes."""
        item = self._members.get(name)
        if item is None:
            raise InputFileError(f"{self.path}: must be a torch.export archive with the member {name}")
        if item.file_size > most or item.file_size > MAX_RATIO * max(item.compress_size, 2**20):
            raise NmsatError.rule(f"{self.path}: {name}", "", f"at most {most} bytes", item.file_size)
        try:
            data = self._zip.read(item)
        except _BROKEN as error:
            raise InputFileError(f"{self.path}: {name}: must be readable; {_line(error)}") from None
        return data

    def array(self, name: str) -> NDArray[Any]:
        """A parameter, buffer or constant by its name in the model.

        Raises
        ------
        InputFileError
            If it is missing or pickled, or its sizes and strides do not lie inside its bytes.
        """
        place = f"{self.path}: {name}"
        if name not in self._entries:
            raise InputFileError(f"{place}: must be among the archive's weights")
        folder, entry = self._entries[name]
        if entry.get("use_pickle") is not False:
            raise InputFileError(f"{place}: must be raw bytes, not a pickle; export plain tensors")
        meta = _mapping(entry.get("tensor_meta"), self.path, name)
        dtype = meta.get("dtype")
        if not isinstance(dtype, int) or dtype not in DTYPES:
            raise NmsatError.rule(place, "dtype", f"one of {', '.join(map(str, DTYPES))} (torch's codes)", dtype)
        shape, strides = (tuple(_integer(size, place) for size in _items(meta, k, place)) for k in ("sizes", "strides"))
        offset = _integer(meta.get("storage_offset", {"as_int": 0}), place)
        step = np.dtype(DTYPES[dtype]).itemsize
        data = self.read(f"data/{folder}/{entry.get('path_name')}", 2**40)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
        held = len(data) // step
        inside = len(shape) == len(strides) <= 8 and min(*shape, *strides, offset, 0) >= 0 and len(data) % step == 0
        if not inside or not (elements(shape) == 0 or (elements(shape) <= held and last < held)):
            raise NmsatError.rule(place, "sizes and strides", f"inside its {len(data)} bytes", (shape, strides, offset))
        flat = np.frombuffer(data, DTYPES[dtype])[offset:]
        found = np.lib.stride_tricks.as_strided(flat, shape, [step * stride for stride in strides], writeable=False)
        return (found.astype(np.uint32) << 16).view(np.float32) if dtype == BFLOAT16 else np.ascontiguousarray(found)


def parse(path: Path) -> Program:
    """Read an archive's program.

    Raises
    ------
    InputFileError
        If the file is no archive of torch.export, holds several models, or a size of it lies.
    """
    archive = Archive(path)
    models = archive.names("models/")
    if len(models) != 1 or not models[0].endswith(".json"):
        raise NmsatError.rule(str(path), "models", "one JSON program", models[:3])
    data = archive.json(models[0])
    module = _mapping(data.get("graph_module"), path, "graph_module")
    graph = _mapping(module.get("graph"), path, "graph")
    signature = _mapping(module.get("signature"), path, "signature")
    opened: set[str] = set()
    sizes = {
        name: _items(_mapping(value, path, name), "sizes", f"{path}: {name}")
        for name, value in _mapping(graph.get("tensor_values"), path, "tensor_values").items()
    }
    shapes = {name: tuple(_size(size, f"{path}: {name}", opened) for size in sizes[name]) for name in sizes}
    inputs, tensors = _inputs(signature, path)
    first = {shapes[name][0] for name in inputs if shapes.get(name)}
    if len(first) != 1 or not 1 <= min(first) <= 2**20:
        raise NmsatError.rule(str(path), "inputs", "of one batch size from 1 to 1048576", sorted(first))
    batch = first.pop()
    nodes = [_node(item, path) for item in _items(graph, "nodes", f"{path}: graph")]
    batches = [_expression(sizes[name][0]) for name in inputs if shapes.get(name)]
    others = [text for text in sorted(opened) if not any(symbol and symbol in text for symbol in batches)]
    tool = f"torch.export {str(data.get('torch_version', ''))[:64]}".strip()
    return Program(archive, nodes, shapes, inputs, tensors, batch, tool, others)


def _inputs(signature: Json, path: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the user's input tensors, and of the tensors that the archive holds."""
    inputs: list[str] = []
    tensors: dict[str, str] = {}
    for spec in _items(signature, "input_specs", f"{path}: signature"):
        for kind, facts in _mapping(spec, path, "input_specs").items():
            arg = _mapping(_mapping(facts, path, kind).get("arg"), path, kind) if kind != "constant_input" else {}
            if kind == "user_input":
                inner = arg.get("as_tensor")
                if isinstance(inner, Mapping):
                    inputs.append(str(inner.get("name")))
            elif kind in ("parameter", "buffer", "tensor_constant"):
                tensors[str(arg.get("name"))] = str(facts.get(f"{kind}_name"))
            elif kind not in ("constant_input", "token"):
                raise NmsatError.rule(str(path), "input_specs", "parameters, buffers, constants, tensors", kind)
    return inputs, tensors


def _node(item: Any, path: Path) -> dict[str, Any]:
    found = _mapping(item, path, "nodes")
    target = str(found.get("target"))[:200]
    inputs = {}
    for entry in _items(found, "inputs", f"{path}: {target}"):
        held = _mapping(entry, path, target)
        inputs[str(held.get("name"))] = _mapping(held.get("arg"), path, target)
    outputs: list[str] = []
    for entry in _items(found, "outputs", f"{path}: {target}"):
        outputs += tensor_names(_mapping(entry, path, target), f"{path}: {target}")
    return {"target": target, "inputs": inputs, "outputs": outputs}


def tensor_names(arg: Json, place: str) -> list[str]:
    """Names of the tensors in an argument, in order; none for numbers."""
    found = []
    single = arg.get("as_tensor")
    many = arg.get("as_tensors") or arg.get("as_optional_tensors") or []
    if single is None and not isinstance(many, list):
        raise InputFileError(f"{place}: must have a list of tensors")
    for item in [single] if single is not None else many:
        held = item.get("as_tensor", item) if isinstance(item, Mapping) else None
        if not isinstance(held, Mapping):
            raise InputFileError(f"{place}: must name its tensors")
        if isinstance(held.get("name"), str):
            found.append(held["name"])
    return found


def _size(value: Any, place: str, opened: set[str]) -> int:
    if isinstance(value, Mapping) and isinstance(value.get("as_expr"), Mapping):
        expression = value["as_expr"]
        opened.add(str(expression.get("expr_str"))[:80])
        value = expression.get("hint")
        if value is None:
            raise InputFileError(f"{place}: must have known sizes, {sorted(opened)[-1]} is open; export static sizes")
    found = _integer(value, place)
    if not 0 <= found <= SIZE_LIMIT:
        raise NmsatError.rule(place, "sizes", f"0 to {SIZE_LIMIT}", found)
    return found


def _expression(value: Any) -> str:
    held = value.get("as_expr") if isinstance(value, Mapping) else None
    return str(held.get("expr_str"))[:80] if isinstance(held, Mapping) else ""


def _integer(value: Any, place: str) -> int:
    found = value.get("as_int") if isinstance(value, Mapping) else value
    if not isinstance(found, int) or isinstance(found, bool) or not -(2**62) < found < 2**62:
        raise NmsatError.rule(place, "sizes", "integers", str(found)[:80])
    return found


def _items(held: Json, key: str, place: str) -> list[Any]:
    found = held.get(key)
    if not isinstance(found, list):
        raise NmsatError.rule(place, key, "a list", type(found).__name__)
    return found


def _mapping(value: Any, path: Path, name: str) -> Json:
    if not isinstance(value, Mapping):
        raise NmsatError.rule(str(path), str(name)[:100], "a JSON object", type(value).__name__)
    return value


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
