"""The training step of a design: the network, its layers' fields, method, pattern, batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...dataflow.compiler import MODES
from ...models.errors import NmsatError
from ...models.methods import get_method
from ...models.sparsity import Sparsity
from ...models.workload import Workload
from .layer_fields import is_layer_field, with_fields
from .skeleton import Skeleton, skeleton_of

DEFAULTS: dict[str, Any] = {
    "method": "bdwp",
    "sparsity": "2:8",
    "batch": 512,
    "mode": "train",
    "pregenerate": True,
    "forward_on_chip": True,
}
STEP_FIELDS = ("workload", *DEFAULTS)


def check_step_value(name: str, value: Any) -> None:
    """Refuse a value that no step can have; the network itself is read, so that a wrong name shows at once."""
    if name == "workload":
        if not isinstance(value, str):
            raise NmsatError.rule("", name, "a zoo name or file", value)
        workload_of(value)
    elif name == "method":
        if not isinstance(value, str):
            raise NmsatError.rule("", name, "the name of a method", value)
        get_method(value)
    elif name == "sparsity":
        Sparsity.parse(value)
    elif name == "batch":
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**20:
            raise NmsatError.rule("", name, "an integer from 1 to 1048576", value)
    elif name == "mode":
        if value not in MODES:
            raise NmsatError.rule("", name, f"one of {', '.join(MODES)}", value)
    elif not isinstance(value, bool):
        raise NmsatError.rule("", name, "true or false", value)


def skeleton_for(step: Mapping[str, Any]) -> Skeleton:
    """The skeleton of a step: STEP_FIELDS, ``max_group``, and any layers' fields.

    Raises
    ------
    NmsatError
        The layers' fields do not go together, or the step does not suit the array.
    """
    changes = tuple((key, value) for key, value in step.items() if is_layer_field(key))
    arguments = {key: value for key, value in step.items() if key != "workload" and not is_layer_field(key)}
    return skeleton_of(workload_of(step["workload"], changes), **arguments)


@lru_cache(maxsize=64)
def workload_of(name: str, changes: tuple[tuple[str, Any], ...] = ()) -> Workload:
    """A workload by name or path, read once, with its layers' fields changed."""
    return with_fields(workload_of(name), dict(changes)) if changes else Workload.load(name)
