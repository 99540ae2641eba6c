"""Fields of a network's layers as axes: ``layers.NAME.FIELD``, where a ``*`` in NAME stands for any characters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ...models.errors import NmsatError
from ...models.workload import Layer, Workload
from ...models.yaml_io import validate

PREFIX = "layers."
LAYER_FIELDS = tuple(name for name in Layer.model_fields if name not in ("name", "inputs", "weights", "stages"))
LAYER_NUMBERS = tuple(name for name in LAYER_FIELDS if Layer.model_fields[name].annotation is int)

_OF_WEIGHTS = ("pattern", "prune", "input_gradient")


def is_layer_field(key: str) -> bool:
    """Whether a name has the form of a layer's field."""
    return key.startswith(PREFIX)


def check_layer_field(key: str) -> None:
    """Refuse a name that is not ``layers.NAME.FIELD`` with a field that layers have."""
    name, _, field = key.removeprefix(PREFIX).rpartition(".")
    if not name or field not in LAYER_FIELDS:
        raise NmsatError.rule("", key, f"layers.NAME.FIELD, FIELD one of {', '.join(LAYER_FIELDS)}", field or key)


def check_layer_value(key: str, value: Any) -> None:
    """Refuse a value that the field cannot have in any layer; what depends on several fields is left open."""
    try:
        _adapter(key.rpartition(".")[2]).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        rule = str(first.get("ctx", {}).get("error", first["msg"])).removeprefix("Input should be ")
        if first["type"] == "value_error":
            raise NmsatError(f"{key}: {rule}") from None
        raise NmsatError.rule("", key, rule, value) from None


def places(workload: Workload, key: str) -> frozenset[int]:
    """Which layers a name means: one by its name, or with a ``*`` all matching ones that the field is for.

    A pattern, ``prune`` and ``input_gradient`` are for layers with weights; what else a layer has, its file gives.

    Raises
    ------
    NmsatError
        None is meant, or one whose sizes are fixed by weights or masks of its file.
    """
    name, _, field = key.removeprefix(PREFIX).rpartition(".")
    pattern = re.compile(".*".join(map(re.escape, name.split("*"))))
    named = {index for index, layer in enumerate(workload.layers) if pattern.fullmatch(layer.name)}
    found = {index for index in named if "*" not in name or _is_for(field, workload.layers[index])}
    if not found:
        known = ", ".join(layer.name for layer in workload.layers[:12]) + (", ..." if len(workload.layers) > 12 else "")
        rule = f"a layer of {workload.name!r}" + (f" that has {field}" if named else f" ({known})")
        raise NmsatError.rule("", key, rule, name)
    for index in found:
        layer = workload.layers[index]
        if layer.stages is not None or layer.weights is not None:
            raise NmsatError.rule("", key, "a layer without weights and masks of its own", layer.name)
    return frozenset(found)


def with_fields(workload: Workload, changes: Mapping[str, Any]) -> Workload:
    """A validated copy with some layers' fields changed.

    Raises
    ------
    NmsatError
        As :func:`places`; or a layer breaks a rule of its own, as a kernel larger than its image.
    """
    by_layer: dict[int, dict[str, Any]] = {}
    for key, value in changes.items():
        for index in places(workload, key):
            by_layer.setdefault(index, {})[key.rpartition(".")[2]] = value
    layers = list(workload.layers)
    for index, fields in by_layer.items():
        given = {name: getattr(layers[index], name) for name in layers[index].model_fields_set}
        layers[index] = validate(Layer, given | fields, f"layer {layers[index].name!r}")
    content = {name: getattr(workload, name) for name in workload.model_fields_set}
    return validate(Workload, content | {"layers": tuple(layers)}, f"workload {workload.name!r}")


def _is_for(field: str, layer: Layer) -> bool:
    return layer.has_weights if field in _OF_WEIGHTS else field in layer.model_fields_set


@lru_cache(maxsize=len(LAYER_FIELDS))
def _adapter(field: str) -> TypeAdapter[Any]:
    info = Layer.model_fields[field]
    annotation: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return TypeAdapter(annotation, config=ConfigDict(strict=True))
