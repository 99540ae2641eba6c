"""On-chip buffers as UltraRAM: what synthesis is told of large memories."""

from __future__ import annotations

import re
from dataclasses import replace

from ..rtl.emit import Emitted

URAM_BYTES = 4096 * 8  # 4096 words of 72 bits, 64 of them data
_MEMORY = re.compile(r"^  memory width (\d+) size (\d+) \\\S+$", re.M)
_ZEROS = re.compile(
    r"^  cell \$meminit_v2 .*\n(?:    .*\n)*?"
    r"    parameter \\WIDTH (\d+)\n    parameter \\WORDS (\d+)\n(?:    .*\n)*?"
    r"    connect \\DATA \d+'0+\n(?:    .*\n)*?  end\n",
    re.M,
)


def is_ultra(width: int, words: int) -> bool:
    """Whether a memory is to be UltraRAM: it fills half a block at least."""
    return width * words >= 8 * URAM_BYTES // 2


def for_card(emitted: Emitted) -> Emitted:
    """The design with its large memories as UltraRAM: marked so, and without contents at the start.

    An UltraRAM has none; nothing reads a buffer's word before it is written.
    """

    def marked(found: re.Match[str]) -> str:
        ultra = is_ultra(int(found[1]), int(found[2]))
        return f'  attribute \\ram_style "ultra"\n{found[0]}' if ultra else found[0]

    def kept(found: re.Match[str]) -> str:
        return "" if is_ultra(int(found[1]), int(found[2])) else found[0]

    return replace(emitted, rtlil=_MEMORY.sub(marked, _ZEROS.sub(kept, emitted.rtlil)))
