"""The verbs of the command line, one module each, in the order ``nmsat --help`` lists them.

A verb's module has ``add(verbs)``, which declares its options, and imports everything heavy inside its handler, so
that ``--help`` stays quick. Only this folder and ``__main__`` print or exit.
"""

from __future__ import annotations

VERBS = (
    "list",
    "run",
    "schedule",
    "execute",
    "export",
    "train",
    "allocate",
    "sweep",
    "report",
    "energy",
    "kernel",
    "verilog",
    "verify",
    "cosim",
    "fpga",
)
