"""What events cost: a table of energies with their ranges and sources, and its calibration by measured power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .errors import NmsatError
from .yaml_io import NamedFile, validate

EVENTS = (
    "mac_os_pj", "mac_ws_pj", "select_pj", "sore_compare_pj", "wuve_weight_pj", "vector_slot_pj",
    "buffer_pj_per_byte", "dram_pj_per_byte", "static_watt",
)  # fmt: skip
BOUNDS = ("low", "typical", "high")
Bound = Literal["low", "typical", "high"]


class Energy(BaseModel, frozen=True):
    """One event's energy: picojoules (static: watts), the range it lies in, and from what that follows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    typical: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    low: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    high: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    source: str = Field(min_length=1, max_length=2000)

    @model_validator(mode="after")
    def _check(self) -> Energy:
        if not self.low <= self.typical <= self.high:
            raise ValueError(f"typical: must lie between low = {self.low:g} and high = {self.high:g}")
        return self


@dataclass(frozen=True, slots=True)
class Events:
    """How often each event happens: counts as integers, or arrays of them with one entry a design.

    Attributes
    ----------
    os_macs, ws_macs : multiplications the array issues, by dataflow
    selected_macs : those of them whose operand is selected (N:M patterns)
    compares : comparisons of SORE, M (M-1) / 2 a group
    updated_weights : weights through WUVE
    vector_slots : slots of the vector lanes
    buffer_bytes : bytes into and out of the buffers
    dram_bytes : bytes moved
    seconds : float
    """

    os_macs: Any = 0
    ws_macs: Any = 0
    selected_macs: Any = 0
    compares: Any = 0
    updated_weights: Any = 0
    vector_slots: Any = 0
    buffer_bytes: Any = 0
    dram_bytes: Any = 0
    seconds: Any = 0.0

    def counts(self) -> tuple[Any, ...]:
        """In the order of EVENTS; static is counted in picoseconds, so that watts give picojoules."""
        return (
            self.os_macs, self.ws_macs, self.selected_macs, self.compares, self.updated_weights, self.vector_slots,
            self.buffer_bytes, self.dram_bytes, self.seconds * 1e12,
        )  # fmt: skip


class EnergyTable(NamedFile, frozen=True):
    """Energies of all events (a YAML file; ``vcu1525`` ships with the package)."""

    _files = "energy table", Path(__file__).parent / "energy"

    format: Literal["nmsat-energy/1"]
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = Field(default="", max_length=2000)
    kind: Literal["model", "calibrated model"]
    events: dict[str, Energy]

    @model_validator(mode="after")
    def _check(self) -> EnergyTable:
        for name in self.events:
            if name not in EVENTS:
                raise ValueError(f"events.{name}: must be one of {', '.join(EVENTS)}")
        if missing := [name for name in EVENTS if name not in self.events]:
            raise ValueError(f"events.{missing[0]}: must be given")
        return self

    def picojoules(self, events: Events, bound: Bound = "typical", known: Mapping[str, Any] | None = None) -> Any:
        """Energy of ``events``; ``known`` values (or arrays) take the place of the table's in every bound.

        The bounds add up low with low and high with high: the sources' errors need not be independent.
        """
        known = known or {}
        total: Any = 0.0
        for name, count in zip(EVENTS, events.counts(), strict=True):
            value = known.get(name)
            total = total + count * (getattr(self.events[name], bound) if value is None else value)
        return total

    def to_yaml(self) -> str:
        """The table as a YAML file's text."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, width=120)


class Measurement(BaseModel, frozen=True):
    """A run of which the power was measured: the simulated events of a step, and the watts read while it repeated."""

    model_config = ConfigDict(extra="forbid", strict=True)

    result: str = Field(description="JSON file of nmsat run")
    watt: float = Field(gt=0, le=1e4)


class Measurements(BaseModel, frozen=True):
    """Measured power of a card: idle, and under some runs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["nmsat-power/1"]
    card: str = Field(min_length=1, max_length=200)
    instrument: str = Field(min_length=1, max_length=200, description="what read the watts")
    idle_watt: float = Field(gt=0, le=1e4)
    error: float = Field(default=0.05, ge=0, lt=1, description="of the instrument, a share of its reading")
    runs: Annotated[tuple[Measurement, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = Field(
        min_length=1
    )


def calibrate(table: EnergyTable, power: Measurements, events: Sequence[Events], name: str) -> EnergyTable:
    """The table with its static power as measured idle and all other energies scaled by one factor.

    One factor, because a few power readings cannot tell events apart. It is the one whose predicted watts differ from
    the measured with the least squares; the new range holds the factor that every single run asks for, and the
    instrument's error.

    Parameters
    ----------
    events : sequence of Events
        Of ``power.runs``, a step each, with its seconds.

    Raises
    ------
    NmsatError
        A run draws no more than the idle card.
    """
    dynamic = np.array([table.picojoules(item, known={"static_watt": 0.0}) / 1e12 / item.seconds for item in events])
    above: NDArray[np.float64] = np.array([run.watt - power.idle_watt for run in power.runs])
    for run, extra in zip(power.runs, above.tolist(), strict=True):
        if extra <= 0:
            raise NmsatError.rule("", f"runs: {run.result}: watt", f"above idle_watt = {power.idle_watt:g}", run.watt)
    factor = float(dynamic @ above / (dynamic @ dynamic))
    each = above / dynamic
    reading = np.array([run.watt for run in power.runs]) * power.error + power.idle_watt * power.error
    low = min(factor, float(((above - reading) / dynamic).min()), float(each.min()))
    high = max(factor, float(((above + reading) / dynamic).max()), float(each.max()))
    said = f"calibrated: {power.card}, {power.instrument}, {len(power.runs)} runs"
    found = {
        key: Energy(
            typical=item.typical * factor,
            low=item.typical * max(low, 0.0),
            high=item.typical * high,
            source=f"{said}; {factor:.4g} times {item.typical:g} of table {table.name}",
        )
        for key, item in table.events.items()
        if key != "static_watt"
    }
    idle = power.idle_watt
    found["static_watt"] = Energy(
        typical=idle, low=idle * (1 - power.error), high=idle * (1 + power.error), source=f"{said}; idle"
    )
    data = {"format": "nmsat-energy/1", "name": name, "description": table.description, "kind": "calibrated model"}
    return validate(EnergyTable, {**data, "events": {key: found[key].model_dump() for key in EVENTS}}, name)
