"""Sparse CPU kernels as mappings: description, packing, panels and code generators."""

from .description import LANES, STANDIN, Kernel
from .packing import Packed, Section, choose_block, pack
from .panels import Panel, cut

__all__ = ["LANES", "STANDIN", "Kernel", "Packed", "Panel", "Section", "choose_block", "cut", "pack"]
