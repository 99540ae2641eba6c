"""``nmsat report``: regenerate the committed studies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError
from .options import verb
from .output import progress


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "report",
        "regenerate the comparison of methods, patterns and overheads",
        "nmsat report --study out/",
        _report,
    )
    parser.add_argument(
        "--study", metavar="DIR", required=True, help="folder for study.csv, study.md and speedup.svg/.png"
    )


def _report(args: argparse.Namespace) -> int:
    from ..reports.study import write_study

    folder = Path(args.study)
    if folder.exists() and not folder.is_dir():
        raise NmsatError.rule("", "--study", "a folder", args.study)
    text = write_study(folder, progress("simulating") if not args.quiet else None)
    if not args.quiet:
        print(text)
    return 0
