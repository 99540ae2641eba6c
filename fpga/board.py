"""A board: part, pins, clocks, memory and resources, each fact with its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..models.yaml_io import NamedFile


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Pin = Annotated[str, Field(pattern=r"^[A-Z]{1,2}[0-9]{1,2}$", description="package pin, e.g. AY37")]
Pins = Annotated[tuple[Pin, ...], BeforeValidator(_tuple)]
Standard = Literal["LVDS", "LVCMOS12", "LVCMOS18", "DIFF_SSTL12"]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]


class _Sourced(BaseModel, frozen=True):
    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(min_length=1, description="a key of the file's ``sources``")


class Name(_Sourced, frozen=True):
    """A name that a tool must be given as it is."""

    value: Word


class DifferentialClock(_Sourced, frozen=True):
    """An oscillator on a differential pair."""

    name: Word
    mhz: float = Field(gt=0, le=1000)
    p: Pin
    n: Pin
    io_standard: Standard
    dqs_bias: bool = False


class Reset(_Sourced, frozen=True):
    """A push button."""

    pin: Pin
    io_standard: Standard
    active_low: bool


class Leds(_Sourced, frozen=True):
    """Lights, lit by a one."""

    pins: Pins = Field(min_length=1)
    io_standard: Standard
    drive_ma: int = Field(ge=2, le=24)


class Switches(_Sourced, frozen=True):
    """DIP switches."""

    pins: Pins = Field(min_length=1)
    io_standard: Standard


class Pcie(_Sourced, frozen=True):
    """The edge connector; lane i is ``rx_p[i]`` and so on."""

    lanes: Literal[1, 2, 4, 8, 16]
    generation: int = Field(ge=1, le=5)
    block: Annotated[str, Field(pattern=r"^X[0-9]+Y[0-9]+$")]
    slr: int = Field(ge=0, le=3)
    perst_n: Pin
    perst_io_standard: Standard
    refclk_p: Pin
    refclk_n: Pin
    refclk_mhz: float = Field(gt=0, le=1000)
    rx_p: Pins
    rx_n: Pins
    tx_p: Pins
    tx_n: Pins


class DdrChannel(_Sourced, frozen=True):
    """One memory controller: names of the vendor's board file, and the super logic region of its pins."""

    interface: Word
    clock: Word
    slr: int = Field(ge=0, le=3)


class Ddr(_Sourced, frozen=True):
    """The memory; ``gib`` and ``axi_bits`` are of one channel."""

    module: Word
    registered: bool
    gib: int = Field(ge=1, le=256)
    data_bits: int = Field(ge=8, le=72)
    mt_s: int = Field(ge=800, le=6400)
    tck_ps: int = Field(ge=200, le=2500)
    axi_bits: Literal[64, 128, 256, 512]
    ui_clock_mhz: float = Field(gt=0, le=600, description="of the controller's AXI side")
    channels: Annotated[tuple[DdrChannel, ...], BeforeValidator(_tuple)] = Field(min_length=1, max_length=16)

    @property
    def mb_s(self) -> int:
        """Peak of all channels in 10^6 B/s; the eight check bits of 72 carry no data."""
        return (
            len(self.channels) * self.mt_s * (self.data_bits // 9 if self.data_bits % 9 == 0 else self.data_bits // 8)
        )


class MmcmLimits(_Sourced, frozen=True):
    """Frequencies at which the clock manager works."""

    vco_min_mhz: float = Field(gt=0)
    vco_max_mhz: float = Field(gt=0)
    pfd_min_mhz: float = Field(gt=0)
    pfd_max_mhz: float = Field(gt=0)


class Device(_Sourced, frozen=True):
    """Everything on the chip."""

    lut: int = Field(ge=1)
    ff: int = Field(ge=1)
    dsp: int = Field(ge=1)
    bram36: int = Field(ge=1)
    uram: int = Field(ge=0)
    slrs: int = Field(ge=1, le=4)


class Usable(_Sourced, frozen=True):
    """What the vendor's shell leaves to a design."""

    lut: int = Field(ge=1)
    dsp: int = Field(ge=1)
    lut_by_slr: Annotated[tuple[int, ...], BeforeValidator(_tuple)]


class Configuration(_Sourced, frozen=True):
    """Properties of the bitstream."""

    voltage: float = Field(gt=0, le=3.3)
    cfgbvs: Literal["GND", "VCCO"]
    spi_width: Literal[1, 2, 4, 8]
    spi_mhz: float = Field(gt=0, le=200)
    power_budget_w: int = Field(ge=1, le=1000, description="of the design, given to Vivado's power report")


class Board(NamedFile, frozen=True):
    """A card; see ``fpga/boards/vcu1525.yaml``. Unknown keys, unnamed sources and pins used twice are refused."""

    _files = "board", Path(__file__).parent / "boards"

    format: Literal["nmsat-board/1"]
    name: Word
    description: str = Field(default="", max_length=2000)
    sources: dict[str, str] = Field(min_length=1)
    part: Name
    board_part: Name
    vitis_platform: Name
    clocks: Annotated[tuple[DifferentialClock, ...], BeforeValidator(_tuple)] = Field(min_length=1)
    reset: Reset
    leds: Leds
    switches: Switches
    pcie: Pcie
    ddr: Ddr
    mmcm: MmcmLimits
    device: Device
    usable: Usable
    configuration: Configuration

    @model_validator(mode="after")
    def _check(self) -> Board:
        for key, source in self.cited():
            if source not in self.sources:
                raise ValueError(f"{key}: must name one of sources ({', '.join(self.sources)}), not {source!r}")
        seen: dict[str, str] = {}
        for signal, pin in self.pins():
            if pin in seen:
                raise ValueError(f"{signal}: must be a pin of its own, not {pin!r}, which is also {seen[pin]}")
            seen[pin] = signal
        names = [clock.name for clock in self.clocks]
        if len(set(names)) != len(names):
            raise ValueError(f"clocks: must have different names, not {names}")
        for key in ("rx_p", "rx_n", "tx_p", "tx_n"):
            if len(getattr(self.pcie, key)) != self.pcie.lanes:
                count = len(getattr(self.pcie, key))
                raise ValueError(f"pcie.{key}: must be {self.pcie.lanes} pins, one a lane, not {count}")
        for number, channel in enumerate(self.ddr.channels):
            if channel.clock not in names:
                raise ValueError(f"ddr.channels.{number}.clock: must be a clock of this board, not {channel.clock!r}")
        slrs = self.device.slrs
        if len(self.usable.lut_by_slr) != slrs:
            raise ValueError(
                f"usable.lut_by_slr: must be {slrs} numbers, one an SLR, not {len(self.usable.lut_by_slr)}"
            )
        for key, slr in (
            ("pcie", self.pcie.slr),
            *((f"ddr.channels.{i}", c.slr) for i, c in enumerate(self.ddr.channels)),
        ):
            if slr >= slrs:
                raise ValueError(f"{key}.slr: must be below {slrs}, not {slr}")
        for number, lut in enumerate(self.usable.lut_by_slr):
            if not 0 < lut <= self.device.lut // slrs:
                raise ValueError(f"usable.lut_by_slr.{number}: must be 1 to {self.device.lut // slrs}, not {lut}")
        return self

    def cited(self) -> list[tuple[str, str]]:
        """(key, source) of every group of facts."""
        found: list[tuple[str, str]] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, _Sourced):
                found.append((name, value.source))
        found += [(f"clocks.{number}", clock.source) for number, clock in enumerate(self.clocks)]
        return found + [(f"ddr.channels.{number}", channel.source) for number, channel in enumerate(self.ddr.channels)]

    def pins(self) -> list[tuple[str, str]]:
        """(signal, package pin) of everything the file places."""
        found = [("reset", self.reset.pin)]
        for clock in self.clocks:
            found += [(f"{clock.name}_p", clock.p), (f"{clock.name}_n", clock.n)]
        found += [(f"leds.{number}", pin) for number, pin in enumerate(self.leds.pins)]
        found += [(f"switches.{number}", pin) for number, pin in enumerate(self.switches.pins)]
        found += [("pcie.perst_n", self.pcie.perst_n)]
        found += [("pcie.refclk_p", self.pcie.refclk_p), ("pcie.refclk_n", self.pcie.refclk_n)]
        for key in ("rx_p", "rx_n", "tx_p", "tx_n"):
            found += [(f"pcie.{key}.{lane}", pin) for lane, pin in enumerate(getattr(self.pcie, key))]
        return found

    def io_standards(self) -> dict[str, str]:
        """I/O standard of every pin that has one; transceiver pins have none."""
        found = {self.reset.pin: self.reset.io_standard, self.pcie.perst_n: self.pcie.perst_io_standard}
        for clock in self.clocks:
            found |= {clock.p: clock.io_standard, clock.n: clock.io_standard}
        found |= dict.fromkeys(self.leds.pins, self.leds.io_standard)
        return found | dict.fromkeys(self.switches.pins, self.switches.io_standard)
