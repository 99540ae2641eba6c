"""``nmsat execute``: training steps in values, by the program alone."""

from __future__ import annotations

import argparse
import hashlib
import json
from typing import Any

from ..models.errors import MissingToolError, NmsatError
from .options import add_run_options, positive, step, verb
from .output import check_outputs, write

TASKS = ("digits-mlp", "digits-cnn")


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "execute",
        "run training steps in values",
        "nmsat execute digits-mlp -a sat_4x4 --batch 16 --steps 10",
        _execute,
    )
    add_run_options(parser)
    parser.add_argument("--steps", type=positive, default=10, metavar="K", help="default: 10")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the initial weights (default: 0)")
    parser.add_argument("--lr", type=float, default=0.05, metavar="X", help="learning rate (default: 0.05)")
    parser.add_argument("--json", metavar="FILE", help="losses and the SHA-256 of every tensor; - is standard output")


def _execute(args: argparse.Namespace) -> int:
    check_outputs(args.json)
    if args.workload not in TASKS:
        raise NmsatError.rule("", "WORKLOAD", f"one of {', '.join(TASKS)}", args.workload, "the data are the digits")
    if args.mode == "infer" or args.seed < 0:
        key, rule, value = (
            ("--mode", "train", args.mode) if args.mode == "infer" else ("--seed", "0 or more", args.seed)
        )
        raise NmsatError.rule("", key, rule, value)
    import numpy as np

    from ..dataflow import compile_program
    from ..models import Accelerator, Workload
    from ..models.golden import UpdateRule
    from ..models.training import Stack
    from ..simulator import execute, load_tensors, load_weights, new_image, read_tensor

    rule = UpdateRule(lr=args.lr, loss_scale=1024.0)
    net = Workload.load(args.workload)
    options: dict[str, Any] = step(args, net) | {"batch": args.batch or 16}
    x, y = _digits()
    batch = options["batch"]
    if batch > len(x):
        raise NmsatError.rule("", "--batch", f"at most {len(x)}, the number of images", batch)
    program = compile_program(net, Accelerator.load(args.accelerator), **options)
    image = new_image(program)
    load_weights(program, image, Stack.of(net).initial_weights(args.seed))
    words = np.array([rule.lr, rule.momentum, rule.weight_decay, rule.lam, rule.loss_scale], np.float32)
    load_tensors(program, image, {"rule": words})
    losses = []
    for number in range(args.steps):
        rows = np.arange(number * batch, (number + 1) * batch) % len(x)
        load_tensors(program, image, {"input": x[rows], "labels": y[rows]})
        image = execute(program, image)
        losses.append(float(read_tensor(program, image, "losses").mean(dtype=np.float64)))
        if not (args.quiet or args.json == "-"):
            print(f"step {number + 1:3}  loss {losses[-1]:.4f}")
    digests = {
        item.name: hashlib.sha256(read_tensor(program, image, item.name).tobytes()).hexdigest()
        for item in program.tensors
    }
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    if not (args.quiet or args.json == "-"):
        print(f"{len(digests)} tensors, {len(image)} bytes of memory, SHA-256 {digest[:16]}")
    if args.json:
        found = {"meta": program.meta | {"seed": args.seed}, "losses": losses, "memory": digest, "tensors": digests}
        write(args.json, json.dumps(found, indent=1) + "\n")
    return 0


def _digits() -> tuple[Any, Any]:
    """Images (1797, 64) in sixteenths, exact in binary16, and their classes."""
    import numpy as np

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingToolError('digits: must have scikit-learn; install "nmsat[data]"') from None
    found: Any = load_digits()
    return (found.data / 16).astype(np.float16), found.target.astype(np.int32)
