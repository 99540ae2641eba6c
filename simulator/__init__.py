"""A program run in time, traffic and energy, and the array stepped value by value."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .executor import execute, load_tensors, load_weights, new_image, read_tensor
    from .result import RunResult
    from .run import simulate

__all__ = ["RunResult", "execute", "load_tensors", "load_weights", "new_image", "read_tensor", "simulate"]


def __getattr__(name: str) -> Any:
    if name == "simulate":
        from .run import simulate

        return simulate
    if name == "RunResult":
        from .result import RunResult

        return RunResult
    if name in ("execute", "load_tensors", "load_weights", "new_image", "read_tensor"):
        from . import executor

        return getattr(executor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
