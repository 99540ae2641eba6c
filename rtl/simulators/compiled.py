"""A design as machine code in this process: what CXXRTL and Verilator have in common."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..emit import Port
from .bench import Bench

LIBRARY = "design.so"
# A falling edge changes nothing, so the clock goes low with the inputs of the next cycle: one evaluation less.
_HARNESS = """\
#include <cstdint>
#include <cstring>
{head}
struct Held {{ {type} design; bool settled; }};
static void settle_(Held *it, const uint32_t *in, uint32_t *out) {{
  {type} &design = it->design;
{reads}  {step}
{writes}  it->settled = true;
}}
static void edge_(Held *it) {{
  {type} &design = it->design;
  if (!it->settled) {{ {step} }}
  {clock_high} {step} {clock_low}
  it->settled = false;
}}
extern "C" {{
void *make() {{ Held *it = new Held(); {type} &design = it->design; {clock_low} {step} return it; }}
void drop(void *it) {{ delete (Held *)it; }}
void settle(void *it, const uint32_t *in, uint32_t *out) {{ settle_((Held *)it, in, out); }}
void edge(void *it) {{ edge_((Held *)it); }}
void many(void *it, uint64_t cycles, const uint32_t *in, uint32_t *out) {{
  for (uint64_t i = 0; i < cycles; i++) {{
    settle_((Held *)it, in + i * {in_words}, out + i * {out_words});
    edge_((Held *)it);
  }}
}}
}}
"""


class Places:
    """Where ports lie in the words that pass between this process and a library.

    Attributes
    ----------
    inputs, outputs : dict of str to (int, int)
        First byte and bytes of every port but the clock; each starts a 32-bit word.
    in_words, out_words : int
        Words of all, at least 1.
    widths : dict of str to int
        Bits.
    clocked : bool
        There is a clock.
    """

    def __init__(self, ports: Sequence[Port]) -> None:
        self.clocked = any(port.name == "clk" for port in ports)
        held = [port for port in ports if port.name != "clk"]
        self.widths = {port.name: port.width for port in held}
        self.inputs, self.in_words = _places([port for port in held if port.is_input])
        self.outputs, self.out_words = _places([port for port in held if not port.is_input])


def _places(ports: list[Port]) -> tuple[dict[str, tuple[int, int]], int]:
    found, words = {}, 0
    for port in ports:
        found[port.name] = (4 * words, 4 * -(-port.width // 32))
        words += -(-port.width // 32)
    return found, max(1, words)


def harness(places: Places, *, head: str, type_name: str, step: str, clock: str, reads: str, writes: str) -> str:
    """C++ of a library for :class:`CompiledBench`.

    Parameters
    ----------
    head : str
        Includes.
    type_name : str
        Class of the design; ``design`` is the object in what follows.
    step : str
        Statement that evaluates it.
    clock : str
        Statement that sets the clock to ``{value}``.
    reads, writes : str
        Statements that set inputs from ``in`` and ``out`` from outputs, words of 32 bits.
    """
    return _HARNESS.format(
        head=head, type=type_name, step=step, reads=reads, writes=writes,
        clock_low=clock.format(value="false") if places.clocked else "",
        clock_high=clock.format(value="true") if places.clocked else "",
        in_words=places.in_words, out_words=places.out_words,
    )  # fmt: skip


class CompiledBench(Bench):
    """A design in a library of :func:`harness`, loaded into this process.

    Parameters
    ----------
    places : Places
    folder : Path
        Holds ``design.so``.

    Attributes
    ----------
    places : Places
    handles : tuple of int
        Addresses for machine code that runs the design itself: of the design, of ``settle`` and ``edge``, of the words
        of inputs and of outputs.
    """

    def __init__(self, places: Places, folder: Path) -> None:
        self.places = places
        self.widths, self._in, self._out = places.widths, places.inputs, places.outputs
        self._library = ctypes.CDLL(str(folder / LIBRARY))
        pointer = ctypes.c_void_p
        for name, arguments, result in (
            ("make", [], pointer), ("drop", [pointer], None), ("settle", [pointer] * 3, None),
            ("edge", [pointer], None), ("many", [pointer, ctypes.c_uint64, pointer, pointer], None),
        ):  # fmt: skip
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, result
        self._inputs, self._outputs = bytearray(4 * places.in_words), bytearray(4 * places.out_words)
        self._in_pointer, self._out_pointer = (
            ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in (self._inputs, self._outputs)
        )
        self._design = self._library.make()
        code = [ctypes.cast(getattr(self._library, name), pointer).value for name in ("settle", "edge")]
        self.handles = (self._design, *code, self._in_pointer, self._out_pointer)

    def __del__(self) -> None:
        if getattr(self, "_design", None):
            self._library.drop(self._design)

    def set(self, port: str, value: int) -> None:
        start, size = self._in[port]
        if value >> self.widths[port]:
            raise OverflowError(f"{port} must be at most {self.widths[port]} bits, not {value}")
        self._inputs[start : start + size] = value.to_bytes(size, "little")

    def get(self, port: str) -> int:
        start, size = self._out[port]
        return int.from_bytes(self._outputs[start : start + size], "little")

    async def settle(self) -> None:
        self._library.settle(self._design, self._in_pointer, self._out_pointer)

    async def tick(self) -> None:
        self._library.edge(self._design)

    def many(self, stimuli: dict[str, list[int]], cycles: int) -> dict[str, list[int]]:
        """Outputs of many cycles whose inputs are known beforehand; an input that is not named keeps its value."""
        packed = np.empty((cycles, len(self._inputs)), np.uint8)
        packed[:] = np.frombuffer(self._inputs, np.uint8)
        for port, values in stimuli.items():
            start, size = self._in[port]
            joined = b"".join(value.to_bytes(size, "little") for value in values)
            packed[:, start : start + size] = np.frombuffer(joined, np.uint8).reshape(cycles, size)
        found = np.zeros((cycles, len(self._outputs)), np.uint8)
        self._library.many(self._design, cycles, packed.ctypes.data, found.ctypes.data)
        return {
            port: [int.from_bytes(row.tobytes(), "little") for row in found[:, start : start + size]]
            for port, (start, size) in self._out.items()
        }
