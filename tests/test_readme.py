"""README and docs say what is true: commands run, shown output is real, tables come from code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nmsat.reports.matrix import FEATURES, support_matrix_markdown

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [b for page in pages for b in re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.M | re.S)]


def commands() -> list[tuple[str, list[str]]]:
    """(command, output lines shown below it); `make run` and `make test` are what runs this, so no block has them."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line != "...":
                found[-1][1].append(line)
    return found


@pytest.mark.parametrize(("command", "shown"), commands(), ids=lambda x: x if isinstance(x, str) else "")
def test_commands_run_and_print_what_is_shown(command, shown, tmp_path):
    name, *arguments = command.split()
    assert name == "nmsat"
    done = subprocess.run([sys.executable, "-m", "nmsat", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = [" ".join(line.split()) for line in done.stdout.splitlines()]  # column widths may differ
    for line in shown:
        assert " ".join(line.split()) in printed


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 1


def test_the_readme_is_short():
    assert len(README.splitlines()) < 150


def test_the_matrix_is_the_code_s_and_names_real_tests():
    assert support_matrix_markdown() in README
    for _, state, test in FEATURES:
        assert state == ("yes" if test else "no")
        if test:
            name, function = test.split("::")
            assert f"def {function}(" in (ROOT / "tests" / name).read_text()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_machine_paths_in_the_tree():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(tmp|root|home|work|farm)/[a-z]")
    for name in listed:
        if not name.endswith((".png", ".svg")) and (ROOT / name).exists():
            assert not pattern.search((ROOT / name).read_text()), name
