"""One packed product on any engine, compared with the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...dataflow.kernels.packing import Packed
from ...models.errors import NmsatError
from . import compiled, node, qemu, reference, wasm

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine made of a product.

    ``bits_differing`` counts the values of Y whose bits are not the reference's; ``guards_intact`` says whether
    everything outside the outputs is untouched (None: the engine has no guards).
    """

    engine: str
    bits_differing: int
    guards_intact: bool | None

    @property
    def ok(self) -> bool:
        """True if every bit is right and no guard was touched."""
        return self.bits_differing == 0 and self.guards_intact is not False


def _wasmtime(packed: Packed, x: F32) -> tuple[F32, bool | None]:
    program = wasm.WasmProgram([(packed, x.shape[1])])
    program.write(0, x)
    program.run()
    return program.read(0), program.guards_intact()


def _numba(packed: Packed, x: F32) -> tuple[F32, bool | None]:
    return compiled.multiply(packed, x), None


ENGINES: dict[str, Callable[[Packed, F32], tuple[F32, bool | None]]] = {
    "wasmtime": _wasmtime,
    "node": node.multiply,
    "numba": _numba,
    "qemu": qemu.multiply,
}


def execute(engine: str, packed: Packed, x: F32) -> Outcome:
    """Run Y = W X on an engine and compare it with the NumPy reference.

    Raises
    ------
    NmsatError
        For an unknown engine or an unusable X.
    MissingToolError
        If the engine is not installed.
    """
    if engine not in ENGINES:
        raise NmsatError.rule("", "engine", "one of " + ", ".join(ENGINES), engine)
    x = reference.check_input(packed, x)
    y, guards = ENGINES[engine](packed, x)
    expected = reference.multiply(packed, x)
    differing = int(np.count_nonzero(y.view(np.uint32) != expected.view(np.uint32)))
    return Outcome(engine, differing, guards)
