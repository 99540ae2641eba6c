"""Amaranth's own simulator: no build, every port a Python object; some hundred cycles a second."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, ResetInserter, Shape, Signal, Value
from amaranth.sim import Simulator

from .bench import Bench, Body


class AmaranthBench(Bench):
    """A component under Amaranth's simulator; ``context`` is what it hands to a testbench."""

    def __init__(self, component: Any, reset: Signal, context: Any) -> None:
        self._context = context
        self._ports: dict[str, Value] = {"rst": reset}
        for path, _, value in component.signature.flatten(component):
            self._ports["__".join(map(str, path))] = Value.cast(value)
        self.widths = {name: len(value) for name, value in self._ports.items()}

    def set(self, port: str, value: int) -> None:
        target = self._ports[port]
        shape = Shape.cast(target.shape())
        wrapped = value - (1 << shape.width) if shape.signed and value >> (shape.width - 1) else value
        self._context.set(target, wrapped)

    def get(self, port: str) -> int:
        value = self._ports[port]
        return self._context.get(value) & ((1 << len(value)) - 1)

    async def settle(self) -> None:
        """Nothing to do: a value is current when it is read."""

    async def tick(self) -> None:
        await self._context.tick()


def run_amaranth(component: Any, body: Body, arguments: dict[str, Any], waves: str | None = None) -> Any:
    """Run a test body on a component; ``waves`` names a VCD file."""
    top, reset, found = Module(), Signal(name="rst"), []
    top.submodules.dut = ResetInserter(reset)(component)
    top.d.sync += Signal().eq(0)  # the clock exists for components without registers, too

    async def testbench(context: Any) -> None:
        found.append(await body(AmaranthBench(component, reset, context), **arguments))

    simulator = Simulator(top)
    simulator.add_clock(1e-8)
    simulator.add_testbench(testbench)
    if waves is None:
        simulator.run()
    else:
        with simulator.write_vcd(waves):
            simulator.run()
    return found[0]
