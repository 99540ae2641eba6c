"""What is computed: patterns, workloads, accelerators, golden arithmetic.

Names load on first use, so that importing the package stays cheap.
"""

from typing import TYPE_CHECKING, Any

from .errors import InputFileError, MissingToolError, NmsatError, UnschedulableError
from .sparsity import DENSE, Sparsity

if TYPE_CHECKING:
    from .accelerator import Accelerator
    from .workload import Layer, Workload

__all__ = [
    "DENSE",
    "Accelerator",
    "InputFileError",
    "Layer",
    "MissingToolError",
    "NmsatError",
    "Sparsity",
    "UnschedulableError",
    "Workload",
]


def __getattr__(name: str) -> Any:
    if name == "Accelerator":
        from .accelerator import Accelerator

        return Accelerator
    if name in ("Layer", "Workload"):
        from . import workload

        return getattr(workload, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
