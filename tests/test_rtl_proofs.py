"""Proofs of the control logic and of SORE's choice, each with mutants that must fail.

Data words are two bits wide: none of these blocks looks at its data, so what holds for two bits holds for any width.
"""

from __future__ import annotations

import types
from itertools import pairwise
from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from nmsat.rtl import sore, stream, transposer
from nmsat.rtl.proofs import holds


def mutant(module, *changes):
    """The module with pieces of its text replaced, each of which must occur exactly once."""
    text = Path(module.__file__).read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    made = types.ModuleType(module.__name__)
    made.__package__ = module.__package__
    exec(compile(text, module.__file__, "exec"), made.__dict__)
    return made


class SkidProperties(wiring.Component):
    """A reference queue of two words: what leaves is its head, and the buffer is full or empty when it is."""

    def __init__(self, blocks):
        self.blocks = blocks
        super().__init__({"i_valid": In(1), "word": In(2), "o_ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.blocks.SkidBuffer(width=2)
        head, tail, count = Signal(2), Signal(2), Signal(2)
        m.d.comb += [
            dut.i.valid.eq(self.i_valid),
            dut.i.payload.eq(self.word),
            dut.o.ready.eq(self.o_ready),
        ]
        enters, leaves = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
        m.d.sync += count.eq(count + enters - leaves)
        with m.If(leaves):
            m.d.sync += head.eq(tail)
        with m.If(enters):
            with m.If(count - leaves == 0):
                m.d.sync += head.eq(self.word)
            with m.Else():
                m.d.sync += tail.eq(self.word)
        m.d.comb += [
            Assert(count <= 2),
            Assert(dut.o.valid == (count != 0)),
            Assert(dut.i.ready == (count != 2)),  # never both refused and nothing to offer: no deadlock
            Assert((count == 0) | (dut.o.payload == head)),
            Assert((count != 2) | (dut.spare == tail)),
        ]
        return m


class PipelineProperties(wiring.Component):
    """One watched word, chosen freely: it moves with the stages, leaves once, unchanged; the number inside is right."""

    STAGES = 3

    def __init__(self, blocks):
        self.blocks = blocks
        super().__init__({"i_valid": In(1), "word": In(2), "o_ready": In(1), "watch": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.blocks.PipelineControl(latency=self.STAGES)
        m.d.comb += [dut.i_valid.eq(self.i_valid), dut.o_ready.eq(self.o_ready)]
        data, before = [], self.word
        for _ in range(self.STAGES):
            register = Signal(2)
            with m.If(dut.en):
                m.d.sync += register.eq(before)
            data.append(register)
            before = register
        enters, leaves = dut.i_valid & dut.i_ready, dut.o_valid & dut.o_ready
        place, watched, inside = Signal(range(self.STAGES + 1)), Signal(2), Signal(range(self.STAGES + 1))
        with m.If(place != 0):
            with m.If(leaves & (place == self.STAGES)):
                m.d.sync += place.eq(0)
            with m.Elif(dut.en):
                m.d.sync += place.eq(place + 1)
        with m.Elif(enters & self.watch):
            m.d.sync += [place.eq(1), watched.eq(self.word)]
        m.d.sync += inside.eq(inside + enters - leaves)
        m.d.comb += [
            Assert(inside == sum(dut.valid)),
            Assert(place <= self.STAGES),
            Assert(dut.o_valid | dut.i_ready),  # never both refused and nothing to offer
            *(Assert((place != k + 1) | (dut.valid[k] & (data[k] == watched))) for k in range(self.STAGES)),
        ]
        return m


class BankProperties(wiring.Component):
    """Tiles filled and not yet read decide everything; one side can always go on; no bank is used twice."""

    def __init__(self, blocks):
        self.blocks = blocks
        super().__init__({"fill": In(1), "free": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.blocks.BankControl()
        pending, tiles = Signal(), Signal(2)  # filled but not yet stored; filled but not yet freed
        m.d.comb += [
            dut.filled.eq(self.fill & dut.can_fill),
            dut.stored.eq(pending),
            dut.freed.eq(self.free & dut.can_read),
        ]
        m.d.sync += [pending.eq(dut.filled), tiles.eq(tiles + dut.filled - dut.freed)]
        stored = tiles - pending
        m.d.comb += [
            Assert(tiles <= 2),
            Assert(~(pending & (tiles == 0))),
            Assert(dut.full[0] + dut.full[1] == stored[:2]),
            Assert(dut.can_read == (stored[:2] != 0)),
            Assert(dut.can_fill == ((tiles != 2) | dut.freed)),
            Assert((dut.fill_bank ^ dut.read_bank) == tiles[0]),
            Assert(dut.can_fill | dut.can_read | pending),  # no deadlock
            Assert(~(dut.can_fill & ~dut.freed & dut.full.bit_select(dut.fill_bank, 1))),  # nothing unread is lost
        ]
        return m


class GroupProperties(wiring.Component):
    """Outputs of a lane against the group that entered it, without a rank or a count: the definition of N:M.

    The lane feeds forward only, so a group entering in the first cycle stands for every group at any time.
    """

    def __init__(self, blocks, keep, group, bits=16):
        self.blocks, self.keep, self.group, self.bits = blocks, keep, group, bits
        super().__init__({"values": In(16 * group)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.blocks.SoreLane(max_keep=self.keep, max_group=self.group)
        first, cycle = Signal(16 * self.group), Signal(4)
        m.d.sync += cycle.eq(Mux(cycle == 15, 15, cycle + 1))
        with m.If(cycle == 0):
            m.d.sync += first.eq(self.values)
        m.d.comb += [dut.en.eq(1), dut.values.eq(self.values), dut.keep.eq(self.keep), dut.group.eq(self.group)]
        words = [first[16 * k : 16 * k + 16] for k in range(self.group)]
        for word in words:
            m.d.comb += Assume(word[:15] <= 0x7C00)
        width = sore.index_width(self.group)
        places = [dut.indices[width * n : width * (n + 1)] for n in range(self.keep)]
        kept = Cat(Cat(place == k for place in places).any() for k in range(self.group))
        valid = [a < b for a, b in pairwise(places)]  # ascending, so N different ones
        for n, place in enumerate(places):
            value = dut.kept[16 * n : 16 * n + 16]
            valid += [(place != k) | (value == words[k]) for k in range(self.group)]
        for i in range(self.group):  # nothing dropped is larger than something kept, nor equal to a later one
            for j in range(self.group):
                if i != j:
                    a, b = words[i][:15], words[j][:15]
                    before = (a > b) | ((a == b) & Const(i < j, 1))
                    valid.append(~(kept[j] & ~kept[i] & before))
        valid.append(dut.indices[width * self.keep :] == 0)
        valid.append(~dut.nan)
        m.d.comb += Assert((cycle != dut.latency) | Cat(valid).all())
        return m


def test_skid_buffer_neither_loses_nor_repeats_a_word():
    assert holds(SkidProperties(stream), 6, induction=True)


def test_pipeline_control_neither_loses_nor_repeats_a_word():
    assert holds(PipelineProperties(stream), 8, induction=True)


def test_banks_never_deadlock_nor_lose_a_tile():
    assert holds(BankProperties(transposer), 8, induction=True)


@pytest.mark.parametrize("keep, group", [(1, 2), (1, 4), (2, 4)])
def test_sore_s_output_is_the_group_s_n_largest(keep, group):
    assert holds(GroupProperties(sore, keep, group), 7)


@pytest.mark.slow
@pytest.mark.parametrize("keep, group", [(3, 4), (1, 8), (2, 8)])
def test_sore_s_output_is_the_group_s_n_largest_of_more(keep, group):
    assert holds(GroupProperties(sore, keep, group), 7)


@pytest.mark.parametrize(
    "properties, module, old, new",
    [
        (SkidProperties, stream, "with m.If(self.o.ready | ~self.o.valid):", "with m.If(self.o.ready):"),
        (SkidProperties, stream, "self.o.valid.eq(full | self.i.valid)", "self.o.valid.eq(self.i.valid)"),
        (SkidProperties, stream, "with m.Elif(self.i.valid & ~full):", "with m.Elif(self.i.valid):"),
        (PipelineProperties, stream, "self.en.eq(self.o_ready | ~valid[-1])", "self.en.eq(1)"),
        (PipelineProperties, stream, "self.i_ready.eq(self.en)", "self.i_ready.eq(1)"),
        (BankProperties, transposer, "self.can_fill.eq(~full.bit_select(self.fill_bank, 1) | self.freed)", "self.can_fill.eq(~full.bit_select(self.fill_bank, 1) | self.can_read)"),
        (BankProperties, transposer, "self.fill_bank.eq(~self.fill_bank), stored_bank", "self.fill_bank.eq(self.fill_bank), stored_bank"),
        (BankProperties, transposer, "full.bit_select(self.read_bank, 1).eq(0)", "full.bit_select(self.fill_bank, 1).eq(0)"),
        (GroupProperties, sore, "words[i][:15] >= words[j][:15]", "words[i][:15] > words[j][:15]"),
        (GroupProperties, sore, "kept.append(_count(before) < s1.keep)", "kept.append(_count(before) <= s1.keep)"),
        (GroupProperties, sore, "words[i][:15] >= words[j][:15]", "words[i] >= words[j]"),
        (GroupProperties, sore, "for j in range(i)]) | Const(0, width)", "for j in range(i + 1)]) | Const(0, width)"),
    ],
)  # fmt: skip
def test_a_planted_fault_breaks_the_proof(properties, module, old, new):
    blocks = mutant(module, (old, new))
    tested = properties(blocks, 2, 4) if properties is GroupProperties else properties(blocks)
    assert not holds(tested, 7)
