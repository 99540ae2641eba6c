"""What hosts and tools get of the register map: kernel.xml, and C, Python and Tcl constants.

The documentation page is made by :mod:`nmsat.rtl.register_page` from the same map.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..rtl.registers import RegisterMap
from .kernel import Kernel
from .render import render


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of the kernel in kernel.xml: pointers (qualifier 1) go to a master, scalars (0) to control."""

    name: str
    qualifier: int
    port: str
    bytes: int
    offset: int
    type: str


def arguments(registers: RegisterMap, kernel: Kernel) -> list[Argument]:
    """Arguments in order of offset. Every pointer is given to the first master: all masters reach all memory."""
    found = []
    for register in registers.arguments:
        size = register.width // 8
        if register.argument == "pointer":
            found.append(Argument(register.name, 1, kernel.masters[0].name, size, register.offset, "void*"))
        else:
            kind = {4: "uint", 8: "ulong"}[size]
            found.append(Argument(register.name, 0, kernel.control.name, size, register.offset, kind))
    return found


def kernel_xml(registers: RegisterMap, kernel: Kernel, header: str) -> str:
    """What Vitis reads about the kernel."""
    return render("kernel.xml", map=registers, kernel=kernel, arguments=arguments(registers, kernel), header=header)


def register_files(registers: RegisterMap, header: str) -> dict[str, str]:
    """Constants for hosts, by file name."""
    return {
        f"nmsat_registers.{kind}": render(f"registers.{kind}", map=registers, header=header)
        for kind in ("h", "py", "tcl")
    }
