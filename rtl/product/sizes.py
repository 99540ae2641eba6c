"""What a product unit is generated for, and the memory depths that follow."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.accelerator import Accelerator
from ...models.errors import NmsatError
from ..array_parameters import ArrayParameters

DIMENSION_BITS = 24
"""Sizes of a product (m, n, kc, pixels) are below 2^24."""
OFFSET_BITS = 48
"""Elements between an operand's address and any of its elements are below 2^48."""
POSITION_BITS = 24
"""Steps of an operand are counted modulo 2^24."""
SEGMENT = 64
"""Elements along k of one request, where they lie one after the other."""
RUN_BITS = 7
RECORDS = 16
"""Runs between a request and the word that answers it."""


def _power(value: int) -> int:
    """Largest power of two that is at most ``value``."""
    return 1 << value.bit_length() - 1


def _power_up(value: int) -> int:
    """Smallest power of two that is at least ``value``."""
    return 1 << (value - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a product unit.

    Attributes
    ----------
    array : ArrayParameters
    data_bits : int
        Of a memory port's word.
    west_words : int
        Words of ``group_places`` activations in the memory of a row, both banks: a power of two.
    north_words : int
        Words of ``keep_places`` weights with their indices in the memory of a column, both banks: a power of two.
    bank_rows : int
        Rows of results in a bank of the output buffer.
    """

    array: ArrayParameters
    data_bits: int
    west_words: int
    north_words: int
    bank_rows: int

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> Sizes:
        """The unit of an accelerator file.

        Raises
        ------
        NmsatError
            A buffer bank is too small for the segments in which operands are read.
        """
        array = ArrayParameters.from_accelerator(accelerator)
        places, keeps = _power_up(array.max_group), _power_up(array.max_keep)
        west = accelerator.w2e_bytes // (array.rows * places)
        north = accelerator.n2s_bytes // (array.cols * keeps * 2)
        rows = accelerator.output_bytes // (array.cols * accelerator.sum_bytes)
        where = f"accelerator {accelerator.name!r}"
        least = 2 * SEGMENT * array.max_interleave * array.rows
        if accelerator.w2e_bytes < least:
            raise NmsatError.rule(where, "w2e_bytes", f"at least {least}, a segment of a tile", accelerator.w2e_bytes)
        least = 4 * (SEGMENT + 2 * array.rows * keeps) * array.cols
        if accelerator.n2s_bytes < least:
            raise NmsatError.rule(where, "n2s_bytes", f"at least {least}, a segment of a tile", accelerator.n2s_bytes)
        if rows < array.rows * array.max_interleave:
            least = array.rows * array.max_interleave * array.cols * accelerator.sum_bytes
            raise NmsatError.rule(where, "output_bytes", f"at least {least}, a tile", accelerator.output_bytes)
        return cls(array, accelerator.axi_data_bits, _power(west), _power(north), rows)

    @property
    def group_places(self) -> int:
        """Activations of a word: the largest M, rounded up to a power of two."""
        return _power_up(self.array.max_group)

    @property
    def keep_places(self) -> int:
        """Weights of a word: the largest N, rounded up to a power of two."""
        return _power_up(self.array.max_keep)

    @property
    def word_elements(self) -> int:
        """binary16 numbers of a memory port's word."""
        return self.data_bits // 16

    @property
    def bus_bytes(self) -> int:
        """Bytes of a memory port's word."""
        return self.data_bits // 8
