"""The folder that `nmsat fpga generate` fills: written whole, made again over an older one, never over a stranger's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from ..models.errors import NmsatError
from ..models.whole_file import write_whole

MANIFEST = "manifest.json"
FORMAT = "nmsat-fpga/1"


def digest(text: str) -> str:
    """SHA-256 of a text, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_folder(folder: Path) -> dict[str, str]:
    """Digests of the files of an earlier generation in a folder; none if it is new or empty.

    Raises
    ------
    NmsatError
        It is no folder, cannot be written, holds files of somebody else or of a generation that was cut off, or
        generated files were changed since.
    """
    where = str(folder)
    if not folder.exists():
        parent = next(path for path in folder.absolute().parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise NmsatError.rule("", "-o", "in a folder that can be written", where)
        return {}
    if not folder.is_dir():
        raise NmsatError.rule("", "-o", "a folder", where)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NmsatError.rule("", "-o", "a folder that can be written", where)
    if not any(folder.iterdir()):
        return {}
    hint = "name another folder, or delete this one: it has no manifest of a finished generation"
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ValueError
        known = {str(name): str(entry["sha256"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise NmsatError.rule("", "-o", "an empty folder, or one that this command has finished", where, hint) from None
    for name, expected in known.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise NmsatError.rule(where, MANIFEST, "a list of files inside the folder", name)
        if path.is_file() and digest(path.read_text(errors="replace")) != expected:
            hint = "move your change elsewhere or delete the file; it would be overwritten"
            raise NmsatError.rule("", str(path), "as it was generated", "changed since", hint)
    return known


def fill(folder: Path, files: dict[str, str], older: dict[str, str]) -> None:
    """Write files, the manifest last; generated files of before that are no more are removed, others left alone.

    A new folder appears complete or not at all. In an older one the manifest goes first, so that a generation that was
    cut off is seen by :func:`check_folder`.
    """
    assert MANIFEST in files
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                made.chmod(0o755)
                _write(made, files)
                made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
            return
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in older:
            if name not in files:
                (folder / name).unlink(missing_ok=True)
        _write(folder, files)
    except OSError as error:
        raise NmsatError(f"{folder}: must be writable; {error.strerror}") from None


def _write(folder: Path, files: dict[str, str]) -> None:
    for name in sorted(files, key=lambda name: (name == MANIFEST, name)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, files[name])
