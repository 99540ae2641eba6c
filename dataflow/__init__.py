"""How a network is cut and ordered: lowering, mappings, the offline scheduler, the program."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compiler import compile_program
    from .program import Program
    from .schedule import Options

__all__ = ["Options", "Program", "compile_program"]


def __getattr__(name: str) -> Any:
    if name == "compile_program":
        from .compiler import compile_program

        return compile_program
    if name == "Program":
        from .program import Program

        return Program
    if name == "Options":
        from .schedule import Options

        return Options
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
