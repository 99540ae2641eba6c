"""Every numbered example runs from another folder, warns of nothing and prints something."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))


def run(path: Path, folder: Path) -> str:
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


def test_there_are_numbered_examples():
    assert EXAMPLES
    assert all(re.match(r"\d\d_\w+\.py$", path.name) for path in EXAMPLES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, tmp_path):
    printed = run(path, tmp_path)
    CHECKS.get(path.name, check_output)(printed)


def check_output(printed: str) -> None:
    assert printed.strip()


def check_network_to_cycles(printed: str) -> None:
    accuracy = re.search(r"^accuracy (\d+\.\d) %", printed, re.M)
    assert accuracy
    assert float(accuracy[1]) > 90
    speedups = [float(x) for x in re.findall(r"speed-up (\d\.\d\d)$", printed, re.M)]
    assert len(speedups) == 2
    assert all(1 < x < 2 for x in speedups)  # (2s + 1) / 3 of the work is left with s = 2/8: at most twice as fast


def check_your_own_testbench(printed: str) -> None:
    found = re.fullmatch(r"20 cases, (\d+) words, 0 bits differ\n", printed)
    assert found
    assert int(found[1]) >= 20


CHECKS = {
    "01_pruned_network_to_cycles.py": check_network_to_cycles,
    "02_your_own_testbench.py": check_your_own_testbench,
}


def test_the_testbench_fails_on_a_fault(tmp_path):
    """The example's own test sees a fault in the Verilog that it is given."""
    text = (EXAMPLES[0].parent / "02_your_own_testbench.py").read_text()
    assert text.count("write_text(design.text)") == 1
    assert text.count(".o__ready(o__ready));") == 1
    broken = tmp_path / "broken_testbench.py"
    broken.write_text(text.replace(".o__ready(o__ready));", ".o__ready(1'b1));"))
    done = subprocess.run([sys.executable, str(broken)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "assert case.bits_differing(monitor.words) == 0" in done.stderr
