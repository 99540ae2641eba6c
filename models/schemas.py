"""JSON schemas of the files users write, for editors: ``python -m nmsat.models.schemas DIR`` writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .accelerator import Accelerator
from .core import Core
from .energy_table import EnergyTable
from .workload import Workload

SCHEMAS = {
    "accelerator.schema.json": Accelerator,
    "core.schema.json": Core,
    "energy.schema.json": EnergyTable,
    "workload.schema.json": Workload,
}


def schema_text(name: str) -> str:
    """The JSON schema (draft 2020-12) of one file format."""
    return json.dumps(SCHEMAS[name].model_json_schema(), indent=1, sort_keys=True) + "\n"


def write(folder: Path) -> None:
    """Write every schema into ``folder``."""
    for name in SCHEMAS:
        (folder / name).write_text(schema_text(name))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
