"""Design-space exploration: the closed form over arrays of designs, equal to simulate on each."""

from .designs import FIELDS, Designs
from .evaluate import Figures, evaluate
from .skeleton import Skeleton, skeleton_of

__all__ = ["FIELDS", "Designs", "Figures", "Skeleton", "evaluate", "skeleton_of"]
