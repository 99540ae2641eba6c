"""``nmsat report``: runs and sweeps as one HTML page, as figures, and the committed studies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..models.errors import InputFileError, NmsatError
from .options import verb
from .output import check_outputs, progress, write


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "report",
        "runs and sweeps as one self-contained HTML page with figures",
        "nmsat report dense.json bdwp.json out/pareto -o report.html --figures out/figures",
        _report,
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="RUN_OR_SWEEP",
        help="JSON of nmsat run, or folder of nmsat sweep; runs are compared with the first",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the page; - is standard output")
    parser.add_argument("--figures", metavar="DIR", help="write every figure as SVG, PNG and CSV")
    parser.add_argument("--gallery", metavar="DIR", help="regenerate the committed gallery: study, figures, page")
    parser.add_argument("--window", metavar="DIR", help="recompute the window accumulator's numerics study (minutes)")
    parser.add_argument("--study", metavar="DIR", help="regenerate the study alone: study.csv, study.md, its figures")


def _report(args: argparse.Namespace) -> int:
    if args.window:
        if args.inputs or args.output or args.figures or args.study or args.gallery:
            raise NmsatError.rule("", "--window", "given alone", "other arguments")
        return _window(args)
    if args.study or args.gallery:
        if args.inputs or args.output or args.figures or (args.study and args.gallery):
            raise NmsatError.rule("", "--gallery" if args.gallery else "--study", "given alone", "other arguments")
        return _gallery(args) if args.gallery else _study(args)
    if not args.inputs:
        raise NmsatError.rule("", "RUN_OR_SWEEP", "at least one file or folder", [], "nmsat run ... --json run.json")
    if not (args.output or args.figures):
        raise NmsatError.rule("", "-o", "given, or --figures", None)
    check_outputs(args.output)
    figures = _folder("--figures", args.figures)
    from .. import __version__
    from ..reports.page import render
    from ..reports.report import sections_of

    sections = sections_of([_source(name) for name in args.inputs])
    if args.output:
        written_by = f"Written by nmsat {__version__}{_revision()}. It needs no network."
        first, more = sections[len(sections) - len(args.inputs)].title, len(args.inputs) - 1  # comparisons come before
        title = f"{first}, and {more} more" if more else first
        write(args.output, render(title, sections, written_by))
    if figures:
        from ..reports.report import write_figures

        count = write_figures(sections, figures)
        if not (args.quiet or args.output == "-"):
            print(f"{count} figures: {figures}")
    if args.output and not (args.quiet or args.output == "-"):
        print(f"{args.output}: {len(sections)} sections")
    return 0


def _source(name: str) -> Any:
    """A run or a sweep, by what the path holds."""
    from ..reports.runs import load_run
    from ..reports.sweep_results import load_sweep

    path = Path(name)
    if not path.exists():
        raise InputFileError(f"{name}: must be an existing file or folder; there is none of that name")
    return load_sweep(path) if path.is_dir() else (name, load_run(path))


def _folder(option: str, name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name)
    if path.exists() and not path.is_dir():
        raise NmsatError.rule("", option, "a folder", name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NmsatError(f"{name}: must be a folder that can be made; {error.strerror}") from None
    return path


def _revision() -> str:
    """The git revision of the code, where it runs from a checkout."""
    import subprocess

    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", revision {found}"


def _window(args: argparse.Namespace) -> int:
    from ..reports.window_study import write_window_study

    folder = _folder("--window", args.window)
    assert folder is not None
    text = write_window_study(folder, (lambda _: None) if args.quiet else lambda line: print(line, file=sys.stderr))
    if not args.quiet:
        print(text)
    return 0


def _study(args: argparse.Namespace) -> int:
    from ..reports.study import write_study

    folder = _folder("--study", args.study)
    assert folder is not None
    text = write_study(folder, progress("simulating") if not args.quiet else None)
    if not args.quiet:
        print(text)
    return 0


def _gallery(args: argparse.Namespace) -> int:
    from ..reports.gallery import write_gallery

    folder = _folder("--gallery", args.gallery)
    assert folder is not None
    names = write_gallery(folder, progress("simulating") if not args.quiet else None)
    if not args.quiet:
        print(f"{folder}: {len(names)} figures")
    return 0
