"""The end of a run that cannot go on: held at once, over when the bus is quiet, with the first reason."""

from __future__ import annotations

import pytest

from nmsat.rtl.halt import Halt
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators import simulate

CYCLES = 12
# name, (abort from, to), {cycle: fault}, cycles in which the bus is busy, cycle of clear (None: never), code, descriptor
CASES = [
    ("nothing", (0, 0), {}, (), None, 0, 0),
    ("fault on a quiet bus", (0, 0), {2: 0x22}, (), 4, 0x22, 2),
    ("fault on a busy bus", (0, 0), {2: 0x22}, range(2, 8), 9, 0x22, 2),
    ("a later fault does not count", (0, 0), {2: 0x25, 3: 0x23}, range(2, 6), 7, 0x25, 2),
    ("abort", (3, 7), {}, (), 5, int(Code.ABORTED), 3),
    ("abort waits for the bus", (3, 9), {}, range(8), 9, int(Code.ABORTED), 3),
    ("abort and fault at once", (3, 6), {3: 0x21}, (), 5, int(Code.ABORTED), 3),
    ("abort after a fault", (4, 8), {3: 0x21}, range(3, 6), 7, 0x21, 3),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0].replace(" ", "_") for case in CASES])
def test_holds_waits_and_clears(case):
    _, (first, last), faults, busy, cleared, code, descriptor = case
    found = simulate(
        Halt(), "halt",
        {
            "abort": [int(first <= cycle < last and (cleared is None or cycle <= cleared)) for cycle in range(CYCLES)],
            "fault": [faults.get(cycle, 0) for cycle in range(CYCLES)],
            "quiet": [int(cycle not in busy) for cycle in range(CYCLES)], "index": list(range(CYCLES)),
        }, "amaranth",
    )  # fmt: skip
    assert [cycle for cycle in range(CYCLES) if found["clear"][cycle]] == ([] if cleared is None else [cleared])
    begun: int = min([*faults, *([first] if last else [])], default=CYCLES)
    held = range(begun + 1, (cleared or 0) + 1)
    assert found["hold"] == [int(cycle in held) for cycle in range(CYCLES)]
    if cleared is not None:
        assert (found["code"][cleared], found["descriptor"][cleared]) == (code, descriptor)
