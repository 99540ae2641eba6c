"""``nmsat train``: reference training in NumPy; writes accuracy and the trained, pruned network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError
from .options import positive, verb
from .output import check_outputs, progress, write


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "train",
        "train a small network by a pruning recipe, in the accelerator's arithmetic",
        "nmsat train digits-mlp --method bdwp --sparsity 2:8 --seeds 5 -o trained",
        _train,
    )
    known = "digits-mlp (default), digits-cnn or bytes-lm"
    parser.add_argument("task", nargs="?", default="digits-mlp", metavar="TASK", help=known)
    parser.add_argument("--method", default="bdwp", metavar="NAME[,NAME]", help="recipes, or all (default: bdwp)")
    parser.add_argument("--sparsity", default="2:8", metavar="N:M", help="pattern (default: 2:8)")
    parser.add_argument("--seeds", type=positive, default=5, metavar="K", help="runs with seeds 0 to K-1 (default: 5)")
    parser.add_argument("--epochs", type=positive, metavar="E", help="of the digits (default: 20, digits-cnn 10)")
    parser.add_argument("--steps", type=positive, metavar="K", help="of bytes-lm (default: 1500)")
    parser.add_argument("--batch", type=positive, metavar="B", help="of bytes-lm, windows of 64 bytes (default: 16)")
    parser.add_argument("--lr", type=float, metavar="R", help="greatest learning rate (default: 0.05, bytes-lm 0.006)")
    parser.add_argument("--decay", metavar="WHICH", help="dropped weights that decay: ff, bp, union or none")
    parser.add_argument(
        "--accumulator", choices=("fp32", "window"), default="fp32",
        help="sums: binary32 in BLAS order, or the window accumulator's bits (default: fp32)",
    )  # fmt: skip
    parser.add_argument("--window-lsb", type=int, default=33, metavar="L", help="of the window: 2^-L (default: 33)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write accuracy.json, and workload.yaml and .npz of the best seed's network",
    )
    parser.add_argument("--json", metavar="FILE", help="write the accuracies; - is standard output")


def _train(args: argparse.Namespace) -> int:
    from ..models import Sparsity
    from ..models.pruning import RECIPES, make_recipe
    from ..models.training import WindowProducts
    from ..models.training.tasks import get_task, workload_of
    from ..models.window import MAX_TERMS_LOG2, Window

    task = get_task(args.task)
    check_outputs(args.json)
    folder = _folder(args.output)
    methods = list(RECIPES) if args.method == "all" else args.method.split(",")
    workload, pattern = workload_of(task), Sparsity.parse(args.sparsity)
    for method in methods:  # refuse all bad input before the first run
        make_recipe(method, pattern, workload, decay=args.decay)
    settings = task.settings({name: getattr(args, name) for name in ("epochs", "steps", "batch", "lr", "decay")})
    products = None
    if args.accumulator == "window":
        products = WindowProducts(Window(args.window_lsb, args.window_lsb + 17 + MAX_TERMS_LOG2))
    records = []
    for method in methods:
        record, best = _runs(args, task, method, settings, products)
        records.append(record)
        if folder is not None:
            _save(folder if len(methods) == 1 else folder / method, workload, record, best, settings.batch, task.scored)
    if args.json:
        write(args.json, _text(records[0] if len(records) == 1 else records))
    return 0


def _runs(args: argparse.Namespace, task: Any, method: str, settings: Any, products: Any) -> tuple[dict[str, Any], Any]:
    """The record of one method's runs, and the run with the best accuracy (the first of equals)."""
    import numpy as np

    quiet = args.quiet or args.json == "-"
    runs = []
    for seed in range(args.seeds):
        shown = progress(f"{method} seed {seed}") if sys.stderr.isatty() and not quiet else iter
        runs.append(task.run(method, args.sparsity, seed, settings, products, shown))
    found = [run.accuracy for run in runs]
    spread = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
    sparsity = "dense" if method == "dense" else args.sparsity
    record = {
        "task": task.name,
        "method": method,
        "sparsity": sparsity,
        "seeds": list(range(args.seeds)),
        "accuracies": found,
        "accuracy_mean": float(np.mean(found)),
        "accuracy_std": spread,
        **task.facts(settings),
        "final_loss_mean": float(np.mean([run.losses[-1] for run in runs])),
        "flip_rate_last_epoch": float(np.mean([run.flips[-1] for run in runs])) if runs[0].flips else 0.0,
        "accumulator": "fp32" if products is None else f"window, L = {products.window.lsb}",
        "skipped_steps": [run.skipped for run in runs],
        "mask_overlap": float(np.mean([run.overlap for run in runs])),
    }
    if not quiet:
        mean = f"{100 * record['accuracy_mean']:6.2f} +- {100 * spread:.2f} %"
        print(f"{task.name} {method:17} {sparsity:6} {mean} of {task.scored}, {len(runs)} seeds")
    return record, max(runs, key=lambda run: run.accuracy)


def _save(folder: Path, workload: Any, record: dict[str, Any], best: Any, batch: int, scored: str) -> None:
    from ..models.stages import Accuracy
    from ..models.training.export import workload_file

    fact = Accuracy(
        task=record["task"],
        value=record["accuracy_mean"],
        std=record["accuracy_std"],
        seeds=len(record["seeds"]),
        note=f"share of {scored}",
    )
    built = workload_file(workload, record["method"], best, batch=batch, accuracy=fact)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NmsatError(f"{folder}: must be a folder that can be made; {error.strerror}") from None
    built.save(folder / "workload.yaml")
    write(str(folder / "accuracy.json"), _text(record))


def _folder(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name)
    if path.exists() and not path.is_dir():
        raise NmsatError.rule("", "-o", "a folder", name)
    if not path.absolute().parent.is_dir():
        raise NmsatError.rule("", "-o", "in an existing folder", name)
    return path


def _text(data: Any) -> str:
    return json.dumps(data, indent=1) + "\n"
