"""Pruning: masks of a tensor, densities of a network, schedules over a run, and the recipes that combine them."""

from .allocation import erk, global_magnitude, uniform
from .masks import block_mask, channel_mask, keep_largest, magnitude, magnitude_nm, random_mask
from .recipes import (
    DECAYS,
    RECIPES,
    DynamicNM,
    FixedMask,
    Operands,
    Recipe,
    check_fit,
    make_recipe,
    prunable,
)
from .schedules import Leak, Tightening
from .statistics import densities, flip_rate, overlap

__all__ = [
    "DECAYS",
    "RECIPES",
    "DynamicNM",
    "FixedMask",
    "Leak",
    "Operands",
    "Recipe",
    "Tightening",
    "block_mask",
    "channel_mask",
    "check_fit",
    "densities",
    "erk",
    "flip_rate",
    "global_magnitude",
    "keep_largest",
    "magnitude",
    "magnitude_nm",
    "make_recipe",
    "overlap",
    "prunable",
    "random_mask",
    "uniform",
]
