"""The sweep file: which designs, under which constraints, compared by what."""

from __future__ import annotations

import json
import math
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from ...models.accelerator import Accelerator
from ...models.area import RESOURCES
from ...models.energy_table import EVENTS, Bound
from ...models.errors import InputFileError, NmsatError
from ...models.yaml_io import content_hash, read_yaml, validate
from ..energy import table_of
from .designs import CHOICES, FIELDS, Designs
from .layer_fields import LAYER_NUMBERS, check_layer_field, check_layer_value, is_layer_field, places
from .step import STEP_FIELDS, check_step_value, workload_of

FORMAT = "nmsat-sweep/1"
BASE_FIELDS = tuple(
    name for name in Accelerator.model_fields if name not in (*FIELDS, "format", "name", "description")
)  # cycles do not depend on them: the energy table, and what only the memory port of the RTL knows
AXIS_FIELDS = (*STEP_FIELDS, *BASE_FIELDS, *FIELDS, *EVENTS)  # slowest first, the order in which points are numbered
INTEGER_FIGURES = (
    "cycles", "compute_cycles", "stall_cycles", "vector_exposed_cycles", "dram_read_bytes", "dram_write_bytes",
    "dram_footprint_bytes",
)  # fmt: skip
ENERGY_FIGURES: dict[str, Bound] = {"energy_j": "typical", "energy_low_j": "low", "energy_high_j": "high"}
FLOAT_FIGURES = ("seconds", "utilization", "gflops_dense_equivalent", *ENERGY_FIGURES)
BASELINE = "speedup_over_dense"  # evaluates every design a second time, so only where the file names it
AREA_FIGURES = RESOURCES  # an estimate; written only where the file names them, as the baseline is
FIGURES = (*INTEGER_FIGURES, *AREA_FIGURES, *FLOAT_FIGURES, BASELINE)
LARGER_IS_BETTER = frozenset({"utilization", "gflops_dense_equivalent", BASELINE})
MAX_OBJECTIVES = 6
MAX_POINTS = 100_000_000
MAX_VALUES = 1_000_000  # of one axis
MAX_VALUE = 1e15  # binary64 holds every integer up to here

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

Value = bool | int | float | str


class Range(BaseModel, frozen=True):
    """Evenly spaced values: ``{from: 1000, to: 2000, count: 11}``, ``{..., step: 100}`` or ``{..., scale: log}``."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    start: float = Field(alias="from", ge=-MAX_VALUE, le=MAX_VALUE)
    to: float = Field(le=MAX_VALUE)
    count: int | None = Field(default=None, ge=1, le=MAX_VALUES)
    step: float | None = Field(default=None, gt=0)
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.to < self.start:
            raise ValueError(f"to: must be at least from = {self.start:g}, not {self.to:g}")
        if (self.count is None) == (self.step is None):
            raise ValueError("must have either count or step")
        if self.scale == "log" and (self.start <= 0 or self.step is not None):
            raise ValueError("scale: log must have from > 0 and a count")
        return self

    def values(self, *, whole: bool) -> list[int] | list[float]:
        """The values; rounded and without repeats where the field is an integer."""
        if self.step is not None:
            steps = (self.to - self.start) / self.step + 1e-9
            if not steps < MAX_VALUES:
                raise NmsatError.rule("", "step", f"at most {MAX_VALUES:,} values", f"{steps + 1:,.0f}")
            found = self.start + self.step * np.arange(math.floor(steps) + 1)
        elif self.scale == "log":
            found = np.geomspace(self.start, self.to, self.count or 1)
        else:
            found = np.linspace(self.start, self.to, self.count or 1)
        return np.unique(np.rint(found).astype(np.int64)).tolist() if whole else found.tolist()


class Constraint(BaseModel, frozen=True):
    """A figure's bounds: ``{figure: energy_j, max: 40}``."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    figure: Literal[FIGURES]  # type: ignore[valid-type]
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Constraint:
        if self.min is None and self.max is None:
            raise ValueError(f"{self.figure}: must have min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(
                f"{self.figure}: must have min <= max, not {self.min:g} > {self.max:g}; nothing meets both"
            )
        return self


class Sample(BaseModel, frozen=True):
    """Points drawn at random from the axes instead of all of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    points: int = Field(ge=1, le=MAX_POINTS)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class Search(BaseModel, frozen=True):
    """Points found by a genetic multi-objective search (NSGA-II of pymoo, the extra ``search``)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    points: int = Field(ge=2, le=10_000_000, description="designs to evaluate, repeats counted")
    population: int = Field(default=200, ge=2, le=100_000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


def _check_values(base: Accelerator, field: str, values: list[Any]) -> None:
    """Refuse values that a field cannot have in any design."""
    if field in ("max_keep", "max_group"):
        return  # what one may be depends on the other
    if field in FIELDS:
        Designs.of(base, {field: np.array(values)})
        return
    for value in values:
        if is_layer_field(field):
            check_layer_value(field, value)
        elif field in STEP_FIELDS:
            check_step_value(field, value)
        elif field in BASE_FIELDS:
            table_of(base.replace(**{field: value}))
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e6:
            raise NmsatError.rule("", field, "a number from 0 to 1e6", value)


def _takes_range(field: str) -> bool:
    if is_layer_field(field):
        return field.rpartition(".")[2] in LAYER_NUMBERS
    return field == "batch" or (field not in (*STEP_FIELDS, *CHOICES, "energy_table"))


def _place(field: str) -> float:
    return 0.5 if is_layer_field(field) else AXIS_FIELDS.index(field)


def _check_name(key: str, field: str) -> None:
    try:
        check_layer_field(field)
    except NmsatError as error:
        raise ValueError(f"{key}: {str(error).removeprefix(f'{field}: ')}") from None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _axis(value: Any) -> Any:
    if not isinstance(value, list | tuple | dict | Range):
        raise ValueError(f"must be a list of values or a range {{from: ..., to: ..., count: ...}}, not {value!r}")
    return _tuple(value)


def _form(value: Any) -> str:
    return "range" if isinstance(value, dict | Range) else "list"


Axis = Annotated[
    Annotated[tuple[Value, ...], Tag("list")] | Annotated[Range, Tag("range")],
    Discriminator(_form),
    BeforeValidator(_axis),
]


class SweepSpec(BaseModel, frozen=True):
    """A sweep, as read from its file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["nmsat-sweep/1"]
    workload: str = Field(description="zoo name or file; may be an axis instead", default="")
    accelerator: str = Field(default="sat", description="shipped name or file: what every design starts from")
    set: dict[str, Value] = Field(default_factory=dict, description="fields that all designs share")
    axes: dict[str, Axis]
    together: dict[str, Annotated[tuple[str, ...], BeforeValidator(_tuple)]] = Field(
        default_factory=dict, description="axes that set several fields: a name to the fields"
    )
    sample: Sample | None = Field(default=None, description="random points instead of the whole grid")
    search: Search | None = Field(default=None, description="a guided search instead of the whole grid")
    also: Annotated[tuple[Literal[FIGURES], ...], BeforeValidator(_tuple)] = Field(  # type: ignore[valid-type]
        default=(), description="figures to write besides the usual ones: areas, speedup_over_dense"
    )
    constraints: Annotated[tuple[Constraint, ...], BeforeValidator(_tuple)] = ()
    objectives: Annotated[tuple[Literal[FIGURES], ...], BeforeValidator(_tuple)] = Field(  # type: ignore[valid-type]
        default=("cycles", "energy_j")
    )

    @model_validator(mode="after")
    def _check(self) -> SweepSpec:
        if not self.axes:
            raise ValueError("axes: must have at least one field with its values")
        if not 1 <= len(set(self.objectives)) == len(self.objectives) <= MAX_OBJECTIVES:
            found = ", ".join(self.objectives) or "none"
            raise ValueError(f"objectives: must be 1 to {MAX_OBJECTIVES} figures, each once, not {found}")
        self._check_names()
        if ("workload" in self.fields()) + ("workload" in self.set) + bool(self.workload) != 1:
            raise ValueError("workload: must be given once: as workload, or as an axis")
        if self.sample and self.search:
            raise ValueError("search: must not be given together with sample")
        for name, axis in self.axes.items():
            if isinstance(axis, tuple) and not axis:
                raise ValueError(f"axes.{name}: must have at least one value")
            if isinstance(axis, tuple) and len(set(map(repr, axis))) != len(axis):
                raise ValueError(f"axes.{name}: must not repeat a value")
            if isinstance(axis, Range) and not all(map(_takes_range, self.together.get(name, (name,)))):
                raise ValueError(f"axes.{name}: must be a list, not a range")
        seen: dict[str, list[Constraint]] = {}
        for item in self.constraints:
            seen.setdefault(item.figure, []).append(item)
        for figure, items in seen.items():
            low = max((item.min for item in items if item.min is not None), default=-math.inf)
            high = min((item.max for item in items if item.max is not None), default=math.inf)
            if low > high:
                raise ValueError(f"constraints: {figure} must not have to be both >= {low:g} and <= {high:g}")
        return self

    def _check_names(self) -> None:
        """Every axis is a field or a name of ``together``, and no field is given twice."""
        for name, fields in self.together.items():
            if name not in self.axes:
                raise ValueError(f"together.{name}: must be the name of an axis")
            if not _NAME.fullmatch(name) or name in (*AXIS_FIELDS, *FIGURES, "point"):
                raise ValueError(f"together.{name}: must be a word of its own, not a field's or figure's name")
            if len(fields) < 2:
                raise ValueError(f"together.{name}: must be two or more fields")
        seen: dict[str, str] = {}
        given = [(f"axes.{name}", self.together.get(name, (name,))) for name in self.axes]
        for place, fields in [*given, *((f"set.{name}", (name,)) for name in self.set)]:
            for field in fields:
                key = place if place.endswith(f".{field}") else f"{place.replace('axes', 'together')}: {field}"
                if is_layer_field(field):
                    _check_name(key, field)
                elif field not in AXIS_FIELDS:
                    near = get_close_matches(field, AXIS_FIELDS, 1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    raise ValueError(f"{key}: must be one of {', '.join(AXIS_FIELDS)}, or layers.NAME.FIELD{hint}")
                if field in seen and place.startswith("set."):
                    raise ValueError(f"{key}: must not be an axis too")
                if field in seen:
                    raise ValueError(f"{key}: must not be given twice, {seen[field]} gives it too")
                seen[field] = place

    @classmethod
    def load(cls, path: str | Path) -> SweepSpec:
        """Read a sweep file; anything wrong with it is one NmsatError naming the key."""
        spec = validate(cls, read_yaml(Path(path)), str(path))
        try:
            spec.points()
            spec.base()
        except NmsatError as error:
            raise InputFileError(f"{path}: {error}") from None
        return spec

    def wanted(self) -> list[str]:
        """Figures that the file names: objectives, constraints, and what it wants besides."""
        return list(dict.fromkeys([*self.objectives, *(item.figure for item in self.constraints), *self.also]))

    def fields(self) -> dict[str, str]:
        """Every field that varies, to the axis that sets it."""
        return {field: name for name in self.axes for field in self.together.get(name, (name,))}

    def values(self) -> dict[str, list[Any]]:
        """Axis to its values, slowest first: networks, layers' fields, the rest in the order of AXIS_FIELDS."""

        def place(name: str) -> float:
            return min(_place(field) for field in self.together.get(name, (name,)))

        found: dict[str, list[Any]] = {}
        for name in sorted(self.axes, key=place):
            axis = self.axes[name]
            fields = self.together.get(name, (name,))
            whole = not set(fields) <= set(EVENTS)
            found[name] = axis.values(whole=whole) if isinstance(axis, Range) else list(axis)
        return found

    def points(self) -> int:
        """Number of points.

        Raises
        ------
        NmsatError
            More than MAX_POINTS.
        """
        grid = math.prod(len(values) for values in self.values().values())
        if self.sample:
            return self.sample.points
        if self.search:
            if grid > 2**62:
                raise NmsatError(f"axes: must be at most 2^62 points for a search, not {grid:,}; thin an axis out")
            return self.search.points
        if grid > MAX_POINTS:
            hint = "draw some of them with sample: {points: 1000000, seed: 1}, or search: {points: 100000}"
            raise NmsatError(f"axes: must be at most {MAX_POINTS:,} points, not {grid:,}; {hint}")
        return grid

    def base(self) -> Accelerator:
        """The accelerator every design starts from, ``set`` applied; every axis value is checked against its limits."""
        base = Accelerator.load(self.accelerator)
        shared = {key: value for key, value in self.set.items() if key in Accelerator.model_fields}
        base = base.replace(**shared)
        values = self.values()
        given = {field: values[axis] for field, axis in self.fields().items()}
        given |= {field: [value] for field, value in self.set.items()}
        if self.workload:
            given["workload"] = [self.workload]
        for field, items in given.items():
            try:
                _check_values(base, field, items)
            except NmsatError as error:
                raise self._placed(field, str(error), base.name) from None
        self._check_layers(given)
        if not set(AREA_FIGURES).isdisjoint(self.wanted()) and "window" in given.get("accumulator", [base.accumulator]):
            hint = "the area model was fitted to elements with binary32 adders"
            rule = f"fp32 where {', '.join(AREA_FIGURES)} are asked for"
            raise NmsatError.rule("", "accumulator", rule, "window", hint)
        keep, group = min(given.get("max_keep", [base.max_keep])), max(given.get("max_group", [base.max_group]))
        if keep > group:
            hint = "lower max_keep with set: {max_keep: ...}"
            raise NmsatError.rule("", "axes.max_group", f"at least max_keep = {keep}", group, hint)
        return base

    def _placed(self, field: str, text: str, accelerator: str) -> NmsatError:
        """An error of a field's value, said of the place in the file where the value is."""
        axis = self.fields().get(field)
        place = f"set.{field}" if axis is None else f"axes.{axis}" + (f": {field}" if axis != field else "")
        for prefix in (f"accelerator {accelerator!r}: {field}: ", f"{field}: "):
            if text.startswith(prefix) and field in (*self.set, *self.fields()):
                return NmsatError(f"{place}: {text.removeprefix(prefix)}")
        return NmsatError(text)

    def _check_layers(self, given: dict[str, list[Any]]) -> None:
        """Every layer's field means a layer of every network, and no two mean the same field."""
        keys = [field for field in given if is_layer_field(field)]
        for name in given["workload"] if keys else []:
            workload, seen = workload_of(name), dict[tuple[int, str], str]()
            for key in keys:
                for index in sorted(places(workload, key)):
                    other = seen.setdefault((index, key.rpartition(".")[2]), key)
                    if other != key:
                        rule = f"fields that {other} does not set"
                        raise NmsatError.rule("", key, rule, workload.layers[index].name)

    def to_json(self) -> str:
        """The spec as JSON text: what travels to workers, and what :meth:`from_json` reads."""
        return self.model_dump_json(by_alias=True)

    @classmethod
    def from_json(cls, text: str) -> SweepSpec:
        """The spec that :meth:`to_json` wrote."""
        return cls.model_validate(json.loads(text))

    def config_hash(self) -> str:
        """A hash of the file's content and the base accelerator's."""
        content = {"spec": json.loads(self.to_json()), "accelerator": self.base().config_hash()}
        return content_hash(content)
