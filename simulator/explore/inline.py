"""An executor that runs what it is given at once, in this process: ``concurrent.futures.Executor`` without workers."""

from __future__ import annotations

import concurrent.futures as futures
from collections.abc import Callable
from typing import Any


class InlineExecutor(futures.Executor):
    """Every future is done when ``submit`` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Run ``fn`` now; what it raises is the future's."""
        future: futures.Future[Any] = futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
