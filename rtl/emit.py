"""One description, two uses: plain submodules under Amaranth's simulator, one module per element type when emitted.

Amaranth does not merge identical submodules: a 32x32 array would be written with 1,024 elements. A component that is
replicated is therefore created by :func:`place`, which asks the platform what to do. Without an
:class:`Emission` it is a submodule like any other; under one, every distinct (class, parameters) is converted to RTLIL
once and placed by ``Instance`` everywhere.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import (
    ClockSignal,
    Instance,
    Module,
    ResetSignal,
    Shape,
    ShapeCastable,
    Signal,
    Value,
    ValueCastable,
)  # fmt: skip
from amaranth.lib import wiring

from ..models.errors import NmsatError

_MODULE = re.compile(r"^module \\(\S+)$", re.M)
_PORT = re.compile(r"^  wire (?:width (\d+) )?(input|output) \d+ +(?:signed +)?\\(\S+)$", re.M)
_CELL = re.compile(r"^(\s+cell )\\(\S+) ", re.M)
_ESCAPED = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True)
class Port:
    """A port of an emitted module: its name, its width in bits and whether it is an input."""

    name: str
    width: int
    is_input: bool


@dataclass(frozen=True, slots=True)
class Emitted:
    """A component and everything it places, as RTLIL.

    Attributes
    ----------
    top : str
        Name of the outermost module.
    rtlil : str
        All modules; elements come before those that place them.
    ports : tuple of Port
        Of the outermost module, ``clk`` and ``rst`` included where it has registers.
    instances : dict
        Modules of the text and how often each occurs in the design, the outermost one once.
    primitives : bool
        Cells of the card are placed: simulators need ``rtl/ultrascale.v`` beside the text.
    """

    top: str
    rtlil: str
    ports: tuple[Port, ...]
    instances: dict[str, int]
    primitives: bool = False


def place(module: Module, platform: Any, name: str, element: Callable[..., Any], /, **parameters: Hashable) -> Any:
    """Add ``element(**parameters)`` to ``module`` as submodule ``name`` and return the object that has its ports.

    Parameters
    ----------
    module, platform : Module and the ``platform`` argument of the caller's ``elaborate``
        The platform must be handed on unchanged: it says how the element is placed.
    name : str
        Name of the submodule inside ``module``.
    element : class of a Component
        In the ``sync`` domain only. It must follow from its parameters alone.
    parameters : hashable
        Keyword arguments of the constructor; equal ones share one emitted module.
    """
    if isinstance(platform, Emission):
        return platform.place(module, name, element, parameters)
    placed = element(**parameters)
    module.submodules[name] = placed
    return placed


class Emission:
    """The platform under which a component is converted; it remembers each element type it has converted.

    Parameters
    ----------
    primitives : bool
        Place the card's primitives (DSP48E2, CARRY8) where an element has a use for them; without it, plain logic.
    """

    def __init__(self, *, primitives: bool = False) -> None:
        self.primitives = primitives
        self._texts: list[str] = []
        self._elements: dict[Hashable, tuple[str, tuple[Port, ...], wiring.Signature]] = {}
        self._cells: dict[str, Counter[str]] = {}
        self._names: set[str] = set()

    def place(self, module: Module, name: str, element: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        """Place the element by ``Instance``; see :func:`place`."""
        key: Hashable = (element, tuple(sorted(parameters.items())))
        if key not in self._elements:
            made = element(**parameters)
            label = self._fresh(_snake(element.__name__))
            self._elements[key] = (label, self._convert(made, label), made.signature)
        label, ports, signature = self._elements[key]
        present = {port.name for port in ports}
        interface = _interface(signature, name)
        arguments: dict[str, Any] = {}
        for port, is_input, value in _ports_of(signature, interface):
            if port in present:  # ports of no width are not emitted
                arguments[("i_" if is_input else "o_") + port] = value
        for port, signal in (("clk", ClockSignal("sync")), ("rst", ResetSignal("sync"))):
            if port in present:
                arguments[f"i_{port}"] = signal
        module.submodules[name] = Instance(label, **arguments)
        return interface

    def emit(self, component: Any, name: str) -> Emitted:
        """Convert a component and everything it places.

        Parameters
        ----------
        component : Component
            In the ``sync`` domain only.
        name : str
            Name of the outermost module.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise NmsatError.rule("", "name", "a lower-case identifier", name)
        with _nothing_collected():
            ports = self._convert(component, self._fresh(name))
        counts: Counter[str] = Counter({name: 1})
        for label in reversed(list(self._cells)):  # a module is converted after those that it places
            for placed, times in self._cells[label].items():
                if placed not in self._cells:  # a primitive
                    continue
                counts[placed] += times * counts[label]
        return Emitted(name, "".join(self._texts), ports, dict(sorted(counts.items())), self.primitives)

    def _fresh(self, name: str) -> str:
        label, number = name, 2
        while label in self._names:
            label, number = f"{name}_{number}", number + 1
        self._names.add(label)
        return label

    def _convert(self, component: Any, label: str) -> tuple[Port, ...]:
        text = rtlil.convert(component, name=label, platform=self, emit_src=False)
        inner = [name for name in _MODULE.findall(text) if name != label]
        renamed = {name: self._fresh(_ESCAPED.sub("_", name)) for name in inner}
        text = _MODULE.sub(lambda found: f"module \\{renamed.get(found[1], found[1])}", text)
        text = with_kinds(text, renamed)
        bodies = module_texts(text)
        ordered = _children_first(label, bodies)
        for name in ordered:
            self._cells[name] = Counter(kinds_of(bodies[name]))
        self._texts.append(text)
        return tuple(
            Port(name, int(width or 1), direction == "input") for width, direction, name in _PORT.findall(bodies[label])
        )


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Without the collector of cycles: a conversion makes millions of objects and drops few, and looking through them
    time and again is a quarter of it (a 32x32 top: 28 s for 37 s, with 0.8 GB for 0.4 GB)."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def module_texts(rtlil: str) -> dict[str, str]:
    """RTLIL text of every module, by name, without the attributes before it."""
    found = list(_MODULE.finditer(rtlil))
    ends = [m.start() for m in found[1:]] + [len(rtlil)]
    texts = {m[1]: rtlil[m.start() : end] for m, end in zip(found, ends, strict=True)}
    return {name: text[: text.rindex("\nend\n") + 5] for name, text in texts.items()}  # the next one's follow


def kinds_of(text: str) -> list[str]:
    """The module of every cell that a module's text places, primitives of a card included."""
    return [kind for _, kind in _CELL.findall(text)]


def with_kinds(text: str, names: Mapping[str, str]) -> str:
    """RTLIL text whose cells place other modules: names by those before."""
    return _CELL.sub(lambda found: f"{found[1]}\\{names.get(found[2], found[2])} ", text)


def _children_first(label: str, bodies: dict[str, str]) -> list[str]:
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name not in ordered:
            for cell in kinds_of(bodies[name]):
                if cell in bodies:
                    visit(cell)
            ordered.append(name)

    visit(label)
    return ordered


class _Interface:
    """Attributes named like the members of a signature."""


def _interface(signature: wiring.Signature, name: str) -> Any:
    """``signature.create()`` with plain signals: those of a structure would be written once more, field by field."""
    found = _Interface()
    for member_name, member in signature.members.items():
        path = f"{name}__{member_name}"
        if member.dimensions:
            raise NmsatError.rule("emit", path, "a member without dimensions", member.dimensions)
        if member.is_port:
            value: Any = Signal(Shape.cast(member.shape), name=path)
            if isinstance(member.shape, ShapeCastable):
                value = member.shape(value)
        else:
            value = _interface(member.signature, path)
        setattr(found, member_name, value)
    return found


def _ports_of(signature: wiring.Signature, interface: Any, prefix: str = "") -> list[tuple[str, bool, Value]]:
    """(name, is input, value) of every port, as Amaranth names it in RTLIL."""
    found = []
    for name, member in signature.members.items():
        value = getattr(interface, name)
        if member.is_port:
            found.append((prefix + name, member.flow == wiring.In, _value(value)))
        else:
            found += _ports_of(member.signature, value, f"{prefix}{name}__")
    return found


def _value(value: Any) -> Value:
    return value.as_value() if isinstance(value, ValueCastable) else Value.cast(value)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
