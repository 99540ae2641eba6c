"""The simulator's side of :mod:`.cocotb_sim`: finds the test body, runs it, writes its result."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import cocotb

from .cocotb_bench import CocotbBench
from .cocotb_sim import TASK


def _body(task: dict[str, Any]) -> Any:
    if task["module"].split(".")[0] == __name__.split(".")[0]:
        return getattr(importlib.import_module(task["module"]), task["name"])
    spec = importlib.util.spec_from_file_location("bench_body", task["file"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, task["name"])


@cocotb.test()
async def run(dut: Any) -> None:
    """Run the body that the task file names."""
    task = json.loads(Path(os.environ[TASK]).read_text())
    bench = CocotbBench(dut, task["widths"])
    bench.clear(task["inputs"])
    result = await _body(task)(bench, **task["arguments"])
    Path(task["result"]).write_text(json.dumps(result))
