"""On-chip buffers as memory blocks, from their sizes: a count by capacity, not a synthesis result."""

from __future__ import annotations

from ..models.accelerator import Accelerator

URAM_BYTES = 4096 * 8  # 4096 words of 72 bits, 64 of them data
BRAM36_BYTES = 1024 * 4  # 1024 words of 36 bits, 32 of them data
BUFFERS = {"w2e_buffer": "w2e_bytes", "n2s_buffer": "n2s_bytes", "output_buffer": "output_bytes"}


def buffer_blocks(accelerator: Accelerator) -> dict[str, dict[str, int]]:
    """``uram`` and ``bram36`` of each buffer, two banks; banks of less than an UltraRAM are block memories.

    Capacity only: a wide and shallow bank takes more.
    """
    found = {}
    for name, field in BUFFERS.items():
        size = getattr(accelerator, field)
        if size >= URAM_BYTES:
            found[name] = {"uram": 2 * -(-size // URAM_BYTES), "bram36": 0}
        else:
            found[name] = {"uram": 0, "bram36": 2 * -(-size // BRAM36_BYTES)}
    return found
