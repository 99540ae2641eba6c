"""The C++ compiler and other tools that builds call."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ...models.errors import MissingToolError


def require_compiler() -> None:
    """Raise MissingToolError unless g++ is installed."""
    if shutil.which("g++") is None:
        raise MissingToolError("g++ is not installed: apt-get install g++")


def run_tool(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a command in a folder.

    Raises
    ------
    RuntimeError
        It failed: its name and the end of what it said.
    """
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-2000:]}")
