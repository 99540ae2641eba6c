"""N:M sparsity patterns."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import NmsatError

GROUP_SIZES = (2, 4, 8, 16, 32)
_TEXT = re.compile(r"([0-9]{1,3}):([0-9]{1,3})")


@dataclass(frozen=True, slots=True, order=True)
class Sparsity:
    """Keep ``keep`` of every ``group`` consecutive values along the reduction axis; printed ``2:8``.

    A dense operand is the pattern ``N:N`` (``keep == group``): the array then spends one issue slot on every
    value, so dense and sparse differ by exactly ``group / keep``. ``Sparsity.dense(n)`` builds it; its text
    is ``dense``.

    Parameters
    ----------
    keep : int
        N, values kept in a group, 1 <= keep <= group.
    group : int
        M, values in a group: 2, 4, 8, 16 or 32 (for a dense pattern any value from 1 to 32).

    Raises
    ------
    NmsatError
        If the pair is not a legal pattern.
    """

    keep: int
    group: int

    def __post_init__(self) -> None:
        for name in ("keep", "group"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise NmsatError.rule("", f"sparsity.{name}", "an integer", value)
        if self.keep == self.group:
            if not 1 <= self.group <= max(GROUP_SIZES):
                raise NmsatError.rule("", "sparsity.group", "1 to 32 for a dense pattern", self.group)
            return
        if self.group not in GROUP_SIZES:
            raise NmsatError.rule("", "sparsity.group", "one of 2, 4, 8, 16, 32", self.group)
        if not 1 <= self.keep <= self.group:
            raise NmsatError.rule("", "sparsity.keep", f"1 to {self.group}", self.keep, "N:M keeps N of every M values")

    @classmethod
    def parse(cls, text: object, where: str = "", key: str = "sparsity") -> Sparsity:
        """Read ``"2:8"``, ``"dense"`` or ``{"keep": 2, "group": 8}``; anything else is an :class:`NmsatError`.

        An integer is refused with the reason: YAML 1.1 reads a bare ``2:8`` as 2*60+8 = 128.
        """
        if isinstance(text, Sparsity):
            return text
        if isinstance(text, dict) and set(text) == {"keep", "group"}:
            return cls(text["keep"], text["group"])
        if isinstance(text, int) and not isinstance(text, bool) and text >= 60:
            n, m = divmod(text, 60)
            hint = f'YAML reads a bare {n}:{m} as the base-60 number {text}; write "{n}:{m}" in quotes'
            raise NmsatError.rule(where, key, 'a pattern such as "2:8" or "dense"', text, hint)
        if isinstance(text, str):
            if text == "dense":
                return DENSE
            if match := _TEXT.fullmatch(text):
                keep, group = int(match[1]), int(match[2])
                try:
                    return cls(keep, group)
                except NmsatError as error:
                    prefix = f"{where}: " if where else ""
                    raise NmsatError(f"{prefix}{error} (in {text!r})") from None
        raise NmsatError.rule(where, key, 'a pattern such as "2:8" or "dense"', text)

    @classmethod
    def dense(cls, group: int = 1) -> Sparsity:
        """The dense pattern ``group:group``."""
        return cls(group, group)

    @property
    def is_dense(self) -> bool:
        """True when nothing is pruned."""
        return self.keep == self.group

    @property
    def density(self) -> float:
        """Share of values kept, 0..1."""
        return self.keep / self.group

    @property
    def index_bits(self) -> int:
        """Bits of one index, ceil(log2(group)); 0 for a dense pattern, whose indices are not stored."""
        return 0 if self.is_dense else (self.group - 1).bit_length()

    @property
    def index_bytes(self) -> int:
        """Bytes of one group's index field in memory: keep * index_bits padded to whole bytes."""
        return -(-self.keep * self.index_bits // 8)

    @property
    def group_bytes(self) -> int:
        """Bytes of one compressed group in memory: binary16 values plus the index field."""
        return 2 * self.keep + self.index_bytes

    def __str__(self) -> str:
        return "dense" if self.is_dense else f"{self.keep}:{self.group}"


DENSE = Sparsity(1, 1)
