"""Memories of the product unit that lie with the array's halves, in other super logic regions than the unit."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from amaranth.hdl import Cat, Module, Signal, Value

from ..emit import place
from ..regions import across
from .lanes import Lane, Pointer, lane_terms
from .sizes import Sizes

_STROBES = ("clear", "read_enable")


@dataclass(frozen=True, slots=True)
class Lanes:
    """Lanes of one side: their words, which of them are taken, which are valid.

    With lanes in other regions, ``valid`` is of the first one alone, as far as the unit knows, and pointers beside the
    unit stand for those of these lanes whose state it needs: the first, unless it is not far, and the last.
    """

    payload: Value
    ready: Signal
    valid: Value
    first: Any = None
    last: Any = None


def in_halves(m: Module, told: Mapping[str, Any], hop: int, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What memories in the halves are told, ``hop`` cycles later in either: registers of its own for each."""
    west, east = (
        {key: _told(m, key, value, hop, f"{name}_{half}_{key}") for key, value in told.items()}
        for half in ("west", "east")
    )
    return west, east


def _told(m: Module, key: str, value: Any, hop: int, name: str) -> Any:
    return value if isinstance(value, int) else across(m, value, hop, name, payload=key not in _STROBES)


def lanes_apart(
    m: Module, platform: Any, sizes: Sizes, side: Literal["a", "b"], kind: dict[str, Any], scatter: Any, begin: Signal,
    committed: Signal, plan: Any,
) -> Lanes:  # fmt: skip
    """Lanes in the halves: each is written, and counts steps, ``hop`` cycles later.

    Rows' lanes are in the west half, columns' behind the cut in the east one; those before the cut are beside the unit.
    So long after the unit decided it a word is taken, too. A step that the last pointer has released may be overwritten
    at once: the write is as late as the use.
    """
    a_side, hop, array = side == "a", sizes.array.hop, sizes.array
    terms = lane_terms(side, plan)
    write = {
        "address": scatter.address, "places": scatter.places, "word": scatter.word, "spread": scatter.spread,
        "shift": terms.pop("shift"),
    }  # fmt: skip
    steps = {"clear": begin, "committed": committed, **terms}

    def pointer(name: str) -> Any:
        found: Any = place(m, platform, f"{name}_{side}", Pointer)
        m.d.comb += [getattr(found, key).eq(value) for key, value in steps.items()]
        return found

    first, last = pointer("first") if a_side else None, pointer("last")
    here = steps | write
    there = {key: _told(m, key, value, hop, f"lanes_{side}_{key}") for key, value in here.items()}
    count, payloads = array.rows if a_side else array.cols, []
    ready, valids = Signal(count, name=f"ready_{side}"), []
    for number in range(count):
        lane: Any = place(m, platform, f"lane_{side}{number}", Lane, **kind)
        far = a_side or number >= array.cut
        one, cycles = scatter.each.word_select(number, kind["element"]), hop if far else 0
        m.d.comb += [getattr(lane, key).eq(value) for key, value in (there if far else here).items()]
        m.d.comb += [
            lane.write.eq(across(m, scatter.enable[number], cycles, f"write_{side}{number}_")),
            lane.one.eq(across(m, one, cycles, f"one_{side}{number}_", payload=True)), lane.ready.eq(ready[number]),
        ]  # fmt: skip
        valids.append(lane.valid)
        payloads.append(lane.payload[: 16 * array.max_group] if a_side else lane.payload)
    return Lanes(Cat(payloads), ready, valids[0] if first is None else first.valid, first, last)
