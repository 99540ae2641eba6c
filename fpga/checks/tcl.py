"""Scripts under a recording stub: what a script would ask Vivado to do, without Vivado."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from ...models.errors import MissingToolError

RECORDER = Path(__file__).with_name("recorder.tcl")
ANSWERS = {
    "get_board_parts": "board_part",
    "get_property SLACK": "0.100",
    "get_hw_devices": "device_0",
    "make_wrapper": "wrapper.v",
}
"""Calls whose value a script decides by, and values with which it goes on."""


def run_script(files: dict[str, str], script: str, answers: dict[str, str] | None = None) -> list[list[str]]:
    """The calls of a script in order, nested ones first.

    The script runs in Tcl's safe interpreter: no files, no processes, no network. ``source`` reads other files of the
    folder. A call is its words; a nested call stands in it as one word. A script that fails ends with a call
    ``error MESSAGE``.

    Parameters
    ----------
    files : dict
        Text by path.
    script : str
        Path of the script among them.
    answers : dict, optional
        Values by the beginning of a call, beside :data:`ANSWERS`.

    Raises
    ------
    MissingToolError
        tclsh is not installed.
    """
    if shutil.which("tclsh") is None:
        raise MissingToolError("tclsh is not installed: apt-get install tcl")
    known = dict(answers or {})  # the first that fits answers
    for start, value in ANSWERS.items():
        known.setdefault(start, value)
    pairs = " ".join(f"{{{start}}} {{{value}}}" for start, value in known.items())
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            if name == script or name.endswith((".tcl", ".xdc")):
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        command = ["tclsh", str(RECORDER), folder, script, pairs]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        if done.returncode:
            raise RuntimeError(f"tclsh: {done.stderr[-2000:]}")
        return json.loads(done.stdout.replace(json.dumps(folder)[1:-1], ""))


def words(text: str) -> list[str]:
    """Words of a nested call as :func:`run_script` gives it, braces around a word taken off."""
    found, depth, word = [], 0, ""
    for char in text:
        if char == " " and not depth:
            if word:
                found.append(word)
            word = ""
            continue
        depth += (char == "{") - (char == "}")
        word += char
    if word:
        found.append(word)
    return [w[1:-1] if w.startswith("{") and w.endswith("}") else w for w in found]
