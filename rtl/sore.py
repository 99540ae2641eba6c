"""SORE, the sparse online reduction engine: dense groups to N:M values and indices, a group a cycle a lane."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.sparsity import GROUP_SIZES
from .arithmetic.stages import delay, registers
from .emit import place
from .stream import pipeline, require

_INF = 0x7C00


def _require_pattern(block: str, max_keep: Any, max_group: Any) -> tuple[int, int]:
    if isinstance(max_group, bool) or max_group not in GROUP_SIZES:
        raise NmsatError.rule(block, "max_group", "one of 2, 4, 8, 16, 32", max_group)
    return require(block, "max_keep", max_keep, 1, max_group), max_group


def index_width(max_group: int) -> int:
    """Bits of an index into a group of ``max_group``."""
    return (max_group - 1).bit_length()


def index_bytes(max_keep: int, max_group: int) -> int:
    """Bytes of the index field of the widest pattern."""
    return -(-max_keep * index_width(max_group) // 8)


def _sizes(max_group: int) -> list[int]:
    return [1 << place for place in range(index_width(max_group) + 1)]


class SoreLane(wiring.Component):
    """One group of M values to its N largest; equals :func:`nmsat.models.golden.compress` on one group.

    A network of M (M - 1) / 2 comparators ranks the values; a value of rank below N is kept, at the place that the
    number of kept values before it gives. Ties go to the lower index, -0 equals 0: the low 15 bits are compared.
    Latency 5 enabled cycles, a group a cycle. No reset: the result follows the group alone.

    Parameters
    ----------
    max_keep, max_group : int
        Largest N and M; M is a power of two.

    Ports
    -----
    en : in, 1
        Clock enable; low holds the pipeline.
    values : in, 16 * max_group
        The group, first value lowest. Places from M upward must be zero: they then lose every tie.
    keep : in
        N, 1 to M. N = M keeps all (dense).
    group : in
        M: 1, 2, 4 ... max_group; it sets the width of the packed indices, and M = N packs none.
    kept : out, 16 * max_keep
        N values in ascending index order, +0 above.
    indices : out, 8 * bytes
        N indices of log2 M bits, the first lowest, zero bits above.
    nan : out, 1
        A value of the group is NaN. The result is then meaningless.
    """

    latency = 5

    def __init__(self, *, max_keep: int, max_group: int) -> None:
        self.max_keep, self.max_group = _require_pattern("sore lane", max_keep, max_group)
        super().__init__(
            {
                "en": In(1),
                "values": In(16 * max_group),
                "keep": In(range(max_keep + 1)),
                "group": In(range(max_group + 1)),
                "kept": Out(16 * max_keep),
                "indices": Out(8 * index_bytes(max_keep, max_group)),
                "nan": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        size = self.max_group
        words = [self.values[16 * i : 16 * i + 16] for i in range(size)]
        wins = {(i, j): words[i][:15] >= words[j][:15] for i in range(size) for j in range(i + 1, size)}
        s1 = registers(
            m,
            self.en,
            "s1",
            values=self.values,
            keep=self.keep,
            group=self.group,
            nans=Cat(word[:15] > _INF for word in words),
            wins=Cat(wins.values()),
        )
        won = dict(zip(wins, s1.wins, strict=True))  # i is kept before j, i < j
        kept = []
        for j in range(size):
            before = [won[i, j] for i in range(j)] + [~won[j, i] for i in range(j + 1, size)]
            kept.append(_count(before) < s1.keep)
        s2 = registers(m, self.en, "s2", kept=Cat(kept), nan=s1.nans.any())
        s3 = registers(m, self.en, "s3", kept=s2.kept, places=Cat(self._places(s2.kept)))
        values = delay(m, self.en, "values", s1.values, 2)
        taken, indices = self._select(s3, values)
        s4 = registers(m, self.en, "s4", taken=taken, indices=indices)
        group, keep = delay(m, self.en, "group", s1.group, 3), delay(m, self.en, "keep", s1.keep, 3)
        width, packed = index_width(size), Signal(len(self.indices))
        with m.Switch(Mux(group == keep, 0, group)):
            for bits in range(1, width + 1):
                with m.Case(1 << bits):
                    fields = [s4.indices[width * n : width * n + bits] for n in range(self.max_keep)]
                    m.d.comb += packed.eq(Cat(fields))
        nan = delay(m, self.en, "nan", s2.nan, 2)
        with m.If(self.en):
            m.d.sync += [self.kept.eq(s4.taken), self.indices.eq(packed), self.nan.eq(nan)]
        return m

    def _places(self, kept: Value) -> list[Value]:
        """Kept values before each one, in as many bits as the output places need."""
        width = max((self.max_keep - 1).bit_length(), 1)
        return [(_count([kept[j] for j in range(i)]) | Const(0, width))[:width] for i in range(self.max_group)]

    def _select(self, s3: Any, values: Value) -> tuple[Value, Value]:
        """(values, indices) of every output place: at most one input goes there, the others are off."""
        places_width = len(s3.places) // self.max_group
        taken, indices = [], []
        for n in range(self.max_keep):
            value, index = Const(0, 16), Const(0, index_width(self.max_group))
            for i in range(n, self.max_group):
                here = s3.kept[i] & (s3.places[places_width * i : places_width * (i + 1)] == n)
                value = value | (values[16 * i : 16 * i + 16] & here.replicate(16))
                index = index | (Const(i, len(index)) & here.replicate(len(index)))
            taken.append(value)
            indices.append(index)
        return Cat(taken), Cat(indices)


def _count(bits: list[Any]) -> Value:
    """Number of set bits, by halves; of at least one bit."""
    if not bits:
        return Const(0, 1)
    if len(bits) == 1:
        return Value.cast(bits[0])
    half = len(bits) // 2
    return _count(bits[:half]) + _count(bits[half:])


class Sore(wiring.Component):
    """Lanes side by side, dense words in, the two planes of :func:`nmsat.models.golden.pack` out.

    Latency 8 cycles, a word a cycle: 1 to spread the groups over the lanes, :class:`SoreLane`'s 5, 1 to close the gaps
    between the lanes' results, 1 skid buffer. Every word carries its own pattern, so forward and backward groups of
    one layer may alternate. Reset drops the words inside. Equals :func:`nmsat.models.golden.compress` and ``pack``.

    Parameters
    ----------
    lanes : int
        Groups a cycle.
    max_keep, max_group : int
        Largest N and M; M is a power of two.

    Ports
    -----
    i : in, stream
        ``values``: up to ``lanes`` dense groups of M binary16 values, one after the other from the lowest bit;
        ``groups``: how many, 1 to lanes; ``keep``, ``group``: N and M, M a power of two, N = M for dense.
    o : out, stream
        ``values``: 2 N bytes a group, ``indices``: index bytes a group (none when dense), both without gaps from the
        lowest bit, unspecified above ``groups``; ``groups``, ``keep``, ``group`` as they came; ``nan``: one of the
        values was a NaN, which is an error.
    """

    latency = 8

    def __init__(self, *, lanes: int, max_keep: int, max_group: int) -> None:
        self.lanes = require("sore", "lanes", lanes, 1, 4096)
        self.max_keep, self.max_group = _require_pattern("sore", max_keep, max_group)
        pattern = {"groups": range(lanes + 1), "keep": range(max_keep + 1), "group": range(max_group + 1)}
        self.i_layout = data.StructLayout({"values": 16 * lanes * max_group, **pattern})
        self.o_layout = data.StructLayout(
            {
                "values": 16 * lanes * max_keep,
                "indices": 8 * lanes * index_bytes(max_keep, max_group),
                **pattern,
                "nan": 1,
            }
        )
        super().__init__({"i": In(stream.Signature(self.i_layout)), "o": Out(stream.Signature(self.o_layout))})

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> Sore:
        """The engine of an accelerator; its groups are the largest power of two that the array covers."""
        if accelerator.max_group < 2:
            raise NmsatError.rule("sore", "max_group", "at least 2", accelerator.max_group)
        group = 1 << accelerator.max_group.bit_length() - 1
        return cls(lanes=accelerator.sore_lanes, max_keep=min(accelerator.max_keep, group), max_group=group)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        result = Signal(self.o_layout, reset_less=True)
        en = pipeline(m, self.i, self.o, self.latency - 1, result.as_value())
        word, pattern = self.i.payload, ("groups", "keep", "group")
        spread = Signal(16 * self.lanes * self.max_group)
        with m.Switch(word.group):
            for size in _sizes(self.max_group):
                with m.Case(size):
                    m.d.comb += spread.eq(self._spread(word.values, size))
        present = Cat(word.groups > lane for lane in range(self.lanes))
        s0 = registers(m, en, "s0", values=spread, present=present, **{name: word[name] for name in pattern})
        lanes = []
        for number in range(self.lanes):
            lane = place(m, platform, f"lane{number}", SoreLane, max_keep=self.max_keep, max_group=self.max_group)
            width = 16 * self.max_group
            m.d.comb += [
                lane.en.eq(en),
                lane.values.eq(s0.values[width * number : width * (number + 1)]),
                lane.keep.eq(s0.keep),
                lane.group.eq(s0.group),
            ]
            lanes.append(lane)
        late = {name: delay(m, en, name, getattr(s0, name), SoreLane.latency) for name in (*pattern, "present")}
        self._close_gaps(m, en, lanes, late, result)
        return m

    def _spread(self, values: Value, size: int) -> Value:
        """Groups of ``size`` packed values to one group a lane, zeros above."""
        width, space = 16 * size, 16 * (self.max_group - size)
        return Cat((values[width * lane : width * (lane + 1)], Const(0, space)) for lane in range(self.lanes))

    def _close_gaps(self, m: Module, en: Value, lanes: list[Any], late: dict[str, Value], result: Any) -> None:
        """Planes from the lanes' results: N values and the pattern's index bytes of each."""
        with m.If(en):
            m.d.sync += [result[name].eq(late[name]) for name in ("groups", "keep", "group")]
            m.d.sync += result.nan.eq((Cat(lane.nan for lane in lanes) & late["present"]).any())
            with m.Switch(late["keep"]):
                for keep in range(1, self.max_keep + 1):
                    with m.Case(keep):
                        m.d.sync += result.values.eq(Cat(lane.kept[: 16 * keep] for lane in lanes))
            largest = index_bytes(self.max_keep, self.max_group)
            if largest == 1:
                m.d.sync += result.indices.eq(Cat(lane.indices for lane in lanes))
                return
            with m.Switch(self._field_bytes(late)):
                for size in range(1, largest + 1):
                    with m.Case(size):
                        m.d.sync += result.indices.eq(Cat(lane.indices[: 8 * size] for lane in lanes))

    def _field_bytes(self, late: dict[str, Value]) -> Value:
        """ceil(N log2(M) / 8)."""
        bits = Const(0, 1)
        for width in range(1, index_width(self.max_group) + 1):
            bits = Mux(late["group"] == 1 << width, late["keep"] * width, bits)
        return (bits + 7) >> 3
