"""Real data for the reference trainer: scikit-learn's bundled digits, 1,797 images of 8x8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingToolError
from ..golden.floats import F16

TEST_IMAGES = 540


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images and labels.

    Attributes
    ----------
    train_x, test_x : float16 arrays (images, 8, 8, 1)
        Pixels 0..1 in sixteenths, exact in binary16.
    train_y, test_y : int64 arrays (images,)
        0 to 9.
    """

    train_x: F16
    train_y: NDArray[np.int64]
    test_x: F16
    test_y: NDArray[np.int64]


def digits(seed: int = 0) -> Split:
    """The digits, shuffled by ``seed``: the first 540 images test, the other 1,257 train.

    Raises
    ------
    MissingToolError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingToolError('digits: must have scikit-learn; install "nmsat[data]"') from None
    found: Any = load_digits()
    x = (found.data / 16).astype(np.float16).reshape(-1, 8, 8, 1)
    y = found.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return Split(x[train], y[train], x[test], y[test])
