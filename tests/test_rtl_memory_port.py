"""Signatures of memory ports and the accelerator's fields behind them."""

from __future__ import annotations

import pytest
from amaranth.lib import wiring

from nmsat.models import Accelerator
from nmsat.models.errors import NmsatError
from nmsat.rtl.axi import Axi4, AxiLite
from nmsat.rtl.memory_port import ReadClient, WriteClient, words_of


@pytest.mark.parametrize("name", Accelerator.names())
def test_shipped_accelerators_have_a_memory_port(name):
    accelerator = Accelerator.load(name)
    ports = Axi4(accelerator.axi_data_bits).members
    assert ports["wdata"].shape == 8 * ports["wstrb"].shape == accelerator.axi_data_bits
    # one master is no faster than DRAM, and all of the small configurations' DRAM goes through it
    bus, dram = accelerator.axi_data_bits // 8 * accelerator.clock_mhz, accelerator.dram_mb_s
    assert bus <= dram if accelerator.dram_channels > 1 else bus == dram


@pytest.mark.parametrize("bits", [16, 48, 1024, True, 64.0])
def test_odd_widths_are_refused(bits):
    with pytest.raises(NmsatError, match="data_bits"):
        Axi4(bits)


def test_an_odd_width_in_an_accelerator_is_refused():
    with pytest.raises(NmsatError, match=r"axi_data_bits: must be a power of two, not 96$"):
        Accelerator.load("sat").replace(axi_data_bits=96)


@pytest.mark.parametrize("bytes_, bits, words", [(1, 32, 1), (4, 32, 1), (5, 32, 2), (64, 512, 1), (65, 512, 2)])
def test_words_of_a_run(bytes_, bits, words):
    assert words_of(bytes_, bits) == words


def test_ports_of_a_unit_have_the_documented_names():
    ports = {"r": wiring.Out(ReadClient(64)), "w": wiring.Out(WriteClient(64))}
    created = wiring.Signature(ports).create()
    names = {"__".join(map(str, path)) for path, _, _ in wiring.Signature(ports).flatten(created)}
    streams = ("r__request", "r__words", "w__request", "w__words", "w__done")
    assert names == {f"{name}__{part}" for name in streams for part in ("payload", "valid", "ready")}


def test_axi_lite_width():
    assert AxiLite(12).members["awaddr"].shape == 12
    with pytest.raises(NmsatError, match="address_bits"):
        AxiLite(1)
