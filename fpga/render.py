"""Text from templates: jinja2, with every value that a template names given."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..models.errors import MissingToolError

_FOLDER = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Fill in a template of ``fpga/templates``.

    Raises
    ------
    MissingToolError
        jinja2 is not installed.
    jinja2.UndefinedError
        The template names a value that was not given: a bug of ours.
    """
    return _environment().get_template(f"{template}.j2").render(**values)


@functools.cache
def _environment() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError:
        raise MissingToolError("jinja2 is not installed: pip install 'nmsat[rtl]'") from None
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["hex32"] = lambda value: f"0x{value:02X}"
    made.filters["eighths"] = lambda value: f"{float(Fraction(value)):.3f}"
    return made
