"""Where a datapath is cut by registers: one description for every latency."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, ValueLike


class Stages:
    """Places a given number of registers at named cuts of a datapath.

    The datapath names its possible cuts in order and asks for each. With fewer registers than cuts they are spread
    evenly; with more, the surplus is at the last cut. What travels beside them says whether their contents mean
    anything, so they need no reset. One that only passes on what another holds has it all the same: synthesis keeps
    flip-flops then and spends no LUT on shift registers. The others leave theirs to synthesis, for a mask.

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
        self._held: dict[int, Signal] = {}  # registers by identity
        count = len(cuts)
        if registers >= count:
            self._depth = dict.fromkeys(cuts, 1)
            self._depth[cuts[-1]] += registers - count
        else:
            chosen = {(place + 1) * (count + 1) // (registers + 1) - 1 for place in range(registers)}
            self._depth = {name: int(place in chosen) for place, name in enumerate(cuts)}

    def depth(self, name: str) -> int:
        """Registers at a cut."""
        return self._depth[name]

    def cut(self, name: str, *values: ValueLike, clear: tuple[Value, Value] | None = None) -> list[Value]:
        """The values behind this cut: registered, or unchanged where it has no register.

        Parameters
        ----------
        clear : pair of values, 1 bit, optional
            While the first is high the values are 0 instead. The second is the first a cycle earlier: the registers are
            reset by it, which costs nothing.
        """
        found = [Value.cast(value) for value in values]
        if not self._depth[name]:  # a signal all the same: a value used twice would be written out twice, and so on
            wires = [Signal(len(value), name=f"{name}_{i}") for i, value in enumerate(found)]
            for wire, value in zip(wires, found, strict=True):
                self._module.d.comb += wire.eq(value if clear is None else Mux(clear[0], 0, value))
            return list(wires)
        for level in range(self._depth[name]):
            zero = clear[1] if clear is not None and level == self._depth[name] - 1 else None
            held = [
                Signal(
                    len(value), name=f"{name}{level}_{i}", reset_less=zero is not None or id(value) not in self._held
                )
                for i, value in enumerate(found)
            ]
            self._held |= {id(register): register for register in held}
            self._module.d.sync += [register.eq(value) for register, value in zip(held, found, strict=True)]
            if zero is not None:
                with self._module.If(zero):
                    self._module.d.sync += [register.eq(0) for register in held]
            found = list(held)
        return found
