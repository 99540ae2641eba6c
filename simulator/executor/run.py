"""execute: a program on a DRAM image, descriptor by descriptor."""

from __future__ import annotations

import numpy as np

from ...dataflow import program as fmt
from ...dataflow.program import Descriptor, Kind, Program, functions_of
from ...models.errors import NmsatError
from .image import U8, Memory
from .product import run_product
from .update import run_prune, run_update
from .vector import run_vector


def execute(program: Program, image: U8) -> U8:
    """Run a program in values.

    Only the descriptors say what is done; the tensor map guards every access.

    Parameters
    ----------
    program : Program
        Of ``compile_program``, or decoded from its bytes.
    image : uint8 array (program.dram_bytes,)
        DRAM before; not changed.

    Returns
    -------
    uint8 array
        DRAM after: every tensor of the program, bit for bit as docs/accelerator.md defines it.

    Raises
    ------
    NmsatError
        If the program has operations without defined values (nothing is then run), an access leaves its tensor, a
        number is not what an engine accepts (NaN weights, a label without class).
    """
    if refused := refusals(program):
        hint = "such programs are timed only"
        raise NmsatError.rule("program", refused[0][0], "made of operations with defined values", refused[0][1], hint)
    memory = Memory(program, np.array(image, copy=True))
    for item in program.descriptors:
        if item.kind is Kind.PRODUCT:
            run_product(item, memory)
        elif item.kind in (Kind.VECTOR, Kind.HOST):
            run_vector(item, memory)
        elif item.kind is Kind.UPDATE:
            run_update(item, memory)
        elif item.kind is Kind.PRUNE:
            run_prune(item, memory)
    return memory.image


def refusals(program: Program) -> list[tuple[str, str]]:
    """(layer, operation) of every descriptor without defined values; empty for a program that executes."""
    return [
        (f"layer {program.layers[item['layer']]!r}", _operation(item))
        for item in program.descriptors
        if item.flag(fmt.NO_VALUES)
    ]


def _operation(item: Descriptor) -> str:
    if item.kind in (Kind.VECTOR, Kind.HOST):
        return "+".join(functions_of(item["functions"]))
    return f"{item.kind.name.lower()} whose input does not fit"
