"""The rooms of the house and the only directions imports may take."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("models", "dataflow", "simulator", "reports", "rtl", "fpga")
MAY_IMPORT = {
    "models": {"models"},
    "dataflow": {"models", "dataflow"},
    "simulator": {"models", "dataflow", "simulator"},
    "reports": {"models", "dataflow", "simulator", "reports"},
    "rtl": {"models", "dataflow.program", "rtl"},
    "fpga": {"models", "dataflow.program", "rtl", "fpga"},
}


def violations(module: str, source: str) -> list[str]:
    """Broken rules of one module, named like ``dataflow.schedule``."""
    room, found = module.split(".")[0], []
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"absolute import {a.name}" for a in node.names if a.name.split(".")[0] == "nmsat"]
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                if (node.module or "").split(".")[0] == "nmsat":
                    found.append(f"absolute import {node.module}")
                continue
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                target = ".".join([*base, name])
                if target.split(".")[0] not in ROOMS:
                    if target not in ("__version__",):
                        found.append(f"imports {target}")
                    continue
                allowed = MAY_IMPORT[room]
                if not any(target == item or target.startswith(item + ".") for item in allowed):
                    found.append(f"imports {target}")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "exit", "quit", "sys.exit", "os._exit"):
                found.append(f"calls {called}")
    return found


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_keeps_the_rules(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert violations(name, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("models.a", "from ..dataflow import program", "imports dataflow"),
        ("dataflow.a", "from ..simulator.run import simulate", "imports simulator.run"),
        ("rtl.a", "from ..dataflow.schedule import cost", "imports dataflow.schedule"),
        ("rtl.a", "from ..simulator import engine", "imports simulator"),
        ("simulator.a", "import nmsat.models", "absolute import nmsat.models"),
        ("simulator.a", "from nmsat.models import Layer", "absolute import nmsat.models"),
        ("models.golden.a", "from ...reports import tables", "imports reports"),
        ("reports.a", "print(1)", "calls print"),
        ("fpga.a", "import sys\nsys.exit(1)", "calls sys.exit"),
        ("models.a", "from .. import __main__", "imports __main__"),
    ],
)
def test_a_planted_violation_is_caught(module, source, complaint):
    assert violations(module, source) == [complaint]


def test_allowed_forms_pass():
    assert violations("rtl.a", "from ..dataflow.program import Kind\nfrom .. import __version__") == []


def test_no_stray_module_in_the_root():
    assert sorted(p.name for p in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]
