"""A unit, or an engine of one, in another super logic region than what it works for: its streams pass registers."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .memory_port import REQUEST, ReadClient, WriteClient, read_word
from .queue import Queue
from .regions import across

_STATUS = data.StructLayout({"status": 8})


def link_depth(hop: int) -> int:
    """Words of a link's queue: a word a cycle, though its place is free for another only when word of it has come."""
    return 2 * hop + 2


def links_of(data_bits: int) -> dict[str, tuple[Any, bool]]:
    """Streams of a unit's clients by name: shape of a word, and whether words go to the unit."""
    return {
        "request": (REQUEST, False), "words": (read_word(data_bits), True),
        "out_request": (REQUEST, False), "out_words": (data_bits, False),
    }  # fmt: skip


def wires(data_bits: int, *, far: bool) -> dict[str, Any]:
    """Ports of an end, the wires between the ends: a strobe and a word of every link, and its room given back."""
    found: dict[str, Any] = {}

    def wire(name: str, shape: Any, to_unit: bool) -> None:
        found[name] = In(shape) if to_unit == far else Out(shape)

    for name, (shape, to_unit) in links_of(data_bits).items():
        wire(f"{name}_moves", 1, to_unit)
        wire(f"{name}_word", Shape.cast(shape).width, to_unit)
        wire(f"{name}_freed", 1, not to_unit)
    for name, width, to_unit in (
        ("starts", 1, True), ("descriptor", 2048, True), ("answers", 1, True), ("answer", 2, True),
        ("ends", 1, False), ("status", 8, False),
    ):  # fmt: skip
        wire(name, width, to_unit)
    return found


def _send(m: Module, end: Any, name: str, source: Any, depth: int) -> None:
    """A stream into a link, as long as the queue at its end has room, words on the way counted."""
    free = Signal(range(depth + 1), init=depth, name=f"{name}_free")
    moves = getattr(end, f"{name}_moves")
    m.d.comb += [
        moves.eq(source.valid & source.ready), source.ready.eq(free != 0),
        getattr(end, f"{name}_word").eq(Value.cast(source.payload)),
    ]  # fmt: skip
    m.d.sync += free.eq(free - moves + getattr(end, f"{name}_freed"))


def _receive(m: Module, end: Any, name: str, target: Any, depth: int) -> None:
    """A link's queue, and the stream out of it."""
    word = getattr(end, f"{name}_word")
    queue = Queue(len(word), depth)
    m.submodules[f"{name}_queue"] = queue
    m.d.comb += [
        queue.i.valid.eq(getattr(end, f"{name}_moves")), queue.i.payload.eq(word),
        Value.cast(target.payload).eq(queue.o.payload), target.valid.eq(queue.o.valid),
        queue.o.ready.eq(target.ready), getattr(end, f"{name}_freed").eq(queue.o.valid & target.ready),
    ]  # fmt: skip


def _streams(read: Any, write: Any) -> dict[str, Any]:
    return {
        "request": read.request, "words": read.words, "out_request": write.request, "out_words": write.words,
    }  # fmt: skip


class EngineEnd(wiring.Component):
    """An end of the two links of a :class:`RemoteEngine`: the engine's, with the engine, or the other one.

    Ports
    -----
    i_moves, i_word, i_freed, o_moves, o_word, o_freed
        Wires to the other end.
    i, o
        Without an engine, its streams.
    """

    def __init__(self, *, engine: Any, far: bool, hop: int) -> None:
        self.engine, self.far, self.depth = engine, far, link_depth(hop)
        streams = {name: engine.signature.members[name] for name in ("i", "o")}
        ports = engine_wires(engine, far=far) | ({} if far else streams)
        steady = engine.signature.members if far else {}
        super().__init__(ports | {name: member for name, member in steady.items() if name not in streams})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        if not self.far:
            _send(m, self, "i", self.i, self.depth)
            _receive(m, self, "o", self.o, self.depth)
            return m
        m.submodules.engine = engine = self.engine
        _receive(m, self, "i", engine.i, self.depth)
        _send(m, self, "o", engine.o, self.depth)
        for name in steady_inputs(engine):
            m.d.comb += Value.cast(getattr(engine, name)).eq(Value.cast(getattr(self, name)))
        return m


def engine_wires(engine: Any, *, far: bool) -> dict[str, Any]:
    """Ports of an end of an engine's links."""
    found: dict[str, Any] = {}
    for name, layout, to_engine in (("i", engine.i_layout, True), ("o", engine.o_layout, False)):
        forth, back = (In, Out) if to_engine == far else (Out, In)
        found |= {
            f"{name}_moves": forth(1), f"{name}_word": forth(Shape.cast(layout).width), f"{name}_freed": back(1)
        }  # fmt: skip
    return found


def steady_inputs(engine: Any) -> list[str]:
    """Inputs of an engine beside its streams."""
    return [name for name in engine.signature.members if name not in ("i", "o")]


class RemoteEngine(wiring.Component):
    """An engine with an input stream and an output stream, ``hop`` registers away, at the ports of that engine.

    A word comes ``hop + 1`` cycles later to it, and as much later from it; a word a cycle.

    Parameters
    ----------
    engine : Component
        With streams ``i`` of ``i_layout`` and ``o`` of ``o_layout``; other inputs are steady while words are inside.
    hop : int
    """

    def __init__(self, *, engine: Any, hop: int) -> None:
        self.engine, self.hop = engine, hop
        super().__init__(dict(engine.signature.members))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.far = far = EngineEnd(engine=self.engine, far=True, hop=self.hop)
        m.submodules.near = near = EngineEnd(engine=self.engine, far=False, hop=self.hop)
        wiring.connect(m, wiring.flipped(self.i), near.i)
        wiring.connect(m, wiring.flipped(self.o), near.o)
        for name, member in engine_wires(self.engine, far=True).items():
            source, target = (near, far) if member.flow is wiring.In else (far, near)
            payload = name.endswith("_word")
            m.d.comb += getattr(target, name).eq(across(m, getattr(source, name), self.hop, name, payload=payload))
        for name in steady_inputs(self.engine):
            m.d.comb += Value.cast(getattr(far, name)).eq(across(m, getattr(self, name), self.hop, name, payload=True))
        return m


class FarEnd(wiring.Component):
    """The unit and its ends of the links."""

    def __init__(self, *, unit: Any, data_bits: int, hop: int) -> None:
        self.unit, self.data_bits, self.depth = unit, data_bits, link_depth(hop)
        super().__init__(wires(data_bits, far=True))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit
        for name, (_, to_unit) in links_of(self.data_bits).items():
            (_receive if to_unit else _send)(m, self, name, _streams(unit.read, unit.write)[name], self.depth)
        m.d.comb += [
            unit.start.valid.eq(self.starts), unit.start.payload.eq(self.descriptor),
            unit.write.done.valid.eq(self.answers), Value.cast(unit.write.done.payload).eq(self.answer),
            unit.done.ready.eq(1), self.ends.eq(unit.done.valid), self.status.eq(unit.done.payload.status),
        ]  # fmt: skip
        return m


class NearEnd(wiring.Component):
    """The ends of the links beside controller and memory ports: with the unit's ports, and what it is at."""

    def __init__(self, *, data_bits: int, hop: int) -> None:
        self.data_bits, self.depth = data_bits, link_depth(hop)
        super().__init__(wires(data_bits, far=False) | _unit_ports(data_bits))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for name, (_, to_unit) in links_of(self.data_bits).items():
            (_send if to_unit else _receive)(m, self, name, _streams(self.read, self.write)[name], self.depth)
        busy = Signal()
        m.d.comb += [
            self.start.ready.eq(~busy), self.starts.eq(self.start.valid & ~busy),
            self.descriptor.eq(self.start.payload),
            self.write.done.ready.eq(1), self.answers.eq(self.write.done.valid),
            self.answer.eq(Value.cast(self.write.done.payload)),
        ]  # fmt: skip
        with m.If(self.starts):
            m.d.sync += busy.eq(1)
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += [busy.eq(0), self.done.valid.eq(0)]
        with m.If(self.ends):
            m.d.sync += [self.done.valid.eq(1), self.done.payload.status.eq(self.status)]
        return m


def _unit_ports(data_bits: int) -> dict[str, Any]:
    return {
        "start": In(stream.Signature(2048)), "done": Out(stream.Signature(_STATUS)),
        "read": Out(ReadClient(data_bits)), "write": Out(WriteClient(data_bits)),
    }  # fmt: skip


class RemoteUnit(wiring.Component):
    """A unit with one read and one write client, ``hop`` registers away, at the ports of such a unit.

    A word of a stream comes ``hop + 1`` cycles after it has gone, the last one in a queue; a stream moves a word a
    cycle, and stops when the queue at its end has no room for another. Descriptors, ends and the write client's
    answers, which nobody keeps waiting there, come ``hop`` cycles later; an end is then kept here until it is heard.

    Parameters
    ----------
    unit : Component
        With ``start``, ``done``, ``read``, ``write``; idle when its end was taken, and always ready for answers.
    data_bits, hop : int

    Ports
    -----
    start, done, read, write
        Of the unit.
    """

    def __init__(self, *, unit: Any, data_bits: int, hop: int) -> None:
        self.unit, self.data_bits, self.hop = unit, data_bits, hop
        super().__init__(_unit_ports(data_bits))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.far = far = FarEnd(unit=self.unit, data_bits=self.data_bits, hop=self.hop)
        m.submodules.near = near = NearEnd(data_bits=self.data_bits, hop=self.hop)
        for name in _unit_ports(self.data_bits):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(near, name))
        for name, member in wires(self.data_bits, far=True).items():
            source, target = (near, far) if member.flow is wiring.In else (far, near)
            payload = name.endswith("_word") or name in ("descriptor", "answer", "status")
            m.d.comb += getattr(target, name).eq(across(m, getattr(source, name), self.hop, name, payload=payload))
        return m
