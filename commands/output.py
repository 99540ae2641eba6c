"""Where results go: standard output, files written whole or not at all, progress on a terminal."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..models.errors import NmsatError
from ..models.whole_file import write_whole


@contextmanager
def counting(title: str, total: int, *, unit: str = "", show: bool = True) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where that is a terminal, with remaining time and, with a unit, the rate.

    Yields what is called with the number done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (show and console.is_terminal),
    )
    task = bar.add_task(title, total=total, rate="")

    def report(done: int) -> None:
        speed = bar.tasks[0].speed
        bar.update(task, completed=done, rate=f"{speed:,.0f} {unit}/s" if unit and speed else "")

    with bar:
        yield report


def progress(title: str) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """A function that wraps an iterable of known length in a progress bar."""

    def tracked(items: Iterable[Any]) -> Iterator[Any]:
        with counting(title, operator.length_hint(items)) as report:
            for number, item in enumerate(items, 1):
                yield item
                report(number)

    return tracked


def show(*items: Any) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    console = Console(width=width, highlight=False)
    for item in items:
        console.print(item, markup=False, soft_wrap=isinstance(item, str))


def check_outputs(*names: str | None) -> None:
    """Refuse unusable output names before any work is done."""
    for name in names:
        if name in (None, "-"):
            continue
        path = Path(str(name))
        if path.is_dir():
            raise NmsatError.rule("", "output", "a file, not a folder", name)
        if not path.absolute().parent.is_dir():
            raise NmsatError.rule("", "output", "in an existing folder", name)


def write(name: str, content: str | bytes) -> None:
    """Write a whole file or nothing; - is standard output."""
    data = content.encode() if isinstance(content, str) else content
    if name == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        write_whole(Path(name), data)
    except OSError as error:
        raise NmsatError(f"{name}: must be writable; {error.strerror}") from None
