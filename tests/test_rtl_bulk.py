"""The programs that check arithmetic on every operand: they pass on the units, they see a fault, and (slow) they run whole."""

from __future__ import annotations

import os
import re
import subprocess
import types
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from nmsat.rtl.arithmetic import converters

_spec = spec_from_file_location("bulk_build", Path(__file__).with_name("bulk_build.py"))
assert _spec is not None
assert _spec.loader is not None
bulk_build = module_from_spec(_spec)
_spec.loader.exec_module(bulk_build)


def run(program: Path, *arguments: object) -> tuple[int, int, int]:
    """(exit code, cases, wrong ones) of a program."""
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True)
    found = re.search(r": (\d+) cases from \d+, (\d+) wrong, references differ in (\d+),", done.stdout)
    assert found, done.stdout + done.stderr
    assert found[3] == "0"
    print(done.stdout)
    return done.returncode, int(found[1]), int(found[2])


def test_a_unit_passes_and_a_fault_is_seen(tmp_path):
    """Around the numbers that round to the greatest binary16 and to infinity."""
    text = Path(converters.__file__).read_text()
    assert text.count("exponent >= 143") == 1
    faulty = types.ModuleType("faulty")
    faulty.__package__ = converters.__package__
    exec(compile(text.replace("exponent >= 143", "exponent >= 144"), "faulty", "exec"), faulty.__dict__)
    for name, unit in (("right", converters.Narrow()), ("wrong", faulty.Narrow())):
        bulk_build.build("narrow", unit, tmp_path / name, "-O1")
    at = 0x477FE000
    assert run(tmp_path / "right", "-j", 2, "--first", at, "--count", 1 << 22) == (0, 1 << 22, 0)
    code, _, wrong = run(tmp_path / "wrong", "-j", 2, "--first", at, "--count", 1 << 22)
    assert code == 1
    assert wrong > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", bulk_build.UNITS)
def test_every_operand_or_a_hundred_million(name, tmp_path):
    """Multiplier and narrow: all 2^32; adders: 10^8 directed and random pairs. `reports/verification/arithmetic.txt`."""
    bulk_build.build(name, bulk_build.UNITS[name](), tmp_path / name)
    code, cases, wrong = run(tmp_path / name, "-j", os.cpu_count())
    assert (code, wrong) == (0, 0)
    assert cases == (1 << 32 if name in ("multiplier", "narrow") else 10**8)
