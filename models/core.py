"""A processor core that runs the CPU kernels: pipeline, caches, and where every number comes from."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .yaml_io import NamedFile

Isa = Literal["aarch64", "x86-64"]
Engine = Literal["none", "wasmtime", "v8"]


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class _Sourced(BaseModel, frozen=True):
    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(min_length=1, description="a key of the file's ``sources``")


class Count(_Sourced, frozen=True):
    """A whole number and its source."""

    value: int = Field(ge=1, le=2**40)


class Amount(_Sourced, frozen=True):
    """A number and its source."""

    value: float = Field(ge=0, le=1e9)


class Operation(_Sourced, frozen=True):
    """What one kind of instruction costs.

    ``uses`` names, a micro-op, the ports that can execute it ("L0/L1"); a kind without ports (an eliminated move) is
    an empty list. ``uops`` issue slots (default: one a port group, at least one).
    """

    uses: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = Field(description="port alternatives a micro-op")
    latency: int = Field(ge=0, le=100, description="cycles until dependents start")
    accumulate_latency: int | None = Field(default=None, ge=1, le=100, description="through the addend of a sum")
    busy: int = Field(default=1, ge=1, le=32, description="cycles its ports stay taken")
    uops: int | None = Field(default=None, ge=0, le=16)

    @property
    def slots(self) -> int:
        """Issue slots taken."""
        return max(1, len(self.uses)) if self.uops is None else self.uops

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Alternative ports of each micro-op."""
        return tuple(tuple(text.split("/")) for text in self.uses)


class Cache(_Sourced, frozen=True):
    """One level: its size, and the exposed cycles when a 64-byte line comes from the level behind it."""

    size_bytes: int = Field(ge=1024, le=2**34)
    miss_cycles: float = Field(ge=0, le=1000, description="exposed cycles of a line from the next level, scattered")
    stream_cycles: float = Field(ge=0, le=1000, description="the same for a sequential stream")
    miss_source: str = Field(min_length=1)


class Core(NamedFile, frozen=True):
    """A core as the cycle model of docs/kernel_model.md needs it; every number names its source."""

    model_config = ConfigDict(ignored_types=(cached_property,))
    _files = "core", Path(__file__).parent / "cores"

    format: Literal["nmsat-core/1"] = Field(description="file format and version")
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = Field(default="", max_length=2000)
    isa: Isa
    engine: Engine = Field(default="none", description="what turns wasm into the core's instructions")
    sources: dict[str, str] = Field(min_length=1, description="short name to where the number was read or measured")
    clock_mhz: Count
    in_order: bool
    ordered_results: bool = Field(default=False, description="in-order core that also writes results in order")
    issue_width: Count = Field(description="micro-ops issued a cycle")
    group_loads: Count | None = Field(
        default=None, description="loads among one cycle's micro-ops beyond which their group takes a second cycle"
    )
    window: Count = Field(description="instructions in flight; 1 for an in-order core")
    mispredict_cycles: Count
    branch_history: Count | None = Field(
        default=None, description="taken branches that the predictor of a loop's exit sees"
    )
    relearned_exits: Amount | None = Field(
        default=None, description="exits mispredicted when equal rows give way to rows of another count"
    )
    store_forward_cycles: Count = Field(description="from a store's data to a load of the same address")
    split_load_cycles: Amount = Field(description="load slots lost when a vector load crosses a line")
    call_cycles: Amount = Field(description="fixed cost of a panel's call")
    direct_mac_cycles: Amount = Field(description="cycles a multiply-add of direct (3x3, depthwise) convolutions")
    output_cycles: Amount = Field(description="cycles an output element of every product of a network")
    silu_cycles: Amount = Field(description="cycles an element of SiLU, sigmoid or GELU")
    network_factor: Amount = Field(description="measured over modelled cycles of whole networks")
    caches: Annotated[tuple[Cache, ...], BeforeValidator(_tuple)] = Field(min_length=1, max_length=4)
    operations: dict[str, Operation] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Core:
        for key, source in self.cited():
            if source not in self.sources:
                raise ValueError(f"{key}: must name one of sources ({', '.join(self.sources)}), not {source!r}")
        sizes = [cache.size_bytes for cache in self.caches]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"caches: must grow from level to level, not {sizes}")
        if (self.isa == "aarch64") != (self.engine == "none"):
            raise ValueError(f"engine: must be none for aarch64, wasmtime or v8 for x86-64, not {self.engine!r}")
        return self

    def cited(self) -> list[tuple[str, str]]:
        """(key, source) of every number."""
        found: list[tuple[str, str]] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, _Sourced):
                found.append((name, value.source))
        for number, cache in enumerate(self.caches):
            found += [(f"caches.{number}", cache.source), (f"caches.{number}.miss", cache.miss_source)]
        return found + [(f"operations.{name}", value.source) for name, value in self.operations.items()]

    @property
    def clock_hz(self) -> int:
        """Core clock in Hz."""
        return self.clock_mhz.value * 1_000_000

    def __hash__(self) -> int:
        return hash(self.config_hash_cached)

    @cached_property
    def config_hash_cached(self) -> str:
        """:meth:`config_hash`, computed once: cores are keys of the model's caches."""
        return self.config_hash()
