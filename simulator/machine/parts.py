"""What the units' cycle models are made of: queues, pipelines, the transpose buffer, as the RTL's handshakes are.

Everything is looked at as it is at the start of a cycle; ``push``, ``pop`` and the like act when the cycle ends
(:meth:`step`).
"""

from __future__ import annotations

from collections import deque
from typing import Any


class Queue:
    """:class:`nmsat.rtl.queue.Queue`: a word is seen the cycle after it came, a full queue takes nothing."""

    __slots__ = ("_in", "_out", "depth", "items")

    def __init__(self, depth: int) -> None:
        self.depth, self.items = depth, deque[Any]()
        self._in: Any = None
        self._out = False

    @property
    def room(self) -> bool:
        """A word would be taken."""
        return len(self.items) < self.depth

    def push(self, word: Any) -> None:
        """Give a word, not None, in this cycle; only if there is ``room``."""
        self._in = word

    def pop(self) -> Any:
        """Take the first word in this cycle."""
        self._out = True
        return self.items[0]

    def step(self) -> None:
        """End the cycle."""
        if self._out:
            self.items.popleft()
            self._out = False
        if self._in is not None:
            self.items.append(self._in)
            self._in = None


class Pipe:
    """:func:`nmsat.rtl.stream.pipeline`: stages that stall together, then a skid buffer.

    Attributes
    ----------
    ready : bool
        A word would be taken; then the stages move.
    word : object
        What is offered at the end; None if nothing is.
    """

    __slots__ = ("_in", "_spare", "_stages", "_taken", "ready", "word")

    def __init__(self, stages: int) -> None:
        self._stages: deque[Any] = deque([None] * stages)
        self._in = self._spare = self.word = None
        self._taken = False
        self.ready = True

    def push(self, word: Any) -> None:
        """Give a word, not None, in this cycle; only if ``ready``."""
        self._in = word

    def pop(self) -> Any:
        """Take the word in this cycle."""
        self._taken = True
        return self.word

    def step(self) -> None:
        """End the cycle."""
        stages, spare = self._stages, self._spare
        given = stages[-1]
        if self._taken or self.word is None:
            self.word = spare if spare is not None else given
            self._spare = None
        elif given is not None and spare is None:
            self._spare = given
        if self.ready:
            stages.pop()
            stages.appendleft(self._in)
        self._in, self._taken = None, False
        self.ready = self._spare is None or stages[-1] is None


class TransposerModel:
    """:class:`nmsat.rtl.transposer.Transposer`: rows in, columns out, two banks.

    Attributes
    ----------
    out : Pipe
        Columns that leave: (rows of the tile, whether it is the last).
    """

    __slots__ = ("_accepted", "_column", "_fill", "_full", "_read", "_rows", "_sizes", "_stored", "out")

    def __init__(self) -> None:
        self.out = Pipe(2)
        self._full, self._sizes = [False, False], [(0, 0), (0, 0)]
        self._fill = self._read = self._rows = self._column = 0
        self._stored: int | None = None
        self._accepted: tuple[bool, int] | None = None

    def _freed(self) -> bool:
        return self._full[self._read] and self.out.ready and self._column + 1 >= self._sizes[self._read][1]

    @property
    def ready(self) -> bool:
        """A row would be taken."""
        return not self._full[self._fill] or self._freed()

    def push(self, last: bool, columns: int) -> None:
        """Give a row in this cycle; only if ``ready``."""
        self._accepted = last, columns

    def step(self) -> None:
        """End the cycle."""
        freed, full = self._freed(), self._full
        if full[self._read] and self.out.ready:
            rows, columns = self._sizes[self._read]
            ends = self._column + 1 >= columns
            self.out.push((rows, ends))
            self._column = 0 if ends else self._column + 1
        stored, self._stored = self._stored, None
        if self._accepted is not None:
            last, columns = self._accepted
            self._rows += 1
            if last:
                self._sizes[self._fill] = self._rows, columns
                self._stored, self._fill, self._rows = self._fill, 1 - self._fill, 0
            self._accepted = None
        if stored is not None:
            full[stored] = True
        if freed:
            full[self._read] = False
            self._read = 1 - self._read
        self.out.step()


class Stages:
    """:class:`nmsat.rtl.stream.PipelineControl` around ``count`` stages."""

    __slots__ = ("slots",)

    def __init__(self, count: int) -> None:
        self.slots: deque[Any] = deque([None] * count)

    @property
    def last(self) -> Any:
        """What is in the last stage."""
        return self.slots[-1]

    @property
    def empty(self) -> bool:
        """Nothing is in any stage."""
        return all(slot is None for slot in self.slots)

    def move(self, new: Any) -> None:
        """End the cycle: every stage takes what was in the one before, the first one ``new``."""
        self.slots.pop()
        self.slots.appendleft(new)
