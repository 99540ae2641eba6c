"""Drivers, monitors and golden comparison for the blocks, for this project's tests and for yours.

docs/verification.md shows how to use the agents in a cocotb test of your own.
"""

from __future__ import annotations

from .case import Block, Case
from .stream import StreamDriver, StreamMonitor, run_stream

__all__ = ["Block", "Case", "StreamDriver", "StreamMonitor", "run_stream"]
