"""``nmsat energy``: the energy table, and its calibration by measured power."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError
from .options import verb
from .output import check_outputs, show, write


def add(verbs: Any) -> None:
    example = "nmsat energy --calibrate power.yaml -o mycard.yaml"
    parser = verb(verbs, "energy", "what events cost, from what source; calibrate by measured power", example, _energy)
    parser.add_argument("table", nargs="?", default="vcu1525", metavar="TABLE", help="name or YAML file")
    parser.add_argument(
        "--calibrate", metavar="POWER.yaml", help="measured watts of idle card and runs: docs/energy.md"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where the calibrated table goes")
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON; - is standard output")


def _energy(args: argparse.Namespace) -> int:
    from ..models.energy_table import EnergyTable

    check_outputs(args.output, args.json)
    if (args.calibrate is None) != (args.output is None):
        raise NmsatError.rule("", "-o", "given with --calibrate, and only then", args.output)
    table = EnergyTable.load(args.table)
    if args.calibrate:
        table = _calibrated(table, args.calibrate, Path(args.output).stem)
        write(args.output, table.to_yaml())
    if args.json:
        write(args.json, json.dumps(table.model_dump(), indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        from ..reports.tables import energy_lines

        show(*energy_lines(table))
    return 0


def _calibrated(table: Any, name: str, new: str) -> Any:
    from ..models.energy_table import Events, Measurements, calibrate
    from ..models.yaml_io import read_yaml, validate
    from ..reports.runs import load_run

    power = validate(Measurements, read_yaml(Path(name)), name)
    events = []
    for item in power.runs:
        run = load_run(Path(name).parent / item.result)
        found = run.totals.get("events")
        if not isinstance(found, dict) or found.keys() != Events.__dataclass_fields__.keys():
            raise NmsatError.rule(item.result, "totals.events", "counts of events", found, "write it with nmsat run")
        events.append(Events(**found))
    return calibrate(table, power, events, new)
