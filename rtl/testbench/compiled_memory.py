"""The deterministic memory as machine code beside a compiled design: many cycles without Python in between."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from ...models.memory_timing import MemoryTiming
from ..axi import PAGE_BYTES, Response
from ..cache import built
from ..simulators.bench import Bench
from ..simulators.compiled import CompiledBench
from ..simulators.compiler import require_compiler, run_tool
from .memory import ProtocolError

SOURCE = Path(__file__).with_suffix(".cc")
_FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC")
_LIBRARY = "memory.so"
_OUTPUTS = (
    "arvalid", "araddr", "arlen", "arsize", "arburst", "awvalid", "awaddr", "awlen", "awsize", "awburst", "wvalid",
    "wdata", "wstrb", "wlast", "rready", "bready",
)  # fmt: skip
_INPUTS = ("arready", "awready", "wready", "rvalid", "rdata", "rresp", "rlast", "bvalid", "bresp")
_RULES = {
    "SIZE": "size must be a whole beat", "BURST": "burst must be INCR", "ALIGNED": "address must be that of a beat",
    "CROSSED": "burst must not cross 4 KB", "LAST": "wlast must be on the last beat and on no other",
}  # fmt: skip


class CompiledMemory:
    """What :class:`.memory.AxiMemory` is with MemoryTiming and no options, for a bench of :mod:`..simulators.compiled`.

    That class is the definition; ``tests/test_compiled_memory.py`` holds the two to the same bits and cycles. Agent
    of a :class:`.bus.Loop`, or :meth:`run` for cycles in which nothing else acts.

    Parameters
    ----------
    bench : CompiledBench
    port : str
        Its signals are ``<port>__araddr`` and so on.
    timing : MemoryTiming
        Read once.
    image : bytearray
        The memory's content, at least a byte; it cannot change its length any more.
    base : int
        Address of its first byte, a multiple of the beat.

    Raises
    ------
    ProtocolError
        From ``sample`` and ``run``: the master broke a rule.
    """

    # Faults, ranges and the like of the other, set on this one, would have no effect: they are refused.
    __slots__ = ("_held", "_library", "_memory", "_places", "_port", "image")

    def __init__(
        self, bench: CompiledBench, port: str, timing: MemoryTiming, image: bytearray, *, base: int = 0
    ) -> None:
        self.image, self._port = image, port
        self._library = _load(bench, port)
        self._held = bench, (ctypes.c_char * len(image)).from_buffer(image)
        self._places = bench.places
        rates = (ctypes.c_uint64 * 5)(bench.widths[f"{port}__wstrb"], *timing.rates)
        self._memory = self._library.make(ctypes.addressof(self._held[1]), base, len(image), rates, *bench.handles)

    def __del__(self) -> None:
        if getattr(self, "_memory", None):
            self._library.drop(self._memory)

    @staticmethod
    def fits(bench: Bench, timing: Any) -> bool:
        """Whether this class can take :class:`.memory.AxiMemory`'s place."""
        return isinstance(bench, CompiledBench) and type(timing) is MemoryTiming

    def reset(self, bench: Bench) -> None:
        """Forget every transfer; the content stays, writes without response are lost."""
        self._library.forget(self._memory)

    def drive(self, bench: Bench) -> None:
        self._library.drive(self._memory)

    def sample(self, bench: Bench) -> None:
        if self._library.sample(self._memory):
            self._complain()

    def run(self, cycles: int, port: str) -> int:
        """Run the design until an output of one bit is high in a cycle, at most ``cycles``; how many there were."""
        done = self._library.run(self._memory, cycles, self._places.outputs[port][0])
        if self._state()[3]:
            self._complain()
        return done

    def _state(self) -> list[int]:
        found = (ctypes.c_uint64 * 5)()
        self._library.state(self._memory, found)
        return list(found)

    def _complain(self) -> None:
        *_, broken, address = self._state()
        raise ProtocolError(f"{self._port}: {list(_RULES.values())[broken - 1]}, not so in a burst at {address:#x}")

    @property
    def reads(self) -> int:
        """Beats read."""
        return self._state()[0]

    @property
    def writes(self) -> int:
        """Beats written."""
        return self._state()[1]

    @property
    def idle(self) -> bool:
        """No transfer is under way."""
        return bool(self._state()[2])


def _load(bench: CompiledBench, port: str) -> ctypes.CDLL:
    """The library for a design's places, built if need be."""
    require_compiler()
    places = bench.places
    names = [f"{name.upper()} = {places.outputs[f'{port}__{name}'][0]}" for name in _OUTPUTS]
    names += [f"{name.upper()} = {places.inputs[f'{port}__{name}'][0]}" for name in _INPUTS]
    text = (
        f"enum Place : unsigned {{ {', '.join(names)} }};\nenum Rule {{ NONE, {', '.join(_RULES)} }};\n"
        f"enum {{ PAGE = {PAGE_BYTES}, DECERR = {int(Response.DECERR)} }};\n{SOURCE.read_text()}"
    )

    def build(folder: Path) -> None:
        (folder / "memory.cc").write_text(text)
        run_tool(["g++", *_FLAGS, "memory.cc", "-o", _LIBRARY], folder)

    library = ctypes.CDLL(str(built("memory", [text, *_FLAGS], build) / _LIBRARY))
    pointer, number = ctypes.c_void_p, ctypes.c_uint64
    for name, arguments, result in (
        ("make", [pointer, number, number, *[pointer] * 6], pointer), ("drop", [pointer], None),
        ("forget", [pointer], None), ("drive", [pointer], None), ("sample", [pointer], ctypes.c_uint32),
        ("run", [pointer, number, ctypes.c_uint32], number), ("state", [pointer, pointer], None),
    ):  # fmt: skip
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library
