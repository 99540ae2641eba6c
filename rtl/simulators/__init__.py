"""Five ways to run a generated design, one interface.

=========  =======================  ============================================
``sim``    runs                     good for
=========  =======================  ============================================
amaranth   the description          a first look, small designs
icarus     its Verilog, by cocotb   a second opinion
verilator  its Verilog, by cocotb   what users of the Verilog run
cxxrtl     its RTLIL, as C++        many cases of a block, arrays
verilated  its Verilog, as C++      the whole accelerator
=========  =======================  ============================================
"""

from __future__ import annotations

from typing import Any

from ...models.errors import NmsatError
from ..emit import Emission, Emitted
from .bench import Bench, Body

SIMULATORS = ("amaranth", "icarus", "verilator", "cxxrtl", "verilated")

__all__ = ["SIMULATORS", "Bench", "Body", "run_bench", "run_emitted", "simulate"]


def run_bench(
    component: Any,
    name: str,
    body: Body,
    arguments: dict[str, Any],
    sim: str = "cxxrtl",
    waves: str | None = None,
    *,
    primitives: bool = False,
) -> Any:
    """Run a test body on a component and return its result.

    Parameters
    ----------
    component : Component
        Used up: make a new one for another run.
    name : str
        Name of the outermost module.
    body, arguments
        See :class:`Bench`. JSON values only.
    sim : str
        One of ``SIMULATORS``.
    waves : str, optional
        File for the waveforms; not with cxxrtl and verilated, which keep no names.
    primitives : bool
        Run the text for the card, on models of its cells; icarus, verilator and verilated.

    Raises
    ------
    NmsatError
        An unknown simulator, waves where there are none, or primitives where they cannot run.
    MissingToolError
        The simulator is not installed.
    """
    if sim not in SIMULATORS:
        raise NmsatError.rule("", "sim", f"one of {', '.join(SIMULATORS)}", sim)
    if primitives and sim not in ("icarus", "verilator", "verilated"):
        raise NmsatError.rule("", "sim", "icarus, verilator or verilated for the card's cells", sim)
    if sim == "amaranth":
        from .amaranth_sim import run_amaranth

        return run_amaranth(component, body, arguments, waves)
    return run_emitted(Emission(primitives=primitives).emit(component, name), body, arguments, sim, waves)


def run_emitted(
    emitted: Emitted, body: Body, arguments: dict[str, Any], sim: str = "cxxrtl", waves: str | None = None
) -> Any:
    """:func:`run_bench` on what was emitted before; every simulator but ``amaranth``, which runs descriptions."""
    if sim not in SIMULATORS or sim == "amaranth":
        raise NmsatError.rule("", "sim", f"one of {', '.join(SIMULATORS[1:])} for emitted text", sim)
    if sim in ("cxxrtl", "verilated"):
        if waves is not None:
            raise NmsatError.rule("", "waves", f"left out with {sim}", waves, "use amaranth, icarus or verilator")
        if sim == "cxxrtl":
            from .cxxrtl import run_cxxrtl as run
        else:
            from .verilated import run_verilated as run
        return run(emitted, body, arguments)
    from .cocotb_sim import run_cocotb

    return run_cocotb(emitted, body, arguments, "icarus" if sim == "icarus" else "verilator", waves)


def simulate(
    component: Any, name: str, stimuli: dict[str, list[int]], sim: str = "cxxrtl", waves: str | None = None
) -> dict[str, list[int]]:
    """Outputs of every cycle for inputs known beforehand, after two cycles of reset.

    Parameters
    ----------
    stimuli : dict
        A value a cycle for inputs by port name, equally many each; inputs left out are 0.
    """
    cycles = {len(values) for values in stimuli.values()}
    if len(cycles) != 1:
        raise NmsatError.rule("", "stimuli", "equally many values for every port", sorted(cycles))
    outputs = [
        "__".join(map(str, path))
        for path, member, _ in component.signature.flatten(component)
        if member.flow.flip() == member.flow.In
    ]
    return run_bench(component, name, open_loop, {"stimuli": stimuli, "outputs": outputs}, sim, waves)


async def open_loop(bench: Bench, stimuli: dict[str, list[int]], outputs: list[str]) -> dict[str, list[int]]:
    """The body of :func:`simulate`."""
    await bench.reset()
    found: dict[str, list[int]] = {port: [] for port in outputs}
    for cycle in range(len(next(iter(stimuli.values())))):
        for port, values in stimuli.items():
            bench.set(port, values[cycle])
        await bench.settle()
        for port in outputs:
            found[port].append(bench.get(port))
        await bench.tick()
    return found
