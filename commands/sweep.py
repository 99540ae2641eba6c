"""``nmsat sweep``: evaluate a design space."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..models.errors import MissingToolError, NmsatError
from .options import positive, verb
from .output import check_outputs, counting, write


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "sweep",
        "evaluate a design space: every point, and the Pareto front",
        "nmsat sweep examples/pareto.yaml -o out/pareto",
        _sweep,
    )
    parser.add_argument("spec", metavar="SPEC.yaml", help="axes, constraints, objectives: see docs/sweep.md")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="new folder for results.csv, pareto.csv")
    parser.add_argument("-j", "--jobs", type=positive, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="a dask.distributed scheduler instead of processes")
    parser.add_argument("--resume", action="store_true", help="go on in a folder that holds part of this sweep")
    parser.add_argument("--parquet", action="store_true", help="write results.parquet too")
    parser.add_argument("--json", metavar="FILE", help="write the summary as JSON; - is standard output")


def _sweep(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    from ..simulator.explore.spec import SweepSpec
    from ..simulator.explore.sweep import direction, run_sweep

    if args.cluster and args.jobs != 1:
        raise NmsatError.rule("", "--jobs", "left out with --cluster", args.jobs)
    spec, folder = SweepSpec.load(args.spec), Path(args.output)
    loud = not (args.quiet or args.json == "-")
    with (
        _executor(spec, args.jobs, args.cluster) as executor,
        counting("sweep", spec.points(), unit="points", show=loud) as report,
    ):
        summary = run_sweep(
            spec, folder, executor=executor, in_flight=4 if args.cluster else 2 * args.jobs,
            shared_folder=not args.cluster, resume=args.resume, report=report, parquet=args.parquet,
        )  # fmt: skip
    if args.json:
        facts = {key: getattr(summary, key) for key in type(summary).__slots__}
        write(args.json, json.dumps(facts, indent=1) + "\n")
    if loud:
        print(f"{summary.points:,} points, {summary.valid:,} can run, {summary.kept:,} meet the constraints")
        for reason, count in summary.refused.items():
            print(f"{count:,} refused: {reason}")
        for bound, count in summary.broken.items():
            print(f"{count:,} break the constraint {bound}")
        aims = ", ".join(f"{direction(name)} {name}" for name in spec.objectives)
        print(f"{summary.front:,} on the Pareto front ({aims}): {folder / 'pareto.csv'}")
    return 0 if summary.kept else 1


class _Cluster:
    """The executor of a dask.distributed scheduler."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise MissingToolError('--cluster needs dask.distributed: pip install "nmsat[cluster]"') from None
        try:
            self.client = Client(address, timeout=10)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise NmsatError.rule("", "--cluster", "the address of a running scheduler", address, reason) from None

    def __enter__(self) -> Any:
        return self.client.get_executor(pure=False)

    def __exit__(self, *_: object) -> None:
        self.client.close()


def _executor(spec: Any, jobs: int, cluster: str | None) -> Any:
    if cluster:
        return _Cluster(cluster)
    if jobs == 1 or spec.search:
        from ..simulator.explore.inline import InlineExecutor

        return InlineExecutor()
    from ..simulator.explore.workers import worker_pool

    return worker_pool(spec, jobs)
