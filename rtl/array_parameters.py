"""Sizes from which an array is generated, and the memory depths that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.lib import data

from ..models.accelerator import Accelerator
from ..models.window import Window
from .arithmetic.fp16_multiplier import OPERAND_BITS
from .arithmetic.fp32_adder import SUM_BITS
from .arithmetic.unit import require_latency
from .arithmetic.window_operand import OPERAND_BITS as WINDOW_OPERAND_BITS
from .uspe import address_bits, require_size, weight_layout

COUNT_BITS = 16  # of groups (OS) and rows (WS) a tile


@dataclass(frozen=True, slots=True)
class ArrayParameters:
    """What an array is generated for.

    Parameters
    ----------
    rows, cols : int
        R and C, 1 to 1024.
    max_keep, max_group : int
        Largest N and M, 1 to 32; N at most M.
    multiplier_latency, adder_latency : int
        Lm and La, 1 to 32; La is 1 with a window.
    hop : int
        Registers that everything passes on its way east from column ``cut - 1`` to column ``cut``, 0 to 16, beside
        the one of every column: the two halves may lie in different super logic regions. A sequence takes so many
        cycles longer.
    window : Window, optional
        Sizes of the window accumulator; without it sums are binary32.

    Raises
    ------
    TypeError, ValueError
        "<name> must be <rule>, not <value>".
    """

    rows: int
    cols: int
    max_keep: int
    max_group: int
    multiplier_latency: int = 4
    adder_latency: int = 8
    hop: int = 0
    window: Window | None = None

    def __post_init__(self) -> None:
        require_size("rows", self.rows, 1024)
        require_size("cols", self.cols, 1024)
        require_size("max_group", self.max_group, 32)
        require_size("max_keep", self.max_keep, self.max_group)
        require_latency("multiplier_latency", self.multiplier_latency)
        require_latency("adder_latency", self.adder_latency)
        if not isinstance(self.hop, int) or isinstance(self.hop, bool) or not 0 <= self.hop <= 16:
            raise ValueError(f"hop must be 0 to 16, not {self.hop}")
        if self.hop and self.cols < 2:
            raise ValueError(f"hop must be 0 with one column, not {self.hop}")
        if self.window is not None and self.adder_latency != 1:
            raise ValueError(f"adder_latency must be 1 with a window, not {self.adder_latency!r}")
        if self.window is not None and self.window.terms < max(self.rows, self.max_keep):
            raise ValueError(f"window must hold {max(self.rows, self.max_keep)} products, not {self.window.terms}")

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> ArrayParameters:
        """The array of an accelerator file."""
        return cls(
            accelerator.rows,
            accelerator.cols,
            accelerator.max_keep,
            accelerator.max_group,
            accelerator.multiplier_latency_cycles,
            accelerator.sum_latency_cycles,
            accelerator.slr_hop_cycles if accelerator.cols > 1 else 0,
            accelerator.window,
        )

    @property
    def cut(self) -> int:
        """First column beyond the registers of ``hop``: the array's middle."""
        return self.cols // 2

    def half_of(self, column: int) -> int:
        """0 for a column before the cut, 1 for one behind."""
        return int(column >= self.cut)

    @property
    def weight_layout(self) -> data.StructLayout:
        """A weight word inside the array."""
        return weight_layout(self.max_group, WINDOW_OPERAND_BITS if self.window else OPERAND_BITS)

    @property
    def element_bits(self) -> int:
        """Bits of a sum inside the array, a window's flag included."""
        return self.window.bits + 1 if self.window else SUM_BITS

    @property
    def sum_bits(self) -> int:
        """Bits of a word at the ports ``partial`` and ``south``: binary32, or a window's sum word."""
        return self.window.sum_bits if self.window else 32

    @property
    def max_interleave(self) -> int:
        """Largest I: La, which hides the adder even with N = 1."""
        return self.adder_latency

    @property
    def max_sums(self) -> int:
        """Largest I * N: what the smallest I that hides the adder needs, over all N."""
        return max(-(-self.adder_latency // keep) * keep for keep in range(1, self.max_keep + 1))

    @property
    def sum_depth(self) -> int:
        """Partial sums of an element: two banks."""
        return 2 * self.max_sums

    @property
    def zero_sum(self) -> int:
        """Address of the sum that is always zero."""
        return (1 << address_bits(self.sum_depth + 1)) - 1

    @property
    def weight_depth(self) -> int:
        """Weight words of an element, a power of two: a ring of sets of N.

        Weights hop one row a cycle, sums need La a row, so the words of later tiles reach row r up to r * (La - 1)
        cycles early and wait. Set j may be overwritten by set j + B once its last row of activations has passed. Tiles
        are at least R * N cycles apart, hence (B - 2) * R * N + (R - 1 - r) * N + N + r > r * La for every row; the
        last is the worst.
        """
        words = 1
        for keep in range(1, self.max_keep + 1):
            late = (self.rows - 1) * (self.adder_latency - 1) - keep + 1
            words = max(words, keep * (2 + max(0, -(-late // (self.rows * keep)))))
        return 1 << address_bits(words)

    def foot_wait(self, keep: int) -> int:
        """Cycles a running sum waits at the column foot: steps are La + (1 - La) mod N apart."""
        return (1 - self.adder_latency) % keep

    @property
    def lane_depth(self) -> int:
        """Lane sums that wait at a column foot, a power of two: the last lane but one step waits longest."""
        longest = 2
        for keep in range(2, self.max_keep + 1):
            spacing = self.adder_latency + self.foot_wait(keep)
            longest = max(longest, (keep - 2) * spacing - keep + 4)
        return 1 << address_bits(longest)

    def element(self) -> dict[str, Any]:
        """Arguments of :class:`.uspe.Uspe`, or of :class:`.window_uspe.WindowUspe`."""
        if self.window:
            return {
                "window": self.window,
                "max_group": self.max_group,
                "weight_depth": self.weight_depth,
                "multiplier_latency": self.multiplier_latency,
            }
        return {
            "max_group": self.max_group,
            "weight_depth": self.weight_depth,
            "sum_depth": self.sum_depth,
            "drain_depth": self.max_interleave,
            "multiplier_latency": self.multiplier_latency,
            "adder_latency": self.adder_latency,
        }
