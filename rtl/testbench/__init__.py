"""Drivers, monitors and golden checkers of every block, for this project's tests and for yours.

``BLOCKS`` has, for each block, how it is generated, a test body and random legal cases with what the golden model says
must come out. docs/verification.md shows how to use the agents in a cocotb test of your own.
"""

from __future__ import annotations

from .array import ARRAY_BLOCKS
from .case import Block, Case
from .stream import StreamDriver, StreamMonitor, run_stream
from .vector import VECTOR_BLOCKS

BLOCKS: dict[str, Block] = {block.name: block for block in (*ARRAY_BLOCKS, *VECTOR_BLOCKS)}

__all__ = ["BLOCKS", "Block", "Case", "StreamDriver", "StreamMonitor", "run_stream"]
