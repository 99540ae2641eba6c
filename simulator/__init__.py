"""A program run in time, traffic and energy, and the array stepped value by value."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import RunResult
    from .run import simulate

__all__ = ["RunResult", "simulate"]


def __getattr__(name: str) -> Any:
    if name == "simulate":
        from .run import simulate

        return simulate
    if name == "RunResult":
        from .result import RunResult

        return RunResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
