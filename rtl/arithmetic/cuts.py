"""Where a datapath is cut by registers: one description for every latency."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value, ValueLike


class Stages:
    """Places a given number of registers at named cuts of a datapath.

    The datapath names its possible cuts in order and asks for each. With fewer registers than cuts they are spread
    evenly; with more, the surplus is at the last cut. What travels beside them says whether their contents mean
    anything. They have a reset only so that synthesis keeps flip-flops and spends no LUT on shift registers.

    Parameters
    ----------
    module : Module
        The registers are added to its ``sync`` domain.
    cuts : tuple of str
        Names in the order in which the datapath meets them.
    registers : int
        How many to place, 0 or more.
    """

    def __init__(self, module: Module, cuts: tuple[str, ...], registers: int) -> None:
        self._module = module
        count = len(cuts)
        if registers >= count:
            self._depth = dict.fromkeys(cuts, 1)
            self._depth[cuts[-1]] += registers - count
        else:
            chosen = {(place + 1) * (count + 1) // (registers + 1) - 1 for place in range(registers)}
            self._depth = {name: int(place in chosen) for place, name in enumerate(cuts)}

    def cut(self, name: str, *values: ValueLike) -> list[Value]:
        """The values behind this cut: registered, or unchanged where it has no register."""
        found = [Value.cast(value) for value in values]
        if not self._depth[name]:  # a signal all the same: a value used twice would be written out twice, and so on
            wires = [Signal(len(value), name=f"{name}_{i}") for i, value in enumerate(found)]
            self._module.d.comb += [wire.eq(value) for wire, value in zip(wires, found, strict=True)]
            return list(wires)
        for level in range(self._depth[name]):
            held = [Signal(len(value), name=f"{name}{level}_{i}") for i, value in enumerate(found)]
            self._module.d.sync += [register.eq(value) for register, value in zip(held, found, strict=True)]
            found = list(held)
        return found
