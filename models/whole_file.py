"""Files written whole or not at all: under a temporary name beside their own, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".partial"  # a killed process leaves `.NAME.xxxx.partial` behind, never half a NAME


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file that takes the name ``path`` when the block ends, and goes away when it raises.

    Raises
    ------
    OSError
        As the file system gives it: the caller knows what to say.
    """
    folder = path.absolute().parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}.", suffix=SUFFIX, delete=False) as file:
        partial = Path(file.name)
    try:
        yield partial
        partial.chmod(0o644)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one go; text as UTF-8. Errors as :func:`whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written in a folder."""
    for path in filter(is_leftover, folder.iterdir()):
        path.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a name is one that :func:`whole_file` gives to what is not finished."""
    return path.name.startswith(".") and path.name.endswith(SUFFIX)
