"""The accuracy tables of the README and of docs/training.md, from the committed records of `nmsat train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def load_records(path: str | Path) -> list[dict[str, Any]]:
    """Records of one file: what `nmsat train --json` wrote for one method or several."""
    found = json.loads(Path(path).read_text())
    return found if isinstance(found, list) else [found]


def accuracy_markdown(records: list[dict[str, Any]]) -> str:
    """One row a record: mean and sample deviation in percent, forward mask flips in the last epoch, mask overlap."""
    lines = [
        "| task | method | sparsity | accuracy, % | seeds | masks flipped, % | BP keeps of FF, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in records:
        flips, both = (f"{100 * r[key]:.2f}" if r[key] else "" for key in ("flip_rate_last_epoch", "mask_overlap"))
        accuracy = f"{100 * r['accuracy_mean']:.2f} ± {100 * r['accuracy_std']:.2f}"
        lines.append(
            f"| {r['task']} | {r['method']} | {r['sparsity']} | {accuracy} | {len(r['seeds'])} | {flips} | {both} |"
        )
    return "\n".join(lines)
