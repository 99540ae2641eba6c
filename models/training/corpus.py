"""Bytes for the language model: the Python standard library's own source, as this interpreter carries it."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingToolError, NmsatError

SKIPPED = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3"})
BUILD_MADE = ("_sysconfigdata", "sitecustomize", "_distutils_system_mod")  # differ from machine to machine
EVERY = 10  # every tenth file validates


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Training and validation bytes, and where they come from.

    Attributes
    ----------
    train, validation : uint8 arrays
        Whole files, one after the other, by ascending path; every tenth file validates, of fewer than ten the last.
    python : str
        Version of the interpreter whose library it is: other versions have other bytes.
    files : int
        How many.
    sha256 : str
        Of one line a file: its SHA-256, its size and its path.
    """

    train: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    python: str
    files: int
    sha256: str

    def facts(self) -> dict[str, Any]:
        """What pins the corpus down."""
        return {
            "python": self.python,
            "files": self.files,
            "train_bytes": len(self.train),
            "validation_bytes": len(self.validation),
            "sha256": self.sha256,
        }


def standard_library(only: Iterable[str] | None = None, folder: Path | None = None) -> Corpus:
    """Read the standard library's modules.

    Parameters
    ----------
    only : iterable of str, optional
        Paths below the library's folder to use instead of all.
    folder : Path, optional
        The library's folder; by default this interpreter's.

    Raises
    ------
    MissingToolError
        If there are fewer than two source files: the library is zipped, or was installed without its source.
    NmsatError
        If a file cannot be read.
    """
    root = folder or Path(sysconfig.get_path("stdlib"))
    paths = sorted(only) if only is not None else source_files(root)
    if len(paths) < 2:
        raise MissingToolError(f"bytes-lm: must have the standard library's source in {root}; it holds no .py files")
    parts: tuple[list[bytes], list[bytes]] = [], []
    listing = hashlib.sha256()
    last = len(paths) - 1
    for index, name in enumerate(paths):
        try:
            content = (root / name).read_bytes()
        except OSError as error:
            raise NmsatError.rule("bytes-lm", name, "a readable file of the library", error.strerror) from None
        validates = index % EVERY == EVERY - 1 or (last < EVERY - 1 and index == last)
        parts[validates].append(content)
        listing.update(f"{hashlib.sha256(content).hexdigest()} {len(content)} {name}\n".encode())
    train, validation = (np.frombuffer(b"".join(part), np.uint8) for part in parts)
    return Corpus(train, validation, platform.python_version(), len(paths), listing.hexdigest())


def source_files(root: Path) -> list[str]:
    """Modules below the library's folder, without tests and what a build makes, by ascending path."""
    found = []
    for path in root.rglob("*.py"):
        place = path.relative_to(root)
        if not SKIPPED.intersection(place.parts[:-1]) and not place.name.startswith(BUILD_MADE):
            found.append(place.as_posix())
    return sorted(found)


def windows(data: NDArray[np.uint8], starts: NDArray[np.integer], length: int) -> tuple[NDArray, NDArray]:
    """(inputs, targets), uint8 (windows, length) each: targets are the inputs one byte on."""
    places = np.asarray(starts)[:, None] + np.arange(length + 1)
    picked = data[places]
    return picked[:, :-1], picked[:, 1:]
