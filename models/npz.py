"""NPZ files: a reader that trusts nothing (no pickles, no lengths that lie, no bombs) and a plain writer."""

from __future__ import annotations

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .errors import InputFileError

NUMBERS = ("float16", "float32", "float64", "uint8", "int8", "bool")
MAX_MEMBERS = 100_000
MAX_PLAIN_BYTES = 64 * 2**20  # a member up to here may be compressed as far as it goes
MAX_RATIO = 100  # a larger one only so far, and all together
MAX_TOTAL_BYTES = 256 * 2**20  # up to here all members together may be compressed as far as it goes
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError),
    *(KeyError, NotImplementedError, RuntimeError, TypeError, SyntaxError, MemoryError),
    *(struct.error, tokenize.TokenError, AttributeError, IndexError, Warning),
)


class NpzReader(Mapping[str, NDArray[Any]]):
    """Arrays of an NPZ file by name, each read and checked when asked for.

    Raises
    ------
    InputFileError
        For a file that is no NPZ, an array of objects (which would be a pickle), a dtype that is no plain number,
        a size that is not that of the shape, or a member compressed beyond belief.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise InputFileError(f"{path}: must be an existing file; there is none of that name") from None
        except _BROKEN as error:
            raise InputFileError(f"{path}: must be a readable NPZ file; {_reason(error)}") from None
        members = self._archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise InputFileError(f"{path}: must hold at most {MAX_MEMBERS} arrays, not {len(members)}")
        total, packed = sum(item.file_size for item in members), path.stat().st_size
        if total > max(MAX_TOTAL_BYTES, MAX_RATIO * packed):
            raise InputFileError(f"{path}: must hold at most {MAX_RATIO} times its {packed} bytes, not {total}")
        self._members = {item.filename.removesuffix(".npy"): item for item in members}

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Any:
        return iter(self._members)

    def __getitem__(self, name: str) -> NDArray[Any]:
        shape, dtype, fortran, data = self._read(name)
        try:
            found = np.ndarray(shape, dtype, data, order="F" if fortran else "C")
        except _BROKEN as error:
            raise InputFileError(f"{self.path}: {name}: must be a readable array; {_reason(error)}") from None
        return found.astype(dtype.newbyteorder("="), copy=False)

    def _read(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any], bool, bytes]:
        place = f"{self.path}: {name}"
        item = self._members[name]
        size, packed = item.file_size, max(item.compress_size, 1)
        if size > MAX_PLAIN_BYTES and size > MAX_RATIO * packed:
            raise InputFileError(f"{place}: must be compressed at most {MAX_RATIO} times, not {size // packed} times")
        try:
            with self._archive.open(item) as file, warnings.catch_warnings():
                warnings.simplefilter("error")
                shape, fortran, dtype = _header(file)
                if dtype.hasobject:
                    raise InputFileError(f"{place}: must be an array of numbers, not of Python objects (a pickle)")
                if dtype.name not in NUMBERS:
                    raise InputFileError(f"{place}: must be one of {', '.join(NUMBERS)}, not {str(dtype)[:40]}")
                wanted = math.prod(shape) * dtype.itemsize
                if wanted > size:
                    raise InputFileError(f"{place}: must hold the {wanted} bytes of its shape, not {size}")
                data = file.read()
        except InputFileError:
            raise
        except _BROKEN as error:
            raise InputFileError(f"{place}: must be a readable array; {_reason(error)}") from None
        if len(data) != wanted:
            raise InputFileError(f"{place}: must hold the {wanted} bytes of its shape, not {len(data)}")
        return shape, dtype, fortran, data


def write_npz(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of numbers, stored as they are; equal arrays give equal bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version} is not supported")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file, max_header_size=10_000)
    if any(length < 0 for length in shape):
        raise ValueError(f"negative length in shape {shape}")
    return shape, fortran, dtype


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
