"""The command line: the only part of nmsat that prints or exits. Everything heavy is imported on use."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .models.errors import NmsatError

Handler = Callable[[argparse.Namespace], int]


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
    _add_list(verbs)
    _add_run(verbs)
    _add_schedule(verbs)
    _add_report(verbs)
    return parser


def _verb(verbs: Any, name: str, summary: str, example: str, handler: Handler) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("-q", "--quiet", action="store_true", help="print only what was asked for by other options")
    verb.set_defaults(handler=handler)
    return verb


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


# list


def _add_list(verbs: Any) -> None:
    verb = _verb(verbs, "list", "what ships with the package", "nmsat list workloads --json -", _list)
    verb.add_argument("what", nargs="?", choices=("workloads", "accelerators"), help="default: both")
    verb.add_argument("--json", metavar="FILE", help="write JSON; - is standard output")


def _list(args: argparse.Namespace) -> int:
    from .models import Accelerator, Workload

    data: dict[str, Any] = {}
    if args.what in (None, "workloads"):
        loaded = [Workload.load(name) for name in Workload.names()]
        data["workloads"] = [
            {
                "name": w.name,
                "layers": len(w.layers),
                "macs": w.macs,
                "weights": w.weights,
                "description": w.description,
            }
            for w in loaded
        ]
    if args.what in (None, "accelerators"):
        items = [Accelerator.load(name) for name in Accelerator.names()]
        data["accelerators"] = [
            {
                "name": a.name,
                "rows": a.rows,
                "cols": a.cols,
                "clock_mhz": a.clock_mhz,
                "description": a.description,
            }
            for a in items
        ]
    if args.json:
        _write(args.json, json.dumps(data, indent=1) + "\n")
    if not (args.json == "-" or args.quiet):
        from .reports.tables import quantity

        for w in data.get("workloads", []):
            size = f"{quantity(w['macs'], 'MAC'):>10} {quantity(w['weights']):>7} weights"
            print(f"{w['name']:16} {size}  {w['description']}")
        for a in data.get("accelerators", []):
            print(f"{a['name']:16} {a['description']}")
    return 0


# run and schedule


def _add_run_options(verb: argparse.ArgumentParser) -> None:
    from .models.methods import METHODS

    verb.add_argument("workload", metavar="WORKLOAD", help="zoo name, workload .yaml or SCALE-Sim .csv")
    verb.add_argument("-a", "--accelerator", default="sat", metavar="ACCEL", help="name or YAML file (default: sat)")
    verb.add_argument("--method", choices=tuple(METHODS), default="bdwp", help="default: bdwp")
    verb.add_argument("--sparsity", default="2:8", metavar="N:M", help="pattern, or dense (default: 2:8)")
    verb.add_argument("--batch", type=_positive, metavar="B", help="default: 512; 1 under scalesim")
    verb.add_argument("--mode", choices=("train", "infer"), default="train", help="default: train")
    verb.add_argument(
        "--dataflow",
        choices=("auto", "os", "ws", "is"),
        default="auto",
        help="default: auto; is only under scalesim",
    )
    verb.add_argument(
        "--overlap",
        choices=("full", "none"),
        default="full",
        help="none: memory, vector work and tiles are serial",
    )
    verb.add_argument(
        "--interleave",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="hide the adder's latency behind independent sums",
    )
    verb.add_argument(
        "--pregenerate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="prune weights once, at their update",
    )


def _add_run(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "run",
        "simulate a training step or an inference",
        "nmsat run resnet18 --sparsity 2:8 --csv rows.csv",
        _run,
    )
    _add_run_options(verb)
    verb.add_argument(
        "--semantics",
        choices=("nmsat", "scalesim"),
        default="nmsat",
        help="scalesim: that tool's printed cycles, dense forward only",
    )
    verb.add_argument("--csv", metavar="FILE", help="write the rows as CSV")
    verb.add_argument("--json", metavar="FILE", help="write the result as JSON; - is standard output")
    verb.add_argument("--trace", metavar="FILE", help="write the schedule as a Chrome/Perfetto trace")


def _options(args: argparse.Namespace) -> Any:
    from .dataflow import Options

    if args.dataflow == "is":
        raise NmsatError.rule("", "--dataflow", "auto, os or ws", "is", "is exists under --semantics scalesim only")
    full = args.overlap == "full"
    return Options(
        dataflow=args.dataflow,
        interleave=args.interleave,
        tile_overlap=full,
        dram_overlap=full,
        pregenerate=args.pregenerate,
        forward_on_chip=full,
    )


def _step(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments that simulate and compile_program share."""
    return {
        "method": args.method,
        "sparsity": args.sparsity,
        "batch": args.batch or 512,
        "mode": args.mode,
        "options": _options(args),
    }


def _run(args: argparse.Namespace) -> int:
    _check_outputs(args.csv, args.json, args.trace)
    from .models import Accelerator, Workload

    workload, accelerator = Workload.load(args.workload), Accelerator.load(args.accelerator)
    if args.semantics == "scalesim":
        from .simulator.scalesim import simulate_scalesim

        if args.trace:
            raise NmsatError.rule("", "--trace", "left out under --semantics scalesim", args.trace)
        dataflow = "os" if args.dataflow == "auto" else args.dataflow
        result = simulate_scalesim(workload, accelerator, dataflow=dataflow, batch=args.batch or 1)
    else:
        from .simulator import simulate

        result = simulate(workload, accelerator, **_step(args))
    if args.csv:
        _write(args.csv, result.to_csv())
    if args.json:
        _write(args.json, result.to_json())
    if args.trace:
        from .reports.trace import chrome_trace

        _write(args.trace, chrome_trace(result, accelerator.clock_mhz))
    if not (args.quiet or "-" in (args.json, args.csv, args.trace)):
        from .reports.tables import layer_table, summary_lines

        _show(layer_table(result, accelerator.processing_elements), *summary_lines(result, accelerator.dram_gib))
    return 0


def _add_schedule(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "schedule",
        "compile to the program",
        "nmsat schedule digits-mlp -a sat_4x4 --batch 16 -o program.bin",
        _schedule,
    )
    _add_run_options(verb)
    verb.add_argument("--layer", metavar="L", help="only this layer's descriptors")
    verb.add_argument("-o", "--output", metavar="FILE", help="program.json (readable) or program.bin (encoded)")
    verb.add_argument("--json", metavar="FILE", help="write the readable form; - is standard output")


def _schedule(args: argparse.Namespace) -> int:
    _check_outputs(args.output, args.json)
    if args.output and not args.output.endswith((".json", ".bin")):
        raise NmsatError.rule("", "-o", "a .json (readable) or .bin (encoded) file", args.output)
    from .dataflow import compile_program
    from .models import Accelerator, Workload

    workload, accelerator = Workload.load(args.workload), Accelerator.load(args.accelerator)
    program = compile_program(workload, accelerator, **_step(args))
    readable = program.readable()
    if args.layer is not None:
        if args.layer not in program.layers:
            raise NmsatError.rule("", "--layer", f"a layer of {workload.name}", args.layer)
        readable["descriptors"] = [item for item in readable["descriptors"] if item["layer"] == args.layer]
    if args.output and args.output.endswith(".bin"):
        if args.layer is not None:
            raise NmsatError.rule("", "--layer", "left out with an encoded program", args.layer, "write .json instead")
        _write(args.output, program.encode())
    elif args.output:
        _write(args.output, json.dumps(readable, indent=1) + "\n")
    if args.json:
        _write(args.json, json.dumps(readable, indent=1) + "\n")
    if not (args.quiet or args.json == "-"):
        for item in readable["descriptors"]:
            shown = " ".join(f"{key}={value}" for key, value in item.items() if key not in ("kind", "layer", "stage"))
            print(f"{item['kind']:8} {item['layer']} {item['stage']} {shown}")
        print(f"{len(program.descriptors)} descriptors, {len(program.encode())} bytes encoded")
    return 0


# report


def _add_report(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "report",
        "regenerate the comparison of methods, patterns and overheads",
        "nmsat report --study out/",
        _report,
    )
    verb.add_argument(
        "--study", metavar="DIR", required=True, help="folder for study.csv, study.md and speedup.svg/.png"
    )


def _report(args: argparse.Namespace) -> int:
    from .reports.study import write_study

    folder = Path(args.study)
    if folder.exists() and not folder.is_dir():
        raise NmsatError.rule("", "--study", "a folder", args.study)
    text = write_study(folder, _progress("simulating") if not args.quiet else None)
    if not args.quiet:
        print(text)
    return 0


# output


def _progress(title: str) -> Any:
    """A function that wraps an iterable in a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    return lambda items: track(items, title, console=Console(stderr=True), transient=True)


def _show(*items: Any) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    console = Console(width=width, highlight=False)
    for item in items:
        console.print(item, markup=False, soft_wrap=isinstance(item, str))


def _check_outputs(*names: str | None) -> None:
    """Refuse unusable output names before any work is done."""
    for name in names:
        if name in (None, "-"):
            continue
        path = Path(str(name))
        if path.is_dir():
            raise NmsatError.rule("", "output", "a file, not a folder", name)
        if not path.absolute().parent.is_dir():
            raise NmsatError.rule("", "output", "in an existing folder", name)


def _write(name: str, content: str | bytes) -> None:
    """Write a whole file or nothing: a temporary file beside it, then a rename."""
    data = content.encode() if isinstance(content, str) else content
    if name == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    path = Path(name)
    try:
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(data)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise NmsatError(f"{name}: must be writable; {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
