"""The host's side of the accelerator: one driver, and the backends it runs on."""

from .backend import Backend, DeviceError, blocking
from .driver import BlockingDriver, Counters, Driver, RunError

__all__ = ["Backend", "BlockingDriver", "Counters", "DeviceError", "Driver", "RunError", "blocking"]
