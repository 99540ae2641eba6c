"""Which core file describes the processor that this process runs on."""

from __future__ import annotations

import re
from pathlib import Path

CORES = (  # vendor, a flag it has, a flag it lacks: what follows wasm- or v8- in the core's name
    ("GenuineIntel", "amx_tile", "", "redwood-cove"),
    ("AuthenticAMD", "avx512f", "", "zen4"),
    ("AuthenticAMD", "vaes", "avx512f", "zen3"),
)


def processor_core(cpuinfo: str | None = None) -> str:
    """Name of the processor's core file without its engine (``zen4`` of ``wasm-zen4``), or "" if there is none.

    Vendor and instruction sets decide, so a neighbouring generation may be taken for the one described:
    ``redwood-cove`` also stands for Golden Cove.

    Parameters
    ----------
    cpuinfo : str or None
        Contents of Linux's ``/proc/cpuinfo``; None reads it.
    """
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    found = re.search(r"^flags\s*:(.*)$", text, re.M)
    flags = set(found[1].split()) if found else set()
    for vendor, has, lacks, name in CORES:
        if vendor in text and has in flags and lacks not in flags:
            return name
    return ""
