"""docs/registers.md from the register map: ``python -m nmsat.rtl.register_page FILE`` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

from .registers import Register, RegisterMap, register_map

_ACCESS = (
    ("rw", "reads what was written"),
    ("ro", "reads what the hardware says; writing changes nothing"),
    ("set", "writing 1 asks for something, writing 0 does nothing"),
    ("cor", "set by the hardware, cleared by reading the register"),
    ("w1c", "set by the hardware, cleared by writing 1"),
)
_HEAD = """\
# Registers

Made from [`rtl/registers.yaml`](../rtl/registers.yaml) by `python -m nmsat.rtl.register_page docs/registers.md`; a
test keeps it current. The slave, the host driver's constants and the files for Vivado and Vitis come from the same map.

* 32-bit words on AXI4-Lite, {size:#x} bytes of offsets. 64-bit registers have their lower half first.
* Every access is answered OKAY, because an error on this bus comes back through PCIe as a fault of the host. Offsets
  without a register read 0, writes to them change nothing; both set `status.bad_access`.
* Byte strobes are honoured. Reset clears everything.
* Arguments are taken over when a run starts: writing them during a run is for the next one.
* `ap_start` during a run is ignored and sets `status.start_ignored`.
* The interrupt line is a level: high while `gier.enable` is set and a cause enabled in `ier` is pending in `isr`.
* Counters keep counting while they are read: read the upper half, the lower, and the upper again, or read after a stop.
"""


def page(map: RegisterMap) -> str:
    """The documentation page."""
    lines = [_HEAD.format(size=1 << map.address_bits), "| access | meaning |", "|---|---|"]
    lines += [f"| {name} | {meaning} |" for name, meaning in _ACCESS]
    lines += ["", "## Map", "", "| offset | register | bits | access | |", "|---|---|---|---|---|"]
    for register in sorted(map.registers, key=lambda item: item.offset):
        lines += _rows(register)
    lines += ["", "Arguments of the kernel, in order: " + ", ".join(f"`{r.name}`" for r in map.arguments) + "."]
    lines += ["", "## Codes of `error_code`", "", "| code | name | |", "|---|---|---|"]
    lines += [f"| {item.code:#04x} | `{item.name}` | {item.description} |" for item in map.codes]
    return "\n".join(lines) + "\n"


def _rows(register: Register) -> list[str]:
    """Lines of one register: one if it has no fields, else one more a field."""
    offset, width = f"{register.offset:#04x}", register.width
    if not register.fields:
        return [f"| {offset} | `{register.name}` | {width - 1}:0 | {register.access} | {register.description} |"]
    found = [f"| {offset} | `{register.name}` | | | {register.description} |"]
    for field in register.fields:
        bits = f"{field.bit + field.width - 1}:{field.bit}" if field.width > 1 else f"{field.bit}"
        found.append(f"| | `.{field.name}` | {bits} | {field.access} | {field.description} |")
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(register_map()))
