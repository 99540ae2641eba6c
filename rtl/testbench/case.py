"""A case: one random legal use of a block, what the golden model says must come out, and how to compare."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...models.accelerator import Accelerator
from ..simulators.bench import Body


@dataclass(frozen=True, slots=True)
class Case:
    """One use of a block.

    Attributes
    ----------
    parameters : dict
        What was drawn, for people: JSON values.
    arguments : dict
        Of the block's test body at full speed: no pauses, no reset on the way.
    expected : sequence of (value, mask)
        The words that must leave, and which of their bits are specified.
    timing : tuple
        What the simulator needs to say how many cycles this takes.
    """

    parameters: dict[str, Any]
    arguments: dict[str, Any]
    expected: Sequence[tuple[int, int]] = field(repr=False)
    timing: tuple[Any, ...] = field(repr=False)

    def runs(self, rng: random.Random) -> list[dict[str, Any]]:
        """Arguments of three runs: at full speed, with random pauses, and with a reset on the way."""
        slow = {"idle": rng.choice((0.1, 0.5)), "stall": rng.choice((0.0, 0.3, 0.6)), "seed": rng.getrandbits(30)}
        cut = {"reset_after": rng.randrange(1, 60), "stall": rng.choice((0.0, 0.5)), "seed": rng.getrandbits(30)}
        return [self.arguments, self.arguments | slow, self.arguments | cut]

    def bits_differing(self, words: Sequence[int]) -> int:
        """Specified bits in which the words differ from the golden model; a word too few or many counts whole."""
        differing = sum(
            ((word ^ value) & mask).bit_count() for word, (value, mask) in zip(words, self.expected, strict=False)
        )
        missing = self.expected[len(words) :]
        return differing + sum(mask.bit_count() for _, mask in missing) + 32 * max(0, len(words) - len(self.expected))


@dataclass(frozen=True, slots=True)
class Block:
    """A block that can be generated and, where it has cases, verified.

    Attributes
    ----------
    name : str
        As on the command line.
    make : callable
        Accelerator to component.
    body : callable
        Test body that takes ``runs`` and returns a result for each: ``words``, ``cycles``, ``broken``.
    draw : callable
        (random, accelerator) to a random legal case.
    """

    name: str
    make: Callable[[Accelerator], Any]
    body: Body
    draw: Callable[[random.Random, Accelerator], Case]
