"""The accelerator description: one YAML file drives scheduler, simulator, RTL and board flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from .errors import NmsatError
from .sparsity import DENSE, Sparsity
from .window import GREATEST_LSB, LEAST_LSB, MAX_TERMS_LOG2, Window
from .yaml_io import NamedFile, content_hash, validate


class Accelerator(NamedFile, frozen=True):
    """A SAT-like accelerator: a systolic array of sparse processing elements, its buffers and memory.

    All fields are flat, so ``replace(rows=16)`` and sweeps name them directly. Latencies are in clock
    cycles. Buffer sizes are of *one* of the two banks (every buffer is double).
    """

    _files = "accelerator", Path(__file__).parent / "accelerators"

    format: Literal["nmsat-accelerator/1"] = Field(description="file format and version")
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = Field(default="", max_length=2000)
    # array
    rows: int = Field(ge=1, le=1024, description="R, rows of processing elements")
    cols: int = Field(ge=1, le=1024, description="C, columns of processing elements")
    max_keep: int = Field(ge=1, le=32, description="largest N a processing element can hold")
    max_group: int = Field(ge=1, le=32, description="largest M the activation select covers")
    accumulator: Literal["fp32", "window"] = Field(
        default="fp32", description="how an element sums: a binary32 adder, or fixed point (docs/window.md)"
    )
    window_lsb: int = Field(default=33, ge=LEAST_LSB, le=GREATEST_LSB, description="L of accumulator: window")
    window_bits: int = Field(
        default=64, ge=25, le=86, description="W of accumulator: window, at least L + 17 + log2 of max(rows, max_keep)"
    )
    multiplier_latency_cycles: int = Field(ge=1, le=32, description="Lm")
    adder_latency_cycles: int = Field(ge=1, le=32, description="La of accumulator: fp32; the window's is 1")
    slr_hop_cycles: int = Field(
        default=0, ge=0, le=16, description="registers of every way between super logic regions"
    )
    clock_mhz: int = Field(ge=1, le=2000)
    # buffers, bytes of one bank of two
    w2e_bytes: int = Field(ge=1, le=2**32, description="west-to-east (activation) buffer bank")
    n2s_bytes: int = Field(ge=1, le=2**32, description="north-to-south (weight) buffer bank")
    output_bytes: int = Field(ge=1, le=2**32, description="output and partial-sum buffer bank")
    # DRAM
    dram_channels: int = Field(ge=1, le=64)
    dram_mb_s: int = Field(ge=1, le=10_000_000, description="total bandwidth of all channels, 10^6 B/s")
    dram_gib: int = Field(ge=1, le=16384, description="total capacity")
    dram_interleave_bytes: int = Field(ge=64, le=2**20, description="address stripe of one channel")
    # memory port of the RTL; `simulate` knows bandwidth only
    axi_data_bits: int = Field(default=512, ge=32, le=512, description="width of an AXI4 master, a power of two")
    axi_outstanding: int = Field(
        default=16, ge=1, le=64, description="read bursts in flight; every read port has room for their beats"
    )
    axi_outstanding_writes: int = Field(default=64, ge=1, le=64, description="write bursts in flight")
    prefetch_descriptors: int = Field(
        default=2, ge=1, le=4, description="descriptors of a program that are fetched before their turn"
    )
    overlap_units: bool = Field(
        default=False, description="update and vector unit have memory ports of their own and work beside the array"
    )
    memory_latency_cycles: int = Field(
        default=40, ge=1, le=1000, description="of the testbench's memory: read address taken to first data"
    )
    # vector engines
    wuve_lanes: int = Field(ge=1, le=4096, description="weights updated a cycle")
    sore_lanes: int = Field(ge=1, le=4096, description="groups pruned a cycle")
    vector_lanes: int = Field(ge=1, le=4096, description="elements normalised, activated or pooled a cycle")
    energy_table: str = Field(
        default="vcu1525", min_length=1, max_length=400, description="energy of events: shipped name or YAML file"
    )

    @model_validator(mode="after")
    def _check(self) -> Accelerator:
        if self.max_keep > self.max_group:
            raise ValueError(f"max_keep: must be at most max_group ({self.max_group}), not {self.max_keep}")
        if self.accumulator == "window":
            least = self.window_lsb + 17 + (max(self.rows, self.max_keep) - 1).bit_length()
            most = self.window_lsb + 17 + MAX_TERMS_LOG2
            if not least <= self.window_bits <= most:
                rule = f"{least} to {most}, L + 17 + log2 of the products an element adds"
                raise ValueError(f"window_bits: must be {rule}, not {self.window_bits}")
        for key in ("dram_interleave_bytes", "axi_data_bits"):
            value = getattr(self, key)
            if value & (value - 1):
                raise ValueError(f"{key}: must be a power of two, not {value}")
        return self

    def replace(self, **changes: Any) -> Accelerator:
        """A validated copy with some fields changed; unknown names and bad values raise NmsatError."""
        return validate(type(self), {**self.model_dump(), **changes}, f"accelerator {self.name!r}")

    @property
    def window(self) -> Window | None:
        """The window accumulator's sizes; None with binary32 adders."""
        return Window(self.window_lsb, self.window_bits) if self.accumulator == "window" else None

    @property
    def sum_latency_cycles(self) -> int:
        """La: cycles from a product at the adder to the sum."""
        return 1 if self.accumulator == "window" else self.adder_latency_cycles

    @property
    def sum_bytes(self) -> int:
        """Bytes of a sum in the output buffer."""
        return self.window.sum_bytes if self.window else 4

    @property
    def processing_elements(self) -> int:
        """R * C."""
        return self.rows * self.cols

    @property
    def clock_hz(self) -> int:
        """Core clock in Hz."""
        return self.clock_mhz * 1_000_000

    def dram_cycles(self, dram_bytes: int) -> int:
        """Clock cycles that moving ``dram_bytes`` takes at full bandwidth, rounded up."""
        return -(-dram_bytes * self.clock_mhz // self.dram_mb_s)

    def check_pattern(self, sparsity: Sparsity) -> None:
        """Raise NmsatError unless the array can execute the pattern."""
        for key, value, limit in (
            ("keep", sparsity.keep, self.max_keep),
            ("group", sparsity.group, self.max_group),
        ):
            if value > limit:
                hint = f"raise max_{key} in the accelerator file or choose a narrower pattern"
                rule = f"at most max_{key} = {limit} on accelerator {self.name!r}"
                raise NmsatError.rule("", f"sparsity.{key}", rule, value, hint)

    def narrowed(self, sparsity: Sparsity) -> Sparsity:
        """The tightest pattern the array can execute on data that obeys ``sparsity``, which may be dense.

        At most N of M values are kept, so at most min(N, M') of any M' that divides M.
        """
        if sparsity.is_dense:
            return sparsity
        group = min(sparsity.group, 1 << self.max_group.bit_length() - 1)
        return Sparsity(sparsity.keep, group) if sparsity.keep < group and sparsity.keep <= self.max_keep else DENSE

    def config_hash(self) -> str:
        """:func:`content_hash` of all fields.

        Left out are the window's fields if it is not used, and those that came later where they are the default.
        """
        unused = set() if self.accumulator == "window" else {"window_lsb", "window_bits"}
        later = ("axi_outstanding_writes", "prefetch_descriptors", "overlap_units")
        unused |= {name for name in later if getattr(self, name) == type(self).model_fields[name].default}
        return content_hash(self.model_dump(exclude=unused))
