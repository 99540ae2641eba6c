"""What a unit sees of DRAM: clients ask for runs of bytes and get or give packed words; addresses are a tensor's.

The other side, :mod:`.dma`, adds the image base, checks the range, cuts runs into AXI bursts and shifts bytes into
place. A *word* has ``axi_data_bits`` bits; byte 0 is its lowest. A run of B bytes takes ceil(B / bytes of a word)
words whatever its address; bytes after the last one may be anything, and are ignored on writes.

Rules of a client
-----------------
* A run has 1 to 2^32 - 1 bytes. Requests are answered in order. A port takes ``QUEUE`` requests ahead of the one whose
  words move; a client needs no more than one.
* A request that was offered stays until it is taken, like any word of a stream.
* Read: ``last`` marks a run's final word. ``error`` is sticky within a run, so the final word has its worst error; the
  words of a failed run are anything. A refused run (``RANGE``) has one word, with ``last``.
* Write: all words must be given, also of runs that fail. ``done`` comes once a run, after the last write response;
  then the run's bytes are in memory. A client need not wait for ``done`` before its next request.
"""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false

from __future__ import annotations

from enum import IntEnum

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

QUEUE = 4
WORDS_AHEAD = 8
"""Words that a writing client keeps ready: those of a run move 3 cycles after its request, so that a client whose
requests go out with their first word needs several short runs under way to move a word a cycle."""

REQUEST = data.StructLayout({"address": 64, "bytes": 32})
"""Payload of a request: byte address before the image base is added, and bytes of the run."""
DONE = data.StructLayout({"error": 2})


class MemoryFault(IntEnum):
    """The ``error`` of a run. Larger is worse; 2 and 3 are AXI's own codes."""

    NONE = 0
    RANGE = 1
    """Not within the allowed range, or no bytes: refused, nothing was put on the bus."""
    SLVERR = 2
    DECERR = 3


def read_word(data_bits: int) -> data.StructLayout:
    """Layout of a word that is read: ``data``, ``last``, ``error``."""
    return data.StructLayout({"data": data_bits, "last": 1, "error": 2})


def words_of(run_bytes: int, data_bits: int) -> int:
    """Words of a run."""
    return -(-run_bytes * 8 // data_bits)


class ReadClient(wiring.Signature):
    """The reading side of a unit.

    Parameters
    ----------
    data_bits : int
        ``axi_data_bits`` of the accelerator.

    Members
    -------
    request : out, stream of :data:`REQUEST`
    words : in, stream of :func:`read_word`
    """

    def __init__(self, data_bits: int) -> None:
        self.data_bits = data_bits
        super().__init__({
            "request": Out(stream.Signature(REQUEST)), "words": In(stream.Signature(read_word(data_bits)))
        })  # fmt: skip


class WriteClient(wiring.Signature):
    """The writing side of a unit.

    Members
    -------
    request : out, stream of :data:`REQUEST`
    words : out, stream of ``data_bits`` bits
        May come before, with or after their request.
    done : in, stream of :data:`DONE`
    """

    def __init__(self, data_bits: int) -> None:
        self.data_bits = data_bits
        super().__init__({
            "request": Out(stream.Signature(REQUEST)), "words": Out(stream.Signature(data_bits)),
            "done": In(stream.Signature(DONE)),
        })  # fmt: skip
