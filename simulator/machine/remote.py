"""A unit in another super logic region, in cycles: what ``nmsat.rtl.remote`` puts between it and the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ...dataflow.program import Descriptor
from .parts import Pipe, Queue


class Link(Queue):
    """A queue behind ``hop`` registers; word of its room comes back through as many.

    ``room`` is seen where words go in, ``items`` where they come out.
    """

    __slots__ = ("_back", "_free", "_wire")

    def __init__(self, hop: int) -> None:
        super().__init__(2 * hop + 2)
        self._free = self.depth
        self._wire: deque[Any] = deque([None] * hop)
        self._back = deque([False] * hop)

    @property
    def room(self) -> bool:
        """A word would be taken, as far as is known here."""
        return self._free > 0

    def step(self) -> None:
        """End the cycle."""
        self._wire.append(self._in)
        self._back.append(self._out)
        self._free += self._back.popleft() - (self._in is not None)
        self._in = self._wire.popleft()
        super().step()


class RemotePipe:
    """An engine's :class:`.parts.Pipe` behind two links."""

    __slots__ = ("_from", "_pipe", "_to")

    def __init__(self, stages: int, hop: int) -> None:
        self._to, self._from, self._pipe = Link(hop), Link(hop), Pipe(stages)

    @property
    def ready(self) -> bool:
        """A word would be taken."""
        return self._to.room

    @property
    def word(self) -> Any:
        """What is offered at the end; None if nothing is."""
        return self._from.items[0] if self._from.items else None

    def push(self, word: Any) -> None:
        """Give a word, not None, in this cycle; only if ``ready``."""
        self._to.push(word)

    def pop(self) -> Any:
        """Take the word in this cycle."""
        return self._from.pop()

    def step(self) -> None:
        """End the cycle."""
        if self._to.items and self._pipe.ready:
            self._pipe.push(self._to.pop())
        if self._pipe.word is not None and self._from.room:
            self._from.push(self._pipe.pop())
        for part in (self._to, self._pipe, self._from):
            part.step()


class _Read:
    """A read port as the unit sees it."""

    def __init__(self, requests: Link, words: Link) -> None:
        self._requests, self._words = requests, words
        self.take = False

    @property
    def room(self) -> bool:
        return self._requests.room

    @property
    def word(self) -> int:
        return self._words.items[0] if self._words.items else 0

    def ask(self, address: int, size: int) -> None:
        self._requests.push((address, size))

    def step(self) -> None:
        if self.take and self._words.items:
            self._words.pop()
        self.take = False


class _Write:
    """A write port as the unit sees it; ``done`` is set from outside."""

    def __init__(self, requests: Link, words: Link) -> None:
        self._requests, self._words = requests, words
        self.give = self.take_done = self.done = False

    @property
    def room(self) -> bool:
        return self._requests.room

    @property
    def word_room(self) -> bool:
        return self._words.room

    def ask(self, address: int, size: int) -> None:
        self._requests.push((address, size))

    def step(self) -> None:
        if self.give and self._words.room:
            self._words.push(True)
        self.give = self.take_done = False


class RemoteModel:
    """A unit's model between ``read`` and ``write``, ``hop`` registers from them and from the controller.

    Parameters
    ----------
    make : callable
        The unit's model between two ports.
    read, write : port models
    hop : int

    Attributes
    ----------
    room, done, take_done : bool
        Of a unit model.
    """

    def __init__(self, make: Callable[[Any, Any], Any], read: Any, write: Any, hop: int) -> None:
        self._near = read, write
        self._links = self._requests, self._words, self._out_requests, self._out_words = [Link(hop) for _ in range(4)]
        self._far = _Read(self._requests, self._words), _Write(self._out_requests, self._out_words)
        self._unit = make(*self._far)
        self._starts: deque[Descriptor | None] = deque([None] * hop)
        self._ends, self._answers = deque([False] * hop), deque([False] * hop)
        self._given: Descriptor | None = None
        self._reading = self._writing = 0  # runs that are asked for and have not ended
        self.room, self.done, self.take_done = True, False, False

    def start(self, item: Descriptor) -> None:
        """Give a descriptor in this cycle; only if there is ``room``."""
        self._given = item

    def step(self) -> None:
        """End the cycle."""
        read, write = self._near
        # near the ports
        if self._requests.items and read.room:
            read.ask(*self._requests.pop())
            self._reading += 1
        if self._reading and read.word and self._words.room:
            read.take = True
            self._words.push(read.word)
            self._reading -= read.word == 2
        if self._out_requests.items and write.room:
            write.ask(*self._out_requests.pop())
            self._writing += 1
        if self._out_words.items:
            write.give = True
            if write.word_room:
                self._out_words.pop()
        answered = bool(self._writing and write.done)
        if answered:
            write.take_done = True
            self._writing -= 1
        # near the unit
        self._starts.append(self._given)
        begun = self._starts.popleft()
        self._answers.append(answered)
        self._far[1].done = self._answers.popleft()
        if begun is not None:
            self._unit.start(begun)
        ends = self._unit.done
        self._unit.take_done = ends
        self._unit.step()
        for part in (*self._far, *self._links):
            part.step()
        # the controller
        if self._given is not None:
            self.room = False
        if self.done and self.take_done:
            self.done, self.room = False, True
        self._ends.append(ends)
        self.done = self.done or self._ends.popleft()
        self._given, self.take_done = None, False
