"""Cycles of an instruction stream on a core: issue width, ports, dependences, window, mispredicted exits.

A list scheduler in program order. Every instruction waits for an issue slot, for its operands, and for a free port of
each of its micro-ops; an out-of-order core lets later instructions use ports that earlier ones leave idle, within its
window. Loads hit the first-level cache: what they cost beyond it is :mod:`.footprint`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from ...models.core import Core, Operation
from ...models.errors import NmsatError


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a stream.

    ``op`` is a key of the core's ``operations``. ``reads`` and ``writes`` are register names; a name in brackets is
    a stack slot, through which a store forwards to a load. ``addend`` is the read operand that only the sum needs.
    ``writeback`` is a base register that addressing updates. ``exits`` marks a branch that may be mispredicted.
    """

    op: str
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    addend: str = ""
    writeback: str = ""
    exits: bool = False


Stream = Sequence[Instruction]


def operation(core: Core, name: str) -> Operation:
    """The core's cost of an operation, or an :class:`NmsatError` that names it."""
    try:
        return core.operations[name]
    except KeyError:
        raise NmsatError.rule(f"core {core.name}", f"operations.{name}", "given for this stream", None) from None


class Pipeline:
    """State of a core while a stream is issued; ``run`` may be called again to go on with more instructions."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.cycle = 0  # of the next issue slot
        self.slots = 0  # taken in this cycle
        self.loads = 0  # micro-ops that load, in this cycle's group
        self.ready: dict[str, int] = {}
        self.sums: set[str] = set()  # registers last written by a sum: only those forward early to an addend
        self.taken: dict[str, set[int]] = {}
        self.load: dict[str, int] = {}
        self.retired: list[int] = []
        self.finish = 0

    def run(self, stream: Iterable[Instruction]) -> int:
        """Issue the stream; the cycle in which the last of everything issued so far is done."""
        for item in stream:
            self._issue(item)
        return self.finish

    def flush(self, resolved: int) -> None:
        """Nothing issues before a branch resolved in cycle ``resolved`` has refilled the front end."""
        self._at_least(resolved + self.core.mispredict_cycles.value)

    def _at_least(self, cycle: int) -> None:
        if cycle > self.cycle:
            self.cycle, self.slots, self.loads = cycle, 0, 0

    def _slot(self, count: int, loads: bool = False) -> int:
        """Take ``count`` issue slots, of one cycle where they fit in one; the cycle of the last.

        A group of as many slots as the core is wide takes a second cycle when more of it load than the core allows.
        """
        width, most = self.core.issue_width.value, self.core.group_loads
        if self.slots and self.slots + count > width:
            self.cycle, self.slots, self.loads = self.cycle + 1, 0, 0
        self.slots += count
        while self.slots > width:
            self.cycle, self.slots, self.loads = self.cycle + 1, self.slots - width, 0
        self.loads += loads
        if most is not None and self.loads > most.value:
            self.cycle, self.loads = self.cycle + 1, 1
        return self.cycle

    def _issue(self, item: Instruction) -> None:
        core, cost = self.core, operation(self.core, item.op)
        window = core.window.value
        if not core.in_order and len(self.retired) >= window:
            self._at_least(self.retired[-window])
        start = self._operands(item, cost)
        slots = cost.slots + (operation(core, "writeback").slots if item.writeback else 0)
        if core.in_order:
            if core.ordered_results:
                first = min(cost.latency, operation(core, "writeback").latency) if item.writeback else cost.latency
                start = max(start, self.finish - first)
            self._at_least(start)
            start = self._free(cost, self.cycle)
            self._at_least(start)
            at = self._slot(slots)
            start = self._claim(cost, max(start, at))
        else:
            start = self._claim(cost, max(start, self._slot(slots, item.op.endswith("load"))))
        done = start + cost.latency
        (self.sums.update if item.addend else self.sums.difference_update)(item.writes)
        for name in item.writes:
            self.ready[name] = done + (core.store_forward_cycles.value if name.startswith("[") else 0)
        if item.writeback:
            back = operation(core, "writeback")
            at = self._claim(back, start)
            self.ready[item.writeback] = at + back.latency
        self.finish = max(self.finish, done)
        self.retired.append(max(done, self.retired[-1]) if self.retired else done)
        if len(self.retired) > 4 * window:
            del self.retired[: 3 * window]
        if item.exits:
            self.flush(start + cost.latency)

    def _operands(self, item: Instruction, cost: Operation) -> int:
        start = 0
        for name in item.reads:
            ready = self.ready.get(name, 0)
            if name == item.addend and name in self.sums and cost.accumulate_latency is not None:
                ready -= cost.latency - cost.accumulate_latency
            if name.startswith("["):
                ready -= cost.latency
            start = max(start, ready)
        return start

    def _free(self, cost: Operation, start: int) -> int:
        """First cycle from ``start`` on in which every micro-op finds a port (in-order cores)."""
        while True:
            if all(any(start not in self.taken.get(port, ()) for port in group) for group in cost.groups):
                return start
            start += 1

    def _claim(self, cost: Operation, start: int) -> int:
        """Take a port for every micro-op, each as early as one is free; the cycle of the last."""
        last = start
        for group in cost.groups:
            at, _, port = min((self._first(port, start, cost.busy), self.load.get(port, 0), port) for port in group)
            taken = self.taken.setdefault(port, set())
            taken.update(range(at, at + cost.busy))
            self.load[port] = self.load.get(port, 0) + cost.busy
            last = max(last, at)
        return last

    def _first(self, port: str, start: int, busy: int) -> int:
        taken = self.taken.get(port)
        if not taken:
            return start
        while any(start + i in taken for i in range(busy)):
            start += 1
        return start


def steady_cycles(core: Core, body: Stream, iterations: int = 48) -> float:
    """Cycles an iteration of an endless loop: the slope over the second half of 2 x ``iterations``."""
    if not body:
        return 0.0
    pipeline = Pipeline(core)
    for _ in range(iterations):
        pipeline.run(body)
    half = pipeline.finish
    for _ in range(iterations):
        pipeline.run(body)
    return (pipeline.finish - half) / iterations


def issue_cycles(core: Core, stream: Stream) -> float:
    """Cycles that the issue width alone allows."""
    slots = sum(operation(core, item.op).slots for item in stream)
    slots += sum(operation(core, "writeback").slots for item in stream if item.writeback)
    return slots / core.issue_width.value


def port_cycles(core: Core, stream: Stream) -> tuple[float, str]:
    """Cycles that the fullest set of ports allows, and that set: max over unions of groups of work / ports."""
    work: dict[tuple[str, ...], int] = {}
    for item in stream:
        costs = [operation(core, item.op)] + ([operation(core, "writeback")] if item.writeback else [])
        for cost in costs:
            for group in cost.groups:
                work[group] = work.get(group, 0) + cost.busy
    best, name = 0.0, ""
    groups = list(work)
    for count in range(1, min(len(groups), 4) + 1):
        for chosen in combinations(groups, count):
            ports = set().union(*chosen)
            inside = sum(amount for group, amount in work.items() if set(group) <= ports)
            if inside / len(ports) >= best - 1e-9:
                best, name = inside / len(ports), "/".join(sorted(ports))
    return best, name


def bound(core: Core, body: Stream, cycles: float) -> str:
    """What holds a loop back: ``issue``, ``ports X/Y``, or ``latency`` when neither explains its cycles."""
    issue, (ports, name) = issue_cycles(core, body), port_cycles(core, body)
    if max(issue, ports) < 0.85 * cycles:
        return "latency"
    return "issue" if issue >= ports else f"ports {name}"
