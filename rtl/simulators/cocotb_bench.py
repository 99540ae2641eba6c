"""A design under cocotb as a :class:`Bench`; also for a user's own cocotb tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cocotb.triggers import Timer

from .bench import Bench

_HALF = 5  # ns; the clock is driven from here, so that inputs and edges never race


class CocotbBench(Bench):
    """A cocotb handle of a generated design.

    Parameters
    ----------
    dut : handle
        The outermost module; nothing else may drive its clock.
    widths : dict, optional
        Width of every port but the clock; default: asked of the handle.
    """

    def __init__(self, dut: Any, widths: dict[str, int] | None = None) -> None:
        self._clock = getattr(dut, "clk", None)
        if widths is None:
            widths = {handle._name: len(handle) for handle in dut if hasattr(handle, "value") and handle._name != "clk"}
        self.widths = widths
        self._handles = {name: getattr(dut, name) for name in widths}

    def clear(self, inputs: Iterable[str]) -> None:
        """Set inputs, and the clock, to 0: Verilog starts them unknown."""
        for name in inputs:
            self._handles[name].value = 0
        if self._clock is not None:
            self._clock.value = 0

    def set(self, port: str, value: int) -> None:
        self._handles[port].value = value

    def get(self, port: str) -> int:
        value = self._handles[port].value
        return int(value.to_unsigned() if hasattr(value, "to_unsigned") else value)

    async def settle(self) -> None:
        await Timer(_HALF, unit="ns")

    async def tick(self) -> None:
        if self._clock is not None:
            self._clock.value = 1
        await Timer(_HALF, unit="ns")
        if self._clock is not None:
            self._clock.value = 0
