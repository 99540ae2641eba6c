"""The register map ``registers.yaml``, strictly read: registers, fields, error codes."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..models.yaml_io import read_yaml, validate

MAP_FILE = Path(__file__).with_name("registers.yaml")
Access = Literal["rw", "ro", "set", "cor", "w1c"]
_NAME = r"^[a-z][a-z0-9_]*$"


class _Strict(BaseModel, frozen=True):
    model_config = ConfigDict(extra="forbid", strict=True)


class RegisterField(_Strict, frozen=True):
    """Some bits of a register. ``access`` is explained at the top of the map file."""

    name: str = Field(pattern=_NAME)
    bit: int = Field(ge=0, le=63)
    width: int = Field(default=1, ge=1, le=64)
    access: Access
    description: str = Field(min_length=1)

    @property
    def mask(self) -> int:
        """The field's bits in its register."""
        return (1 << self.width) - 1 << self.bit


class Register(_Strict, frozen=True):
    """One register of 32 or 64 bits; the lower half of 64 bits has the lower offset.

    Attributes
    ----------
    argument : str, optional
        Whether it is an argument of the kernel, and of which kind: ``scalar`` or ``pointer`` to global memory.
    """

    name: str = Field(pattern=_NAME)
    offset: int = Field(ge=0)
    width: Literal[32, 64] = 32
    access: Access | None = None
    argument: Literal["scalar", "pointer"] | None = None
    description: str = Field(min_length=1)
    fields: tuple[RegisterField, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _check(self) -> Register:
        if self.offset % 4:
            raise ValueError(f"offset: must be a multiple of 4, not {self.offset:#x}")
        if (self.access is None) == (not self.fields):
            raise ValueError("access: must be given for the register or for each of its fields, not both or neither")
        used = 0
        for field in self.fields:
            if field.bit + field.width > self.width:
                raise ValueError(f"fields.{field.name}: must end below bit {self.width}")
            if used & field.mask:
                raise ValueError(f"fields.{field.name}: must not overlap another field")
            used |= field.mask
        if len({field.name for field in self.fields}) != len(self.fields):
            raise ValueError("fields: must have different names")
        return self

    @property
    def parts(self) -> tuple[tuple[str, RegisterField], ...]:
        """(port name, field) of every field; a register without fields is one."""
        if self.access is None:
            return tuple((f"{self.name}_{field.name}", field) for field in self.fields)
        whole = RegisterField(name=self.name, bit=0, width=self.width, access=self.access, description="whole register")
        return ((self.name, whole),)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offsets of its 32-bit words."""
        return tuple(range(self.offset, self.offset + self.width // 8, 4))

    @property
    def writable(self) -> bool:
        """Whether software may write to any of it."""
        return any(field.access in ("rw", "set", "w1c") for _, field in self.parts)

    def field(self, name: str) -> RegisterField:
        """A field by name; KeyError if there is none."""
        return {field.name: field for _, field in self.parts}[name]


class ErrorCode(_Strict, frozen=True):
    """A way in which a run can end."""

    name: str = Field(pattern=_NAME)
    code: int = Field(ge=0, le=255)
    description: str = Field(min_length=1)


class RegisterMap(_Strict, frozen=True):
    """All registers and error codes.

    Raises
    ------
    InputFileError
        From :meth:`load`, if the file breaks a rule.
    """

    format: Literal["nmsat-registers/1"]
    name: str = Field(pattern=_NAME)
    address_bits: int = Field(ge=4, le=16)
    identity: int = Field(ge=0, lt=2**32)
    version: int = Field(ge=1, lt=2**32)
    registers: tuple[Register, ...] = Field(min_length=1, strict=False)
    codes: tuple[ErrorCode, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _check(self) -> RegisterMap:
        taken: dict[int, str] = {}
        for register in self.registers:
            for offset in register.offsets:
                if offset in taken:
                    raise ValueError(f"registers.{register.name}: must not overlap {taken[offset]} at {offset:#x}")
                if offset >= 1 << self.address_bits:
                    raise ValueError(f"registers.{register.name}: must lie below {1 << self.address_bits:#x}")
                taken[offset] = register.name
        named: tuple[tuple[str, list[str]], ...] = (
            ("registers", [name for register in self.registers for name, _ in register.parts]),
            ("codes", [item.name for item in self.codes]),
            ("codes", [hex(item.code) for item in self.codes]),
        )
        for kind, names in named:
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{kind}: must have different names and numbers; {repeated[0]} is given twice")
        return self

    @classmethod
    def load(cls, path: Path = MAP_FILE) -> RegisterMap:
        """Read a map file."""
        return validate(cls, read_yaml(path), path.name)

    def register(self, name: str) -> Register:
        """A register by name; KeyError if there is none."""
        return {register.name: register for register in self.registers}[name]

    @property
    def arguments(self) -> tuple[Register, ...]:
        """The kernel's arguments in order of offset."""
        return tuple(sorted((r for r in self.registers if r.argument), key=lambda r: r.offset))


@lru_cache(maxsize=1)
def register_map() -> RegisterMap:
    """The project's map."""
    return RegisterMap.load()


Code: Any = IntEnum("Code", [(item.name.upper(), item.code) for item in register_map().codes])
"""Error codes of the map by upper-case name, for hardware and drivers alike: ``Code.BAD_KIND``."""


def memory_code(error: int, *, write: bool = False, fetch: bool = False) -> int:
    """The ``Code`` of a :class:`.memory_port.MemoryFault`: a unit's read, its write, or the fetch of a descriptor."""
    return Code(0x28 + error if fetch else 0x24 + error if write else 0x20 + error)
