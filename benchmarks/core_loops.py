"""Times the short loops of ``core_loops.c``: where the numbers "timed" in models/cores come from.

``python benchmarks/core_loops.py [WIDTH]`` on an x86-64 machine with AVX2, FMA and gcc; WIDTH is the core's issue
width (6 of the cores described). One core is used; what shares it is noticed, and waited for.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")

if platform.machine() not in ("x86_64", "AMD64"):
    sys.exit(f"core_loops: needs an x86-64 processor, not {platform.machine()}")
compiler = shutil.which("gcc")
if compiler is None:
    sys.exit("core_loops: gcc is not installed; install it with: apt-get install gcc")
with tempfile.TemporaryDirectory() as folder:
    program = Path(folder) / "core_loops"
    width = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    flags = ["-O1", "-mavx2", "-mfma", f"-DWIDTH={width}"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(program)], check=True)
    sys.exit(subprocess.run([str(program)]).returncode)
