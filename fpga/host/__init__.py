"""The host's side of the accelerator: one driver, and the backends it runs on."""

from .backend import Backend, DeviceError, blocking

__all__ = ["Backend", "DeviceError", "blocking"]
