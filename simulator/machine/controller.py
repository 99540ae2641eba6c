"""The controller in cycles: :class:`nmsat.rtl.controller.Controller` between fetcher, units and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...dataflow.program import Descriptor, Kind
from .fetch import FetchModel
from .memory import DmaModel


class UnitSlot:
    """A unit as the controller knows it.

    Parameters
    ----------
    model : unit model
        With ``room``, ``done``, ``take_done``, ``start`` and ``step``, see :class:`.update.UpdateModel`.
    kinds : tuple of Kind
    ports : int
        Number of the memory ports it uses; units with the same never work together.
    """

    __slots__ = ("begun", "index", "kind", "kinds", "model", "ports")

    def __init__(self, model: Any, kinds: tuple[Kind, ...], ports: int) -> None:
        self.model, self.kinds, self.ports = model, kinds, ports
        self.index: int | None = None  # of the descriptor at work
        self.begun, self.kind = 0, Kind.END


class RunCycles(list[int]):
    """Cycles of every descriptor of a run, as the hardware counts them; ``total``: of the run, host stops left out.

    Descriptors that are at work together share cycles, so that the sum may be more than the total.
    """

    total: int = 0


class ControllerModel:
    """Runs descriptors; everything moves when it says so.

    Parameters
    ----------
    dma : DmaModel
        With a reader ``fetch``.
    units : sequence of UnitSlot
    ahead : int
        Descriptors fetched before their turn.

    Attributes
    ----------
    cycle : int
        Cycles since the reset.
    fetch_cycles : int
        Of the last run, those in which the machine only waited for a descriptor.
    """

    def __init__(self, dma: DmaModel, units: Sequence[UnitSlot], ahead: int) -> None:
        self.dma, self.units, self._ahead = dma, tuple(units), ahead
        self._fetch: FetchModel | None = None
        self.cycle = self.fetch_cycles = 0

    def run(self, items: Sequence[Descriptor], address: int) -> RunCycles:
        """Cycles of every descriptor of a run; the last is END.

        While the machine is stopped at a HOST descriptor it goes on fetching; the host is taken to need longer.
        """
        self._fetch = fetch = FetchModel(self.dma.readers["fetch"], address, len(items), self._ahead)
        begun, self.fetch_cycles = self.cycle, 0
        found, index, waited, stopped = RunCycles([0] * len(items)), 0, 0, 0
        while True:
            item = items[index]
            busy = [unit for unit in self.units if unit.index is not None]
            blocked = not fetch.full or any(self._blocks(unit, item) for unit in busy)
            self.fetch_cycles += not fetch.full and not busy
            starts = None if blocked else next((unit for unit in self.units if item.kind in unit.kinds), None)
            if starts is not None and starts.model.room:
                starts.model.start(item)
                fetch.take = True
            else:
                starts = None
            self._hear(busy, found)
            if fetch.full and not busy and item.kind is Kind.END:
                break
            stops = fetch.full and not busy and item.kind is Kind.HOST
            fetch.take = fetch.take or stops
            self._step()
            waited = 0 if busy and blocked else waited + 1
            if starts is not None:
                starts.index, starts.kind, starts.begun = index, item.kind, self.cycle - waited
            if stops:
                found[index] = waited
                stopped += self._stop(fetch)
            if stops or starts is not None:
                index, waited = index + 1, 0
        first = self.cycle - waited
        self._step()  # dispatch of END
        while not self.dma.idle:
            self._step()
        self._step()
        found[index] = self.cycle - first
        found.total, self._fetch = self.cycle - begun - stopped, None
        return found

    def _blocks(self, unit: UnitSlot, item: Descriptor) -> bool:
        """A unit at work keeps a descriptor from starting."""
        same = any(item.kind in other.kinds for other in self.units if other.ports == unit.ports)
        return same or not item.fields.get("beside", 0) >> unit.kind & 1

    def _hear(self, busy: list[UnitSlot], found: list[int]) -> None:
        """The first unit that has ended is heard in this cycle."""
        for unit in busy:
            if unit.model.done:
                assert unit.index is not None
                unit.model.take_done = True
                found[unit.index] = self.cycle + 1 - unit.begun
                unit.index = None
                return

    def _stop(self, fetch: FetchModel) -> int:
        """Cycles until nothing moves any more; they do not count."""
        begun = self.cycle
        while not fetch.settled or not self.dma.silent:
            self._step()
        return self.cycle - begun

    def _step(self) -> None:
        if self._fetch is not None:
            self._fetch.step()
        for unit in self.units:
            unit.model.step()
        self.dma.step()
        self.cycle += 1
