"""README and docs say what is true: commands run, shown output is real, tables come from code."""

from __future__ import annotations

import ast
import re
import shlex
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


RUN_US = ("make run", "make test")  # they are what runs this test, or take its environment from under it
SECONDS = re.compile(r"\b\d+(\.\d+)? ?(s|ms|seconds)\b(?= wall)|(?<=\bin )\d+(\.\d+)? ?(s|ms|seconds)\b")
CUT = "..."  # a shown line of three dots: output left out


def console_blocks() -> list[list[tuple[str, list[str]]]]:
    """(command, lines shown below it) of every console block; before its first command a block shows nothing."""
    return [found for block in blocks("console") if (found := commands(block))]


def commands(block: str) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    if block:
        lines = block.splitlines()
        assert lines[0].startswith("$ "), lines[0]
        for line in lines:
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [(command, shown) for command, shown in found if command not in RUN_US]


def normal(line: str) -> str:
    """Column widths and wall-clock times ("in 1.2 s", "1.2 s wall") may differ; simulated seconds may not."""
    return SECONDS.sub("TIME", " ".join(line.split()))


def unlike(shown: list[str], printed: list[str]) -> str:
    """The first shown line that is not where it should be, or nothing.

    Shown lines begin where the output does and follow each other as there; only a cut may leave lines out between
    them. What the output says after the last shown line may be left out without one.
    """
    if not shown:
        return ""
    text, parts = [normal(line) for line in printed], [[]]
    for line in shown:
        if line == CUT:
            parts.append([])
        else:
            parts[-1].append(normal(line))
    at = 0
    for number, part in enumerate(parts):
        starts = range(at, len(text) - len(part) + 1) if number else [0]
        at = next((i + len(part) for i in starts if text[i : i + len(part)] == part), -1)
        if at < 0:
            return next((line for line in part if line not in text), part[0] if part else CUT)
    return ""


def arguments(command: str) -> list[str]:
    name, *rest = shlex.split(command)
    starts = {"nmsat": [sys.executable, "-m", "nmsat"], "python": [sys.executable], "make": ["make", "-C", str(ROOT)]}
    return [*starts[name], *rest]


@pytest.mark.parametrize("block", console_blocks(), ids=lambda block: block[0][0])
def test_commands_run_and_print_what_is_shown(block, tmp_path):
    """A block's commands run one after the other in one folder, as a reader would type them."""
    for command, shown in block:
        done = subprocess.run(
            arguments(command), cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        assert unlike(shown, done.stdout.splitlines()) == ""


def test_there_are_commands_with_output_to_compare():
    assert "nmsat run resnet18" in [command for block in console_blocks() for command, shown in block if shown]


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        (["a 1", "b 2", "c 3"], ""),
        (["a   1", "b 2", "c 3"], ""),  # column widths
        (["a 1", CUT], ""),
        ([CUT, "c 3"], ""),
        ([CUT, "b 2", CUT], ""),
        (["a 1", CUT, "c 3"], ""),
        (["a 1"], ""),  # the rest of the output is left out
        (["a 1", "c 3"], "a 1"),  # b is left out without a cut
        (["b 2", "c 3"], "b 2"),  # so is a
        ([CUT, "b 3", CUT], "b 3"),  # a number is wrong
        ([CUT, "c 3", "b 2"], "c 3"),  # order
        ([CUT, "c 3", CUT, "a 1", CUT], "a 1"),
        (["a 1", "b 2", "c 3", "d 4"], "d 4"),
    ],
)
def test_a_planted_difference_is_seen(shown, wrong):
    assert unlike(shown, ["a 1", "b 2", "c 3"]) == wrong


def test_only_wall_clock_times_are_normalised():
    assert normal("done in 1.25 s, or 3 s wall") == normal("done in 9 s, or 0.1 s wall")
    assert normal("1,392 cycles = 6.965 s at the clock") != normal("1,392 cycles = 6.966 s at the clock")


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code, tmp_path):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "speedup_over_dense" in code:
        assert float(done.stdout) > 1


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 160


def unproved(features) -> list[str]:
    """Features whose state is not what their named test says: "yes" has a test that runs in `make test`, "no" none."""
    found = []
    for feature, state, test in features:
        if state == "no" and not test:
            continue
        name, _, function = test.partition("::")
        page = ROOT / "tests" / name
        tree = ast.parse(page.read_text()) if test and page.is_file() else ast.Module([], [])
        tests = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function]
        marks = " ".join(ast.unparse(d) for n in tests for d in n.decorator_list)
        if state != "yes" or len(tests) != 1 or not function.startswith("test_") or re.search("skip|xfail|slow", marks):
            found.append(feature)
    return found


def test_the_matrix_is_the_code_s_and_names_real_tests():
    assert support_matrix_markdown() in (ROOT / "docs" / "support.md").read_text()
    assert unproved(FEATURES) == []


@pytest.mark.parametrize(
    ("state", "test", "proved"),
    [
        ("yes", "test_readme.py::test_the_readme_is_short", True),
        ("no", "", True),
        ("yes", "", False),
        ("no", "test_readme.py::test_the_readme_is_short", False),
        ("maybe", "test_readme.py::test_the_readme_is_short", False),
        ("yes", "test_readme.py::test_nothing", False),
        ("yes", "test_readme.py::normal", False),
        ("yes", "test_nowhere.py::test_the_readme_is_short", False),
        ("yes", "test_engine.py::test_closed_form_equals_engine_10000", False),  # slow: not in `make test`
    ],
)
def test_a_planted_claim_is_caught(state, test, proved):
    assert unproved([("feature", state, test)]) == ([] if proved else ["feature"])


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_machine_paths_in_the_tree():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(tmp|root|home|work|farm)/[a-z]")
    for name in listed:
        if not name.endswith((".png", ".svg", ".onnx", ".pt2", ".safetensors")) and (ROOT / name).exists():
            assert not pattern.search((ROOT / name).read_text()), name
