"""Events of a timed step and what they cost by the accelerator's energy table: a model, given as a range."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from ..dataflow.assembler import work_of
from ..dataflow.program import Kind, Mode
from ..dataflow.schedule import Work
from ..models.accelerator import Accelerator
from ..models.energy_table import BOUNDS, EnergyTable, Events
from .timing import StepTime, demand


@lru_cache(maxsize=16)
def table_of(accelerator: Accelerator) -> EnergyTable:
    """The accelerator's energy table."""
    return EnergyTable.load(accelerator.energy_table)


def issued_macs(work: Work) -> int:
    """Multiplications the array issues for a product; zeros that pad k are not counted, they switch nothing."""
    k = work.kc * (1 if work.transposed else work.taps)
    return work.m * work.n * work.count * k * work.pattern.keep // work.pattern.group


def events_of(step: StepTime, accelerator: Accelerator) -> Events:
    """Events of one timed descriptor, its ``cycles`` filled in."""
    seconds, dram = step.cycles / accelerator.clock_hz, step.read_bytes + step.write_bytes
    if step.item.kind is Kind.PRODUCT and step.cost is not None:
        work = work_of(step.item, accelerator)
        macs, ws = issued_macs(work), step.item["mode"] == Mode.WS
        return Events(
            os_macs=0 if ws else macs,
            ws_macs=macs if ws else 0,
            selected_macs=0 if work.pattern.is_dense else macs,
            buffer_bytes=step.cost.buffer_bytes,
            dram_bytes=dram,
            seconds=seconds,
        )
    asks = demand(step.item)
    return Events(
        compares=asks.compares,
        updated_weights=asks.weights,
        vector_slots=asks.vector_slots,
        buffer_bytes=dram,  # streams pass a staging buffer once
        dram_bytes=dram,
        seconds=seconds,
    )


def total(events: Iterable[Events], seconds: float) -> Events:
    """Counts added up, with the whole step's ``seconds``."""
    rows = list(events)
    names = [name for name in Events.__dataclass_fields__ if name != "seconds"]
    return Events(**{name: sum(getattr(row, name) for row in rows) for name in names}, seconds=seconds)


def joules(events: Events, table: EnergyTable) -> dict[str, float]:
    """``energy_j`` (typical), ``energy_low_j`` and ``energy_high_j``."""
    low, typical, high = (float(table.picojoules(events, bound)) / 1e12 for bound in BOUNDS)
    return {"energy_j": typical, "energy_low_j": low, "energy_high_j": high}
