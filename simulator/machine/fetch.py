"""The fetching of descriptors in cycles: :class:`nmsat.rtl.fetcher.Fetcher`, register by register."""

from __future__ import annotations

from typing import Any

from ...dataflow.program import DESCRIPTOR_BYTES


class FetchModel:
    """The fetcher of one run, whose first cycle is that of the first request.

    Parameters
    ----------
    port : ReadPortModel
    address : int
        Of the program.
    limit, ahead : int
        Descriptors that may be asked for; of those, how many before their turn.

    Attributes
    ----------
    full : bool
        The next descriptor is there.
    take : bool
        Set it: the descriptor is taken in this cycle. Cleared by every step.
    """

    __slots__ = ("_address", "_ahead", "_left", "_pending", "_port", "full", "take")

    def __init__(self, port: Any, address: int, limit: int, ahead: int) -> None:
        self._port, self._address, self._left, self._ahead = port, address, limit, ahead
        self._pending, self.full, self.take = 0, False, False

    @property
    def settled(self) -> bool:
        """Nothing changes until a descriptor is taken."""
        return (self.full or not self._pending) and (self._pending == self._ahead or not self._left)

    def step(self) -> None:
        """End the cycle; before the port's step."""
        port, full = self._port, self.full
        asks = self._pending < self._ahead and self._left > 0
        if asks:
            port.ask(self._address, DESCRIPTOR_BYTES)
            self._address += DESCRIPTOR_BYTES
            self._left -= 1
        comes = bool(port.word) and not full
        port.take = comes
        self._pending += asks - self.take
        self.full = (full and not self.take) or (comes and port.word == 2)
        self.take = False
