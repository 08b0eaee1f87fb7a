"""The checks every metric of features makes of them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaebm.errors import UserError

Features = NDArray[Any]  # (n, d), real numbers


def finite_features(values: ArrayLike, name: str, at_least: int = 1) -> Features:
    """Return ``values`` as an array (n, d), uncopied where it is one already.

    Raises:
        UserError: not numbers in two dimensions, fewer than ``at_least`` rows, no columns, or some rows hold NaN or
            infinite numbers; the message begins with ``name``.
    """
    features = np.asarray(values)
    if features.dtype.kind not in "fiub":
        raise UserError(f"{name}: found {features.dtype} values, needed real numbers, one row of features per image")
    if features.ndim != 2 or not features.shape[1]:
        raise UserError(f"{name}: found an array of shape {features.shape}, needed one row per image, shape (N, D)")
    if len(features) < at_least:
        raise UserError(f"{name}: found {len(features)} images, needed at least {at_least}")
    # A minimum is NaN where anything is, and needs no second array of the size of the features.
    bad = ~(np.isfinite(features.min(axis=1)) & np.isfinite(features.max(axis=1)))
    if bad.any():
        raise UserError(
            f"{name}: {int(bad.sum())} of {len(features)} images have NaN or infinite features "
            f"(the first at position {int(np.argmax(bad))}), needed finite numbers"
        )
    return features


def two_feature_sets(
    a: ArrayLike, a_name: str, b: ArrayLike, b_name: str, at_least: int = 1
) -> tuple[Features, Features]:
    """Return both after :func:`finite_features`.

    Raises:
        UserError: one is refused there, or they have unlike numbers of features.
    """
    x, y = finite_features(a, a_name, at_least), finite_features(b, b_name, at_least)
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"{a_name} and {b_name}: found {x.shape[1]} and {y.shape[1]} features per image, "
            "needed the same extractor for both"
        )
    return x, y
