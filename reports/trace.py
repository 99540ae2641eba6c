"""The schedule as a Chrome/Perfetto trace: open it at ui.perfetto.dev or chrome://tracing."""

from __future__ import annotations

import json

from ..simulator.result import RunResult


def chrome_trace(result: RunResult, clock_mhz: int) -> str:
    """JSON text; times are microseconds of the simulated clock, one track a stage."""
    tracks = {"ff": 1, "bp": 2, "wu": 3, "vector": 4}
    events: list[dict[str, object]] = [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": {"name": name}} for name, tid in tracks.items()
    ]
    start = 0
    for row in result.layers:
        if row["cycles"]:
            args = {key: row[key] for key in ("m", "n", "k", "sparsity", "dataflow", "cycles", "stall_cycles")}
            events.append(
                {
                    "ph": "X",
                    "name": f"{row['layer']} {row['op']}",
                    "cat": row["stage"],
                    "pid": 0,
                    "tid": tracks[row["stage"]],
                    "ts": start / clock_mhz,
                    "dur": row["cycles"] / clock_mhz,
                    "args": args,
                }
            )
        start += row["cycles"]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": result.meta}, indent=0) + "\n"
