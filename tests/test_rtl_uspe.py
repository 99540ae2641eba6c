"""The element alone, driven at its ports as `control_layout` says: golden's bits at the documented cycles."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from nmsat.models.golden.floats import add_bits, multiply_bits
from nmsat.rtl.simulators import simulate
from nmsat.rtl.uspe import Uspe, control_layout, weight_layout

SIZES = {
    "max_group": 8, "weight_depth": 8, "sum_depth": 6, "drain_depth": 2, "multiplier_latency": 3, "adder_latency": 4,
}  # fmt: skip
ZERO = 7  # the last word of eight
LM, LA = SIZES["multiplier_latency"], SIZES["adder_latency"]


def operand(half: int) -> int:
    """The 17-bit form of a binary16: fraction, exponent code, sign."""
    sign, exponent, fraction = half >> 15, half >> 10 & 31, half & 1023
    if exponent == 31:
        return sign << 16 | 63 << 10 | fraction
    if exponent:
        return sign << 16 | (exponent + 10) << 10 | fraction
    if not fraction:
        return sign << 16
    top = fraction.bit_length() - 1
    return sign << 16 | (top + 1) << 10 | (fraction << 10 - top) & 1023


def sum_form(word: int) -> int:
    """The 31-bit form of a binary32 that the array can hold."""
    exponent = word >> 23 & 255
    code = 0 if exponent == 0 else 127 if exponent == 255 else exponent - 77
    return (word >> 31) << 30 | code << 23 | word & 0x7FFFFF


def halves(rng, count: int) -> list[int]:
    """Binary16 patterns: ordinary, subnormal, zero, a few infinities."""
    ordinary = rng.normal(size=count).astype(np.float16).view(np.uint16)
    odd = rng.choice(np.array([0, 0x8000, 1, 0x83FF, 0x7BFF, 0xFBFF], np.uint16), count)
    return np.where(rng.random(count) < 0.2, odd, ordinary).tolist()


def golden_sum(pairs: list[tuple[int, int]], start: int = 0) -> int:
    """Binary32 bits of start + x * y + ..., in order, rounded after every addition."""
    total = np.uint32(start)
    for x, y in pairs:
        total = add_bits(total, multiply_bits(np.uint16(x), np.uint16(y)))
    return int(total)


class Script:
    """Inputs by cycle, from what the documentation says is sent when."""

    def __init__(self, cycles: int) -> None:
        self.weight, self.control = weight_layout(8), control_layout(8, 7, 2)
        self.inputs = {port: [0] * cycles for port in ("ws", "a_i", "b_i", "c_i", "control_i")}
        for cycle in range(cycles):
            self.send(cycle, left=ZERO, right=ZERO)

    def send(self, cycle: int, **fields: int) -> None:
        """Set fields of the control word of a cycle."""
        for name, value in fields.items():
            place = self.control[name]
            mask = (1 << place.width) - 1 << place.offset
            self.inputs["control_i"][cycle] = self.inputs["control_i"][cycle] & ~mask | value << place.offset

    def store(self, cycle: int, at: int, half: int, index: int) -> None:
        """A weight word arrives and is kept."""
        value, place = self.weight["value"], self.weight["index"]
        self.inputs["b_i"][cycle] = operand(half) << value.offset | index << place.offset
        self.send(cycle, store=1, store_at=at)

    def activations(self, cycle: int, group: list[int]) -> None:
        """A group of eight at the west side."""
        self.inputs["a_i"][cycle] = sum(operand(half) << 17 * place for place, half in enumerate(group))

    def run(self, hold: bool = False) -> dict[str, list[int]]:
        """Outputs of every cycle; with ``hold`` the clock enable is low in every other one."""
        inputs = {port: [x for value in values for x in [value] * (1 + hold)] for port, values in self.inputs.items()}
        enable = [0, 1] * len(self.inputs["ws"]) if hold else [1] * len(self.inputs["ws"])
        found = simulate(Uspe(**SIZES), "uspe", inputs | {"en": enable}, sim="amaranth")
        return {port: values[1::2] if hold else values for port, values in found.items()}


@pytest.mark.parametrize("hold", [False, True])
def test_weight_stationary_sums_pass_through(hold):
    """c_i + weight * a[index] leaves at c_o, Lm + La cycles after the activations, one a cycle."""
    rng, count = np.random.default_rng(1), 24
    script = Script(8 + count + LM + LA + 2)
    script.inputs["ws"] = [1] * len(script.inputs["ws"])
    weights, indices = halves(rng, 8), rng.integers(0, 8, 8).tolist()
    for at in range(8):
        script.store(at, at, weights[at], indices[at])
    expected = []
    for k in range(count):
        t, group, before = 8 + k, halves(rng, 8), golden_sum([tuple(halves(rng, 2))])
        script.activations(t, group)
        script.send(t, weight=k % 8)
        script.inputs["c_i"][t + LM] = sum_form(before)
        expected.append(sum_form(golden_sum([(weights[k % 8], group[indices[k % 8]])], before)))
    found = script.run(hold)["c_o"]
    assert found[8 + LM + LA : 8 + LM + LA + count] == expected


@pytest.mark.parametrize("hold", [False, True])
def test_output_stationary_sums_stay_fold_and_drain(hold):
    """Two lanes over six groups, folded, finished, and loaded into the drain chain while c_i is passed on otherwise."""
    rng, groups = np.random.default_rng(2), 6
    script = Script(90)
    lanes = ([], [])
    for g in range(groups):
        group = halves(rng, 8)
        for n in range(2):  # a weight word arrives, is kept at once and used in the same operation
            t = 4 + 4 * g + n
            half, index = halves(rng, 1)[0], int(rng.integers(0, 8))
            script.store(t, 0, half, index)
            script.activations(t, group)
            script.send(t, weight=0)
            script.send(t + LM - 1, left=n if g else ZERO)
            script.send(t + LM + LA - 2, write=1, write_at=n)
            lanes[n].append((half, group[index]))
    fold = 4 + 4 * groups + LA
    script.send(fold + LM - 1, left=0, right=1, fold=1)
    script.activations(fold, [0x7C00] * 8)  # no product is meant here: an infinity must not show
    script.send(fold + LM + LA - 2, finish=1, finish_at=1)
    load = fold + LM + LA + 5
    script.send(load, load=1, load_at=1)
    script.inputs["c_i"][load + 2] = 0x12345
    found = script.run(hold)["c_o"]
    both = add_bits(np.uint32(golden_sum(lanes[0])), np.uint32(golden_sum(lanes[1])))
    assert found[load + 2] == sum_form(int(both))
    assert found[load + 3] == 0x12345


def test_operands_weights_and_control_hop_on():
    script = Script(6)
    script.activations(1, [0x3C00] * 8)
    script.store(2, 3, 0xBC00, 5)
    script.send(2, finish=1, finish_at=1)
    found = script.run()
    for port in ("a", "b", "control"):
        assert found[f"{port}_o"][1:] == script.inputs[f"{port}_i"][:-1]


def test_weights_are_shadowed():
    """A set is used while the next one is written beside it."""
    script = Script(30)
    script.inputs["ws"] = [1] * 30
    script.store(0, 0, 0x4000, 0)
    for k in range(8):
        script.activations(2 + k, [0x3C00] * 8)
        script.send(2 + k, weight=0)
        if k == 3:
            script.store(2 + k, 1, 0x4200, 0)
    script.activations(10, [0x3C00] * 8)
    script.send(10, weight=1)
    found = script.run()["c_o"]
    two, three = sum_form(0x40000000), sum_form(0x40400000)
    assert found[2 + LM + LA : 11 + LM + LA] == [two] * 8 + [three]


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"max_group": 0}, ValueError, r"^max_group must be between 1 and 32, not 0$"),
        ({"max_group": 33}, ValueError, r"^max_group must be between 1 and 32, not 33$"),
        ({"weight_depth": 257}, ValueError, r"^weight_depth must be between 1 and 256, not 257$"),
        ({"sum_depth": 513}, ValueError, r"^sum_depth must be between 1 and 512, not 513$"),
        ({"drain_depth": 0}, ValueError, r"^drain_depth must be between 1 and 256, not 0$"),
        ({"drain_depth": True}, TypeError, r"^drain_depth must be an integer, not True$"),
        ({"multiplier_latency": 0}, ValueError, r"^multiplier_latency must be between 1 and 32, not 0$"),
        ({"adder_latency": 33}, ValueError, r"^adder_latency must be between 1 and 32, not 33$"),
        ({"adder_latency": "8"}, TypeError, r"^adder_latency must be an integer, not '8'$"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*created but never used")
def test_bad_parameters_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        Uspe(**SIZES | change)
    gc.collect()  # the half-made element complains here, not in a later test
