"""The command line's entry: parse, run one verb of ``commands/``, turn errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

from .commands import VERBS
from .models.errors import NmsatError


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 is success, 1 a failed check, 2 bad input."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        return args.handler(args)
    except NmsatError as error:
        print(f"nmsat: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("nmsat: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """argparse with the house's one-line errors."""

    def error(self, message: str) -> Any:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = _Parser(prog="nmsat", description="Simulate, schedule and verify N:M sparse training accelerators.")
    parser.add_argument("--version", action="version", version=f"nmsat {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in VERBS:
        importlib.import_module(f".commands.{name}", __package__).add(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
