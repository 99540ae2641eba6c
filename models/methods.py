"""Training methods as far as the hardware sees them: which operand of which stage is N:M sparse."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import NmsatError


@dataclass(frozen=True, slots=True)
class Method:
    """Sparse operands of a training method (section 2 of the contract).

    Attributes
    ----------
    ff_weights, bp_weights : bool
        The weight operand of the forward / backward product is N:M.
    bp_gradient : bool
        The output gradient of the backward product is N:M, pruned anew every step (SDGP).
    """

    name: str
    ff_weights: bool = False
    bp_weights: bool = False
    bp_gradient: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("dense"),
        Method("sr-ste", ff_weights=True),
        Method("sdgp", bp_gradient=True),
        Method("sdwp", bp_weights=True),
        Method("bdwp", ff_weights=True, bp_weights=True),
    )
}


def get_method(name: str) -> Method:
    """Look a method up by name; an unknown name is an NmsatError."""
    try:
        return METHODS[name]
    except KeyError:
        raise NmsatError.rule("", "method", f"one of {', '.join(METHODS)}", name) from None
