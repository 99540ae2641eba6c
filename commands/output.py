"""Where results go: standard output, files written whole or not at all, progress on a terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError


def progress(title: str) -> Any:
    """A function that wraps an iterable in a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    return lambda items: track(items, title, console=Console(stderr=True), transient=True)


def show(*items: Any) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    console = Console(width=width, highlight=False)
    for item in items:
        console.print(item, markup=False, soft_wrap=isinstance(item, str))


def check_outputs(*names: str | None) -> None:
    """Refuse unusable output names before any work is done."""
    for name in names:
        if name in (None, "-"):
            continue
        path = Path(str(name))
        if path.is_dir():
            raise NmsatError.rule("", "output", "a file, not a folder", name)
        if not path.absolute().parent.is_dir():
            raise NmsatError.rule("", "output", "in an existing folder", name)


def write(name: str, content: str | bytes) -> None:
    """Write a whole file or nothing: a temporary file beside it, then a rename."""
    data = content.encode() if isinstance(content, str) else content
    if name == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    path = Path(name)
    try:
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(data)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise NmsatError(f"{name}: must be writable; {error.strerror}") from None
