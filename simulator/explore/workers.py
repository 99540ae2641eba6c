"""Worker processes of a sweep: they start with everything loaded, and none outlives the sweep."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.connection import wait

import numpy as np

from .chunk import context, evaluate_codes
from .spec import SweepSpec

# A forked worker has the parent's modules, compiled kernels and network: a second or two less a worker. Elsewhere fork
# is missing or unsafe.
START = "fork" if sys.platform == "linux" else "spawn"


def worker_pool(spec: SweepSpec, jobs: int) -> Executor:
    """``jobs`` processes that evaluate a sweep's chunks; they run when this returns.

    Call it while the process has no threads of its own: it forks.
    """
    data = spec.to_json()
    _, _, values = context(data)
    if START == "fork":
        evaluate_codes(data, dict.fromkeys(values, np.zeros(1, np.int64)), np.zeros(1, np.int64))
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context(START), initializer=_watch)
    pool.submit(os.getpid)
    return pool


def _watch() -> None:
    """End this worker when its parent is gone, even if killed: an idle worker would wait for chunks forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
