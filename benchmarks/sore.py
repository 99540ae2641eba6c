"""LUTs of a SORE lane, by yosys, beside an insertion sorter that takes M cycles a group.

    python benchmarks/sore.py [N:M ...]    2:8 without arguments; larger M take minutes

The bar: fewer LUTs than M insertion lanes, which prune as many groups a cycle.
"""

import sys
import time

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from nmsat.fpga.estimate import estimate_component
from nmsat.rtl.sore import SoreLane
from nmsat.rtl.yosys import yosys_version


class InsertionLane(wiring.Component):
    """A group comes as a word and is shifted through: the N largest so far in falling order, a value a cycle.

    Ordering them by index afterwards is not included.
    """

    def __init__(self, keep, group):
        self.keep, self.group, self.bits = keep, group, (group - 1).bit_length()
        super().__init__(
            {"word": In(16 * group), "first": In(1), "values": Out(16 * keep), "indices": Out(self.bits * keep)}
        )

    def elaborate(self, platform):
        m = Module()
        index, rest = Signal(self.bits), Signal(16 * (self.group - 1))
        m.d.sync += rest.eq(Mux(self.first, self.word[16:], rest >> 16))
        value_in = Mux(self.first, self.word[:16], rest[:16])
        m.d.sync += index.eq(Mux(self.first, 1, index + 1))
        here = Mux(self.first, 0, index)
        held, places, used = [], [], Signal(self.keep)
        for n in range(self.keep):
            held.append(Signal(16, name=f"held{n}"))
            places.append(Signal(self.bits, name=f"place{n}"))
        stays = [used[n] & ~self.first & (held[n][:15] >= value_in[:15]) for n in range(self.keep)]
        for n in range(self.keep):
            with m.If(~stays[n]):
                above = ~stays[n - 1] & used[n - 1] & ~self.first if n else None
                value = Mux(above, held[n - 1], value_in) if n else value_in
                place = Mux(above, places[n - 1], here) if n else here
                m.d.sync += [held[n].eq(value), places[n].eq(place)]
        m.d.sync += used.eq(Mux(self.first, 1, Cat(1, used)))
        m.d.comb += [self.values.eq(Cat(held)), self.indices.eq(Cat(places))]
        return m


def main():
    missed = False
    print(f"yosys (yowasp {yosys_version()}), synth_xilinx -family xcup: estimates, nothing placed")
    for text in sys.argv[1:] or ["2:8"]:
        keep, group = map(int, text.split(":"))
        start = time.perf_counter()
        lane = estimate_component(SoreLane(max_keep=keep, max_group=group), "sore_lane")["area"]
        insertion = estimate_component(InsertionLane(keep, group), "insertion_lane")["area"]
        one, many = lane["lut"], group * insertion["lut"]
        missed |= one >= many
        print(
            f"SORE lane, maxima {text}: {one} LUT, {lane['lut_memory']} of them shift registers, {lane['ff']} FF; "
            f"bar: below {many} LUT, {group} insertion lanes of {insertion['lut']}; ratio {one / many:.2f} "
            f"({time.perf_counter() - start:.0f} s)"
        )
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
