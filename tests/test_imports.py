"""The rooms of the house and the only directions imports may take."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "models": {"models"},
    "dataflow": {"models", "dataflow"},
    "simulator": {"models", "dataflow", "simulator"},
    "reports": {"models", "dataflow", "simulator", "reports"},
    "rtl": {"models", "dataflow.program", "rtl"},
    "fpga": {"models", "dataflow.program", "rtl", "fpga"},
    "commands": {"models", "dataflow", "simulator", "reports", "rtl", "fpga", "commands"},
}
ROOMS = tuple(MAY_IMPORT)
STOPS = ("print", "exit", "quit", "breakpoint")  # only __main__ and commands/ may print; __main__ ends the process
MAY_PRINT = {"print", "sys.stdout", "sys.stderr"}


def violations(module: str, source: str) -> list[str]:
    """Broken rules of one module, named like ``dataflow.schedule``."""
    found: list[str] = []
    may = MAY_PRINT if module.startswith("commands.") else set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"absolute import {a.name}" for a in node.names if _ours(a.name)]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if _ours(node.module or ""):
                found.append(f"absolute import {node.module}")
            found += [f"imports sys.{a.name}" for a in node.names if node.module == "sys" and a.name == "exit"]
        elif isinstance(node, ast.ImportFrom):
            found += [f"imports {target}" for target in _targets(module, node) if not _allowed(module, target)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.match(r"nmsat\.[a-z_.]+$", node.value):
                found.append(f"names module {node.value}")  # importlib.import_module and the like
        elif isinstance(node, ast.Name) and node.id in {*STOPS, "SystemExit"} - may:
            found.append(f"uses {node.id}")
        elif (
            isinstance(node, ast.Attribute)
            and ast.unparse(node)
            in {
                *(f"builtins.{name}" for name in STOPS),
                *("sys.exit", "os._exit", "os.abort", "sys.stdout", "sys.stderr"),
            }
            - may
        ):
            found.append(f"uses {ast.unparse(node)}")
    return found


def _ours(name: str) -> bool:
    return name.split(".")[0] in ("nmsat", "__main__")


def _targets(module: str, node: ast.ImportFrom) -> list[str]:
    """What a relative import reaches, counted from the package's root."""
    package = module.split(".")[:-1]
    base = package[: len(package) - node.level + 1] if node.level <= len(package) + 1 else ["outside"]
    if node.module:
        base = [*base, *node.module.split(".")]
    return [".".join([*base, alias.name]) for alias in node.names]


def _allowed(module: str, target: str) -> bool:
    """Whether a module may import ``target``, which may be a module or a name in one."""
    rooms = MAY_IMPORT[module.split(".")[0]]
    return target == "__version__" or any(target == room or target.startswith(room + ".") for room in rooms)


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_keeps_the_rules(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert violations(name, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("models.a", "from ..dataflow import program", "imports dataflow.program"),
        ("models.a", "from ..dataflow.program import Kind", "imports dataflow.program.Kind"),
        ("models.__init__", "from ..dataflow import program", "imports dataflow.program"),
        ("models.golden.a", "from ...reports import tables", "imports reports.tables"),
        ("dataflow.a", "from ..simulator.run import simulate", "imports simulator.run.simulate"),
        ("simulator.a", "from ..reports import tables", "imports reports.tables"),
        ("simulator.a", "from ..rtl import stce", "imports rtl.stce"),
        ("reports.a", "from ..fpga import boards", "imports fpga.boards"),
        ("rtl.a", "from ..dataflow.schedule import cost", "imports dataflow.schedule.cost"),
        ("rtl.a", "from ..dataflow import program, schedule", "imports dataflow.schedule"),
        ("rtl.a", "from ..dataflow.programs import x", "imports dataflow.programs.x"),
        ("rtl.a", "from ..simulator import engine", "imports simulator.engine"),
        ("rtl.a", "from ..fpga import boards", "imports fpga.boards"),
        ("fpga.a", "from ..simulator import engine", "imports simulator.engine"),
        ("models.a", "def late():\n    from ..dataflow import program", "imports dataflow.program"),
        ("simulator.a", "import nmsat.models", "absolute import nmsat.models"),
        ("simulator.a", "from nmsat.models import Layer", "absolute import nmsat.models"),
        ("simulator.a", "load('nmsat.reports.tables')", "names module nmsat.reports.tables"),
        ("models.a", "from .. import __main__", "imports __main__"),
        ("models.a", "from .. import __main__ as m", "imports __main__"),
        ("models.a", "from ..__main__ import main", "imports __main__.main"),
        ("models.a", "import __main__", "absolute import __main__"),
        ("models.a", "from .... import x", "imports outside.x"),
        ("reports.a", "print(1)", "uses print"),
        ("reports.a", "say = print", "uses print"),
        ("reports.a", "import builtins\nbuiltins.print(1)", "uses builtins.print"),
        ("reports.a", "import sys\nsys.stdout.write('x')", "uses sys.stdout"),
        ("fpga.a", "import sys\nsys.exit(1)", "uses sys.exit"),
        ("fpga.a", "from sys import exit as leave", "imports sys.exit"),
        ("fpga.a", "raise SystemExit(1)", "uses SystemExit"),
        ("fpga.a", "exit(1)", "uses exit"),
    ],
)
def test_a_planted_violation_is_caught(module, source, complaint):
    assert violations(module, source) == [complaint]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rtl.a", "from ..dataflow.program import Kind"),
        ("rtl.a", "from ..dataflow import program"),
        ("rtl.a", "from .. import __version__"),
        ("models.__init__", "from . import errors"),
        ("models.golden.a", "from ..errors import NmsatError"),
        ("simulator.a", "import sys\nsys.maxsize"),
        ("reports.a", "def show(printer):\n    printer('see nmsat.models, it prints')"),
    ],
)
def test_allowed_forms_pass(module, source):
    assert violations(module, source) == []


def test_every_room_is_looked_at():
    assert {path.relative_to(ROOT).parts[0] for path in modules()} == set(ROOMS)


def test_the_package_imports_nothing_by_itself():
    """``import nmsat`` costs nothing: the rooms are taken by who needs them."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_no_stray_module_in_the_root():
    assert sorted(p.name for p in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]
