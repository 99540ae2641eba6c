"""The golden executor: a program run in values on a DRAM image, bit for bit."""

from .image import load_tensors, new_image, read_tensor
from .run import execute, refusals
from .weights import load_weights

__all__ = ["execute", "load_tensors", "load_weights", "new_image", "read_tensor", "refusals"]
