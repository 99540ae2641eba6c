"""What the vector unit makes of a descriptor before it begins: legality, steps, number of elements."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dataflow import program as fmt
from ..dataflow.program import FUNCTIONS, Kind, Stage
from .descriptor import descriptor_layout
from .pool_stage import POOL
from .pool_walk import WINDOW
from .registers import Code
from .vector_lane import OPERANDS, SWITCHES

PLAN = data.StructLayout(
    {
        "status": 8,
        "window": WINDOW,
        "pool": POOL,
        "switches": SWITCHES,
        "backward": 1,
        "used": len(OPERANDS),  # a bit an operand
        "used_second": len(OPERANDS),  # when a window is walked for the second time
        "addresses": data.ArrayLayout(64, len(OPERANDS)),
        "target": 64,
    }
)
"""A descriptor as the unit executes it. With a status it must not be executed."""
_RELU, _ADD, _MAXIMUM, _MEAN = (FUNCTIONS.index(name) + 1 for name in ("relu", "add", "maxpool", "avgpool"))
MOST_PLACES = 4096
"""Places of a window whose mean is formed."""
SHARE_BITS = 25


class VectorSetup(wiring.Component):
    """VECTOR descriptors to plans; refuses what the unit cannot execute.

    A plan is offered 2 + 3 p cycles after its descriptor was taken: p = 3 products of three cycles, 9 with a window;
    27 more for the reciprocal of a window's places, of a mean and backward; backward 1 more, and one a window of the
    longer side. What is refused by its fields alone is offered after 2. Reset drops it.

    Ports
    -----
    start : in, stream of 2048-bit descriptors
    plan : out, stream of PLAN
    """

    def __init__(self) -> None:
        super().__init__({"start": In(stream.Signature(2048)), "plan": Out(stream.Signature(PLAN))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        item = Signal(descriptor_layout(Kind.VECTOR), reset_less=True)
        plan = self.plan.payload
        status, step, product = Signal(8), Signal(4), Signal(64)
        window, pool = plan.window, plan.pool
        known = self._steps(m, item, plan.switches, pool)
        switches = plan.switches
        forward = item.stage == Stage.FF
        scatter = ~forward & pool.on & ~pool.mean  # the largest place of a window must be found again
        source = forward | switches.first_relu | switches.last_relu | scatter
        second = switches.add & (forward | switches.last_relu | scatter)
        gradients_used = [~forward & (item.gradients > number) for number in range(3)]
        used = (source, second, *gradients_used)
        addresses = (
            item.source_address, item.second_address,
            item.gradient_address, item.gradient_1_address, item.gradient_2_address,
        )  # fmt: skip
        m.d.comb += [
            plan.status.eq(status),
            window.on.eq(pool.on),
            *(
                window[name].eq(item[field])
                for name, field in (
                    ("images", "images"),
                    ("height", "h"),
                    ("width", "w"),
                    ("channels", "c"),
                    ("window_y", "window_y"),
                    ("window_x", "window_x"),
                    ("stride", "stride"),
                    ("pad", "pad"),
                )
            ),
            plan.backward.eq(~forward),
            window.twice.eq(scatter),
            pool.before.eq(switches.first_relu | switches.last_relu),
            plan.switches.gradients.eq(item.gradients),
            plan.used.eq(Mux(scatter, Cat(source, second), Cat(used))),
            plan.used_second.eq(Cat(Const(0, 2), *gradients_used)),
            plan.target.eq(item.target_address),
            *(plan.addresses[place].eq(address) for place, address in enumerate(addresses)),
        ]
        total, row, image, column_step, row_step, before, places = (
            Signal(32, name=name) for name in ("total", "row", "image", "column_step", "row_step", "before", "places")
        )
        m.d.comb += [
            window.elements.eq(total), window.row.eq(row), window.image.eq(image), window.step.eq(column_step),
            window.row_step.eq(row_step), window.before.eq(before),
        ]  # fmt: skip
        products = (
            (item.images, item.h, total),
            (total, item.w, total),
            (total, item.c, total),
            (item.w, item.c, row),
            (item.h, row, image),
            (item.stride, item.c, column_step),
            (item.stride, row, row_step),
            (item.pad, row + item.c, before),
            (item.window_y, item.window_x, places),
        )
        last = Mux(pool.on, len(products) - 1, 2)
        one, other = Signal(33), Signal(33)
        m.d.sync += product.eq(one * other)
        remainder, quotient, count = Signal(14), Signal(SHARE_BITS), Signal(range(SHARE_BITS + 1))
        exponent, exact = Signal(4), Signal()
        rest_y, rest_x = Signal(32), Signal(32)
        for place in range(MOST_PLACES.bit_length()):
            with m.If(places[place]):
                m.d.comb += [exponent.eq(place), exact.eq(places == 1 << place)]
        rounded = quotient[1:] + quotient[0]
        m.d.comb += pool.share.eq(Mux(exact, (127 - exponent)[:8] << 23, Cat(rounded[:23], (126 - exponent)[:8])))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.start.ready.eq(1)
                with m.If(self.start.valid):
                    m.d.sync += [item.eq(self.start.payload), status.eq(Code.OK)]
                    m.next = "CHECK"
            with m.State("CHECK"):
                odd = item.target_address[0]
                for bit, address in zip(used, addresses, strict=True):
                    odd = odd | (bit & address[0])
                square = (item.stride == item.window_y) & (item.stride == item.window_x) & (item.pad == 0)
                untiled = (
                    ~forward
                    & pool.on
                    & (~square | (pool.mean & pool.relu) | (~pool.mean & switches.first_relu & switches.add))
                )
                zero = (item.images == 0) | (item.h == 0) | (item.w == 0) | (item.c == 0)
                narrow = Mux(item.window_y < item.window_x, item.window_y, item.window_x)
                zero = zero | (
                    pool.on
                    & (
                        (item.stride == 0)
                        | (item.pad >= narrow)
                        | (item.h + (item.pad << 1) < item.window_y)
                        | (item.w + (item.pad << 1) < item.window_x)
                    )
                )
                gradients = ~forward & ((item.gradients == 0) | (item.gradients > 3))
                with m.If(item.kind != Kind.VECTOR):
                    m.d.sync += status.eq(Code.BAD_KIND)
                with m.Elif((item.flags & fmt.NO_VALUES).any() | ~known | untiled):
                    m.d.sync += status.eq(Code.UNSUPPORTED)
                with m.Elif((item.stage > Stage.BP) | gradients):
                    m.d.sync += status.eq(Code.BAD_FIELD)
                with m.Elif(zero):
                    m.d.sync += status.eq(Code.BAD_SIZE)
                with m.Elif(odd):
                    m.d.sync += status.eq(Code.BAD_ALIGNMENT)
                m.d.sync += [step.eq(0), rest_y.eq(item.h), rest_x.eq(item.w)]
                bad = (item.kind != Kind.VECTOR) | (item.flags & fmt.NO_VALUES).any() | ~known
                bad = bad | untiled | (item.stage > Stage.BP) | gradients | zero | odd
                m.next = "OPERANDS"
                with m.If(bad):
                    m.next = "GIVE"
            with m.State("OPERANDS"):
                with m.Switch(step):
                    for place, (a, b, _) in enumerate(products):
                        with m.Case(place):
                            m.d.sync += [one.eq(a), other.eq(b)]
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.next = "STORE"
            with m.State("STORE"):
                with m.Switch(step):
                    for place, (_, _, target) in enumerate(products):
                        with m.Case(place):
                            m.d.sync += target.eq(product)
                m.d.sync += [step.eq(step + 1), count.eq(SHARE_BITS)]
                with m.If(product[32:].any()):
                    m.d.sync += status.eq(Code.BAD_SIZE)
                m.next = "OPERANDS"
                with m.If(step == last):
                    m.next = "GIVE"
                    with m.If(pool.on & (pool.mean | ~forward)):
                        m.next = "SHARE"
            with m.State("SHARE"):
                m.d.sync += remainder.eq(1 << exponent)
                m.next = "DIVIDE"
                with m.If(places > MOST_PLACES):
                    m.d.sync += status.eq(Code.BAD_SIZE)
                    m.next = "GIVE"
            with m.State("DIVIDE"):  # 2^(k + 1) / places, 1 to 2, a bit a cycle from the top
                fits = (remainder << 1) >= places
                with m.If(count != 0):
                    m.d.sync += [
                        remainder.eq((remainder << 1) - Mux(fits, places[:13], 0)),
                        quotient.eq(Cat(fits, quotient)),
                        count.eq(count - 1),
                    ]
                with m.Else():
                    m.next = "GIVE"
                    with m.If(~forward):
                        m.next = "TILING"
            with m.State("TILING"):  # backward, windows must cover the image without a rest
                more_y, more_x = rest_y >= item.window_y, rest_x >= item.window_x
                m.d.sync += [
                    rest_y.eq(rest_y - Mux(more_y, item.window_y, 0)),
                    rest_x.eq(rest_x - Mux(more_x, item.window_x, 0)),
                ]
                with m.If(~more_y & ~more_x):
                    m.next = "GIVE"
                    with m.If((rest_y | rest_x).any()):
                        m.d.sync += status.eq(Code.UNSUPPORTED)
            with m.State("GIVE"):
                m.d.comb += self.plan.valid.eq(1)
                with m.If(self.plan.ready):
                    m.next = "IDLE"
        return m

    def _steps(self, m: Module, item: Any, switches: Any, pool: Any) -> Any:
        """Which steps there are; whether the unit can do them.

        ReLUs and at most one addition; then at most one pool, and ReLUs behind that.
        """
        known, added, pooled, mean = Const(1), Const(0), Const(0), Const(0)
        first, last, final = Const(0), Const(0), Const(0)
        for place in range(8):
            code = item.steps[8 * place : 8 * place + 8]
            relu, add, pools = code == _RELU, code == _ADD, (code == _MAXIMUM) | (code == _MEAN)
            possible = relu | (add & ~added & ~pooled) | (pools & ~pooled) | (code == 0)
            known = known & possible
            first, last = first | (relu & ~added & ~pooled), last | (relu & added & ~pooled)
            final = final | (relu & pooled)
            added, pooled, mean = added | add, pooled | pools, mean | (code == _MEAN)
        m.d.comb += [
            switches.add.eq(added), switches.first_relu.eq(first), switches.last_relu.eq(last),
            pool.on.eq(pooled), pool.mean.eq(mean), pool.relu.eq(final),
        ]  # fmt: skip
        return known
