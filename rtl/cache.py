"""Where what takes long to build is kept: a folder of the user's, by digest of everything that went into a build."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """``$NMSAT_CACHE``, else ``nmsat`` in the user's cache folder. Safe to delete at any time."""
    named = os.environ.get("NMSAT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nmsat"


def kept(kind: str, inputs: list[str]) -> Path:
    """Where a build of these inputs lies, if it was made."""
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:24]
    return cache_folder() / f"{kind}-{digest}"


def built(kind: str, inputs: list[str], build: Callable[[Path], None]) -> Path:
    """The folder of a build, made now if it is not there.

    Parameters
    ----------
    kind : str
        First part of the folder's name.
    inputs : list of str
        Everything the result follows from: texts, options, tool versions.
    build : callable
        Fills an empty folder, which is moved into place when it returns: a build is there whole or not at all.
    """
    target = kept(kind, inputs)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who wants the same waits for it; freed however this process ends
        if not target.is_dir():
            folder = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=target.parent))
            try:
                build(folder)
                folder.rename(target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    return target
