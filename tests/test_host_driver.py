"""The host driver on backends that block and on ones that suspend."""

from __future__ import annotations

import pytest

from nmsat.fpga.host import blocking


class Suspends:
    def __await__(self):
        yield None


async def value(inner=None):
    if inner is not None:
        await inner
    return 7


def test_blocking_runs_what_never_suspends():
    assert blocking(value()) == 7
    assert blocking(value(value())) == 7


def test_blocking_refuses_what_suspends():
    with pytest.raises(RuntimeError, match="suspends"):
        blocking(value(Suspends()))
