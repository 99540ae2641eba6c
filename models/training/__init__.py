"""The reference trainer: layer by layer in NumPy, bit for bit what the accelerator computes (docs/training.md)."""

from .loss import cross_entropy, cross_entropy_gradient, softmax
from .network import Stack, backward, forward
from .products import BlasProducts, GoldenProducts, ProductOrder, Products, WindowProducts
from .step import LossScale, State, StepResult, stage_operands, training_step

__all__ = [
    "BlasProducts",
    "GoldenProducts",
    "LossScale",
    "ProductOrder",
    "Products",
    "Stack",
    "State",
    "StepResult",
    "WindowProducts",
    "backward",
    "cross_entropy",
    "cross_entropy_gradient",
    "forward",
    "softmax",
    "stage_operands",
    "training_step",
]
